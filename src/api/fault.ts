/** What an action can fail with: a word for programs, a sentence for people. */
import { UserError } from "../base/errors.ts";

/** The words, each with its HTTP status. "notbuilt": understood, and not there yet. */
export const FAULT_STATUS = {
  invalid: 400, unauthorized: 401, forbidden: 403, notfound: 404, exists: 409, busy: 409, gone: 410, toolarge: 413, cancelled: 499, failed: 500, notbuilt: 501, unreachable: 502, nomem: 507,
} as const;
/** One of the words. */
export type FaultCode = keyof typeof FAULT_STATUS;

/** An action's refusal. The message names the thing and the remedy. */
export class ApiFault extends UserError {
  override name = "ApiFault";
  readonly code: FaultCode;
  constructor(code: FaultCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** Any error as a fault: what the library refuses is the caller's, all else ours. */
export function faultOf(e: unknown): ApiFault {
  if (e instanceof ApiFault) return e;
  if (e instanceof DOMException && e.name === "AbortError") return new ApiFault("cancelled", "It was cancelled");
  if (!(e instanceof UserError)) return new ApiFault("failed", e instanceof Error ? e.message : String(e), { cause: e });
  return new ApiFault(/ MiB are free\)/.test(e.message) ? "nomem" : /There is a domain named/.test(e.message) ? "exists" : "invalid", e.message, { cause: e });
}
/** A fault as it goes over the wire. */
export type FaultJson = { readonly code: FaultCode; readonly message: string };
/** As it goes over the wire. */
export const faultJson = (f: ApiFault): FaultJson => ({ code: f.code, message: f.message });
/** As it came over the wire: a word that is not known is "failed". */
export const faultFromJson = (f: { code?: unknown; message?: unknown }): ApiFault =>
  new ApiFault(typeof f.code === "string" && Object.hasOwn(FAULT_STATUS, f.code) ? (f.code as FaultCode) : "failed", typeof f.message === "string" ? f.message : "The action failed without a word");
