/** What a verb of xl is, and what all of them share: messages, domains, sizes, columns. */
import type { ApiClient } from "../../api/client.node.ts";
import { ApiFault, faultOf } from "../../api/fault.ts";
import type { Progress } from "../../api/tasks.ts";
import { parseCpuList } from "../../toolstack/xlcpus.ts";
import type { GetoptOption } from "../getopt.ts";

/** libxl_error, as far as xl's messages and codes show it. tools/libs/light/libxl_types.idl */
export const RC = { nonspecific: -1, fail: -3, ni: -4, nomem: -5, inval: -6, timedout: -9, domainNotfound: -30 } as const;

/** xl ends: what it says, a line on stderr, and its exit code. */
export class Leave extends Error {
  readonly code: number;
  constructor(code: number, line = "") {
    super(line);
    this.code = code;
  }
}

/** What a verb has of the world. */
export type Xl = {
  out(text: string): void;
  /** a line on stderr */
  say(line: string): void;
  /** the host's daemon, started where none runs */
  daemon(): Promise<ApiClient>;
  /** aborts on ^C and the like */
  readonly signal: AbortSignal;
  progress(p: Progress): void;
  readonly isDryRun: boolean;
  readonly isVerbose: boolean;
  readonly env: NodeJS.ProcessEnv;
};
/** The line as it was understood: options by their short name (or long, where there is no short one), and words. */
export type Line = { readonly options: ReadonlyMap<string, string>; readonly words: readonly string[] };
/** An option with its help. */
export type VerbOption = GetoptOption & { readonly help: string; /** how the value is called */ readonly arg?: string };
/** A verb: a row of the table. */
export type Verb = {
  readonly name: string;
  /** one line */
  readonly help: string;
  /** its arguments, as the usage shows them */
  readonly args: string;
  readonly options?: readonly VerbOption[];
  /** how many words it wants at least */
  readonly minWords?: number;
  /** takes -N */
  readonly dryRun?: true;
  /** changes something: takes -f */
  readonly modifies?: true;
  /** what differs from xl's, for the table of the documentation */
  readonly note?: string;
  /** absent: not built. @returns the exit code */
  readonly run?: (xl: Xl, line: Line) => Promise<number> | number;
};

/** What a refusal says, as a line. */
export const wordsOf = (e: unknown): string => faultOf(e).message;
/** Run, and leave with that code and these words before the daemon's where it refuses. */
export async function orLeave<T>(code: number, doing: Promise<T>, line?: string): Promise<T> {
  try {
    return await doing;
  } catch (e) {
    if (e instanceof Leave) throw e;
    if (e instanceof ApiFault && (e.code === "unreachable" || e.code === "notbuilt")) throw new Leave(1, `xl: ${e.message}`);
    throw new Leave(code, line === undefined ? `xl: ${wordsOf(e)}` : `xl: ${wordsOf(e)}\n${line}`);
  }
}

/** The domain that a word means, as xl's find_domain takes it. @throws Leave with xl's words */
export async function findDomain(xl: Xl, word: string): Promise<{ domid: number; name: string; uuid: string; state: string }> {
  try {
    const [found] = await (await xl.daemon()).call("domain.list", { domain: word });
    return found!;
  } catch (e) {
    if (e instanceof ApiFault && e.code === "notfound") throw new Leave(1, `${word} is an invalid domain identifier (rc=${RC.inval})`);
    throw e;
  }
}
/** As findDomain, of a guest. @throws Leave */
export async function findGuest(xl: Xl, word: string): Promise<{ domid: number; name: string; uuid: string; state: string }> {
  const found = await findDomain(xl, word);
  if (found.domid === 0) throw new Leave(1, "xl: Domain 0 is the control domain: it is not a guest");
  return found;
}

/** "512", "512m", "1g" in KiB, MiB without a unit; null where it is no size. xl_utils.c parse_mem_size_kb */
export function parseMemKib(text: string): number | null {
  const [, digits, unit] = /^(\d{1,12})([tgmkb]?)$/i.exec(text) ?? [];
  if (digits === undefined) return null;
  const kib = Number(digits) * ({ t: 2 ** 30, g: 2 ** 20, m: 1024, "": 1024, k: 1, b: 1 / 1024 }[unit!.toLowerCase() as "t"] ?? 1);
  return kib <= 2 ** 40 ? Math.floor(kib) : null;
}
/** "0-3,5" of a list of numbers; "all" where it is; "none" of none. libxl's print_bitmap */
export function rangesText(list: readonly number[] | "all", nrAll?: number): string {
  if (list === "all" || (nrAll !== undefined && list.length >= nrAll)) return "all";
  const sorted = [...new Set(list)].sort((a, b) => a - b), parts: string[] = [];
  for (let i = 0; i < sorted.length; i++) {
    const from = sorted[i]!;
    while (sorted[i + 1] === sorted[i]! + 1) i++;
    parts.push(from === sorted[i] ? `${from}` : `${from}-${sorted[i]}`);
  }
  return parts.join(",") || "none";
}
/** pCPUs as xl writes them, "0-3,^2,5", "all". @returns null where it is none of that */
export function parseRanges(text: string): readonly number[] | "all" | null {
  try { return parseCpuList(text); } catch (e) {
    if (typeof e === "string") return null;
    throw e;
  }
}

/** `%-Nd`: left in N columns. */
export const left = (value: string | number, width: number): string => String(value).padEnd(width);
/** `%Nd`: right in N columns. */
export const right = (value: string | number, width: number): string => String(value).padStart(width);
