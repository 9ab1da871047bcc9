/** Symbols of a kernel: names for addresses. Addresses are signed numbers, as canonical addresses fit them: a kernel's are negative. */
import { UserError } from "../base/errors.ts";

/** One symbol; `type` is nm's letter. */
export type KernelSymbol = { readonly address: number; readonly type: string; readonly name: string };

/** An address that is farther behind its symbol lies in something that has none, such as a module. */
const MOST_BYTES = 1 << 20;
const isText = ({ type }: KernelSymbol): boolean => "tTwW".includes(type);
/** Names that only mark where something begins come last among those of one address, weak ones next to them, as in Linux's kernel/kallsyms. */
const rank = ({ name, type }: KernelSymbol): number =>
  /^_*(?:s|e)?(?:init)?text$|^__.*(?:_start|_end|_begin)$|^__(?:start|stop|end)_/.test(name) ? 3 : "wW".includes(type) ? 2 : name.startsWith("_") ? 1 : 0;

/** Finds functions by addresses. */
export class SymbolTable {
  readonly #symbols: readonly KernelSymbol[];
  constructor(symbols: readonly KernelSymbol[]) { this.#symbols = [...symbols].sort((a, b) => a.address - b.address || rank(a) - rank(b)); }

  /** The function that holds the address, or undefined. */
  functionAt(address: number): string | undefined {
    const s = this.#symbols;
    let from = 0, to = s.length;
    while (from < to) {
      const middle = (from + to) >>> 1;
      if (s[middle]!.address <= address) from = middle + 1; else to = middle;
    }
    const at = s[from - 1]?.address;
    if (at === undefined || address - at > MOST_BYTES) return undefined;
    let first = from - 1;
    while (s[first - 1]?.address === at) first--;
    return s.slice(first, from).find(isText)?.name;
  }
}

/** @param text lines such as "ffffffff81000000 T startup_64" @throws UserError when there is no function in it */
export function parseSystemMap(text: string, name: string): KernelSymbol[] {
  const symbols: KernelSymbol[] = [];
  for (const line of text.split("\n")) {
    const [, address, type, symbol] = /^([0-9a-f]{8,16}) ([A-Za-z]) (\S+)/.exec(line) ?? [];
    if (address && type && symbol) symbols.push({ address: Number(BigInt.asIntN(64, BigInt(`0x${address}`))), type, name: symbol });
  }
  if (symbols.some(isText)) return symbols;
  const stand = /real System\.map is in the (\S+)/.exec(text)?.[1];
  throw new UserError(`${name}: ${stand ? `only stands in for the System.map of package ${stand}` : 'no System.map; its lines look like "ffffffff81000000 T startup_64"'}`);
}
