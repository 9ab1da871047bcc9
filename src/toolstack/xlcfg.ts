/**
 * The syntax of xl's domain configuration files: `key = value` pairs, a line or a semicolon apart; a value is a string in either quotes, a
 * number (decimal, 0 octal, 0x hexadecimal) or a list, which may nest and span lines; `+=` appends; `#` comments.
 * @see xl.cfg(5) SYNTAX; tools/libs/util/libxlu_cfg_l.l and libxlu_cfg_y.y for what that page leaves open
 */
import { UserError } from "../base/errors.ts";

/** Where something stands in a file; lines and columns count from 1. */
export type Place = { readonly file: string; readonly line: number; readonly column: number };

/** A value with its place. A number keeps its text, for xl reads numbers and quoted numbers alike. */
export type XlValue =
  | { readonly kind: "string"; readonly text: string; readonly place: Place }
  | { readonly kind: "number"; readonly text: string; readonly value: number; readonly place: Place }
  | { readonly kind: "list"; readonly items: readonly XlValue[]; readonly place: Place };

/** One key with the value that holds at the end of the file. */
export type Setting = { readonly key: string; readonly place: Place; readonly value: XlValue };

/** `file:line:column`, as compilers print it; the file alone where line 0 says that there are no lines. */
export const placeText = (p: Place): string => (p.line === 0 ? p.file : `${p.file}:${p.line}:${p.column}`);
/** A fault of the configuration at a stated place; who shows the file can point at it. */
export class ConfigError extends UserError {
  readonly place: Place;
  readonly what: string;
  constructor(place: Place, what: string) {
    super(`${placeText(place)}: ${what}`);
    this.place = place;
    this.what = what;
  }
}
/** A fault of the configuration at a stated place. */
export const faultAt = (place: Place, what: string): UserError => new ConfigError(place, what);

/** Nesting that no honest file reaches; the reader recurses once a level. */
const MAX_DEPTH = 16;
const NUMBER = /^(?:0x[0-9a-f]+|0[0-7]*|[1-9][0-9]*)$/i;
const numberOf = (text: string): number => (/^0[0-7]/.test(text) ? Number.parseInt(text, 8) : Number(text));
/** Read a number as C's strtoul with base 0 does, or null. */
export const parseNumber = (text: string): number | null => (NUMBER.test(text) ? numberOf(text) : null);

class Reader {
  readonly text: string;
  readonly file: string;
  at = 0;
  line = 1;
  lineStart = 0;

  constructor(text: string, file: string) {
    this.text = text;
    this.file = file;
  }

  place(): Place { return { file: this.file, line: this.line, column: this.at - this.lineStart + 1 }; }
  peek(): string { return this.text[this.at] ?? ""; }

  /** Skip blanks and comments, and line ends where they mean nothing. */
  skip(acrossLines: boolean): void {
    for (;;) {
      const c = this.peek();
      if (c === " " || c === "\t" || c === "\r" || c === "\f" || (c === "\ufeff" && this.at === 0)) this.at++;
      else if (c === "#") while (this.at < this.text.length && this.peek() !== "\n") this.at++;
      else if (c === "\n" && acrossLines) this.newline();
      else return;
    }
  }
  newline(): void { this.at++; this.line++; this.lineStart = this.at; }

  /** The word that starts here, for an error's text; control characters are shown by number. */
  shown(): string {
    if (this.at >= this.text.length) return "the end of the file";
    const c = this.peek();
    if (c === "\n") return "the end of the line";
    if (c < " " || c === "\x7f") return `the control character 0x${c.charCodeAt(0).toString(16).padStart(2, "0")}`;
    return `"${/^(?:[\w.-]+|.)/u.exec(this.text.slice(this.at, this.at + 40))?.[0] ?? c}"`;
  }

  statements(): Setting[] {
    const found: Setting[] = [];
    for (;;) {
      this.skip(true);
      if (this.peek() === ";") { this.at++; continue; }
      if (this.at >= this.text.length) return found;
      found.push(this.statement(found));
      this.skip(false);
      if (this.at < this.text.length && this.peek() !== "\n" && this.peek() !== ";") {
        throw faultAt(this.place(), `Expected the end of the line or ";" after the value, found ${this.shown()}`);
      }
    }
  }

  statement(before: readonly Setting[]): Setting {
    const place = this.place();
    const key = /^[A-Za-z_][\w-]*/.exec(this.text.slice(this.at, this.at + 200))?.[0];
    if (!key) throw faultAt(place, `Expected a key, found ${this.shown()}`);
    this.at += key.length;
    this.skip(false);
    const appends = this.peek() === "+" && this.text[this.at + 1] === "=";
    if (!appends && this.peek() !== "=") throw faultAt(this.place(), `Expected "=" after "${key}", found ${this.shown()}`);
    this.at += appends ? 2 : 1;
    const value = this.value(key, 0);
    const old = appends ? before.findLast((s) => s.key === key)?.value : undefined;
    return { key, place, value: old ? append(key, old, value) : value };
  }

  value(key: string, depth: number): XlValue {
    this.skip(depth > 0);
    const place = this.place(), c = this.peek();
    if (c === '"' || c === "'") return { kind: "string", text: this.string(c), place };
    if (c === "[") return { kind: "list", items: this.list(key, place, depth), place };
    const word = /^-?[\w.-]+/.exec(this.text.slice(this.at, this.at + 200))?.[0];
    if (word && /^-?\d/.test(word)) {
      const value = parseNumber(word);
      if (value === null) throw faultAt(place, `${key}: "${word}" is not a number; write decimal, octal (0...) or hexadecimal (0x...) digits${word.startsWith("-") ? " without a sign" : ""}`);
      this.at += word.length;
      return { kind: "number", text: word, value, place };
    }
    if (word && /^(?:true|false)$/i.test(word)) throw faultAt(place, `${key}: Write ${/^t/i.test(word) ? 1 : 0} for ${word}`);
    if (word) throw faultAt(place, `${key}: Words stand in quotes: "${word}"`);
    throw faultAt(place, `${key}: Expected a string in quotes, a number or a list, found ${this.shown()}`);
  }

  list(key: string, opened: Place, depth: number): XlValue[] {
    if (depth >= MAX_DEPTH) throw faultAt(opened, `${key}: Lists are nested more than ${MAX_DEPTH} deep`);
    const items: XlValue[] = [];
    this.at++;
    for (;;) {
      this.skip(true);
      if (this.at >= this.text.length) throw faultAt(opened, `${key}: The list that opens here is never closed with "]"`);
      if (this.peek() === "]") { this.at++; return items; }
      items.push(this.value(key, depth + 1));
      this.skip(true);
      if (this.peek() === ",") this.at++;
      else if (this.at < this.text.length && this.peek() !== "]") throw faultAt(this.place(), `${key}: Expected "," or "]" in the list, found ${this.shown()}`);
    }
  }

  string(quote: string): string {
    const opened = this.place();
    let value = "";
    this.at++;
    for (;;) {
      const c = this.peek();
      if (c === "" || c === "\n") throw faultAt(opened, `The string that opens here is not closed with ${quote} on its line`);
      if (c === quote) { this.at++; return value; }
      value += c === "\\" ? this.escape() : c;
      if (c !== "\\") this.at++;
    }
  }

  escape(): string {
    const place = this.place(), rest = this.text.slice(this.at + 1, this.at + 4);
    const simple: Record<string, string> = { a: "\x07", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t", v: "\v", '"': '"', "'": "'", "\\": "\\" };
    const plain = Object.hasOwn(simple, rest[0] ?? "") ? simple[rest[0]!] : undefined;
    if (plain !== undefined) { this.at += 2; return plain; }
    const digits = /^x([0-9a-fA-F]{2})/.exec(rest)?.[1], octal = /^[0-7]{1,3}/.exec(rest)?.[0];
    const code = digits ? Number.parseInt(digits, 16) : octal ? Number.parseInt(octal, 8) : Number.NaN;
    if (!(code > 0 && code < 256)) throw faultAt(place, 'Only \\a \\b \\f \\n \\r \\t \\v \\\\ \\" \\\' \\xHH and octal digits may follow a backslash in a string');
    this.at += 1 + (digits ? 3 : octal!.length);
    return String.fromCharCode(code);
  }
}

function append(key: string, old: XlValue, more: XlValue): XlValue {
  if (old.kind === "list" && more.kind === "list") return { ...old, items: [...old.items, ...more.items] };
  if (old.kind !== "list" && more.kind !== "list") return { kind: "string", text: old.text + more.text, place: more.place };
  throw faultAt(more.place, `${key}: "+=" cannot join a list and a string`);
}

/**
 * Read a configuration file.
 * @returns every key once, in the order of its first appearance, with its last value
 * @throws UserError with file, line and column
 */
export function parseXlCfg(text: string, file: string): Map<string, Setting> {
  const settings = new Map<string, Setting>();
  for (const s of new Reader(text, file).statements()) settings.set(s.key, s);
  return settings;
}

/** Does a word of the command line set a key? */
export const isSetting = (word: string): boolean => /^[A-Za-z_]\w*\s*\+?=/.test(word);

/**
 * Apply a `key=value` of the command line. The shell has eaten the quotes of `name="x"`, so a value that is no number, list or quoted string
 * is taken as a string.
 */
export function applySetting(settings: Map<string, Setting>, word: string, file = "command line"): void {
  const [, key, operator, value] = /^([A-Za-z_]\w*)\s*(\+?=)([\s\S]*)$/.exec(word)!;
  const text = /^\s*["'[]/.test(value!) || parseNumber(value!.trim()) !== null ? word : `${key}${operator}"${value!.replace(/[\\"]/g, "\\$&").replace(/\n/g, "\\n")}"`;
  const [one, ...others] = new Reader(text, file).statements();
  if (!one || others.length) throw new UserError(`${file}: "${word}" is not one key=value`);
  const old = operator === "+=" ? settings.get(one.key)?.value : undefined;
  settings.set(one.key, old ? { ...one, value: append(one.key, old, one.value) } : one);
}
