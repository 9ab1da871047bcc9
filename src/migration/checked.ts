/** JSON out of a stream: every value is looked at before it is believed. */
import { StreamError } from "./stream.ts";

/** An object of it. */
export type Raw = Record<string, unknown>;
export const rawOf = (x: unknown): Raw => (typeof x === "object" && x !== null && !Array.isArray(x) ? x as Raw : {});

/** Looks at the values of one record. @param name of the record, for messages */
export class Checked {
  readonly #name: string;
  constructor(name: string) { this.#name = name; }
  fail(what: string): never { throw new StreamError(`The stream's ${this.#name} has ${what}: the stream is damaged`); }
  /** @throws StreamError */
  json(body: Uint8Array): Raw {
    try { return rawOf(JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body))); } catch { throw new StreamError(`The stream's ${this.#name} is no JSON: the stream is damaged`); }
  }
  number(key: string, of: Raw, least: number, most: number): number { return this.#number(key, of[key], least, most); }
  #number(key: string, n: unknown, least: number, most: number): number {
    if (typeof n !== "number" || !Number.isSafeInteger(n) || n < least || n > most) this.fail(`"${key}" ${JSON.stringify(n) ?? "missing"}, not a whole number from ${least} to ${most}`);
    return n as number;
  }
  flag(key: string, of: Raw): boolean {
    const x = of[key];
    return typeof x === "boolean" ? x : this.fail(`"${key}" ${JSON.stringify(x) ?? "missing"}, neither true nor false`);
  }
  /** Sixty-four bits as hexadecimal digits. */
  word(key: string, of: Raw): bigint {
    const x = of[key];
    return typeof x === "string" && /^[0-9a-f]{1,16}$/.test(x) ? BigInt(`0x${x}`) : this.fail(`"${key}" ${JSON.stringify(x) ?? "missing"}, no hexadecimal number`);
  }
  text(key: string, of: Raw, most: number): string {
    const x = of[key];
    return typeof x === "string" && x.length <= most ? x : this.fail(`no good "${key}"`);
  }
  list<T>(key: string, of: Raw, most: number, each: (x: unknown) => T): T[] {
    const x = of[key];
    return Array.isArray(x) && x.length <= most ? x.map(each) : this.fail(`no good list "${key}"`);
  }
  numbers(key: string, of: Raw, length: number, least: number, most: number): number[] {
    const all = this.list(key, of, length, (n) => this.#number(key, n, least, most));
    return all.length === length ? all : this.fail(`${all.length} of "${key}", not ${length}`);
  }
  orNull<T>(key: string, of: Raw, get: () => T): T | null { return of[key] === null ? null : get(); }
}
