/** The command line: options, their help, and precise words about what is wrong with them. */
import { UserError } from "../base/errors.ts";
import { nearest } from "../toolstack/xlkeys.ts";

/** One option. `value` names what it takes (absent: a switch); `take` checks it. */
export type Option = { readonly value?: string; readonly help: string; readonly short?: string; /** it may be given several times: all its values are in `Parsed.repeated` */ readonly repeats?: boolean };
export type Parsed = { readonly words: readonly string[]; readonly options: ReadonlyMap<string, string>; readonly repeated: ReadonlyMap<string, readonly string[]> };

/**
 * Tell options (`--name value`, `--name=value`, `-x`) from words; `--` ends the options.
 * @throws UserError for an unknown option, a missing or a needless value
 */
export function parseArgs(args: readonly string[], known: Readonly<Record<string, Option>>, command: string): Parsed {
  const words: string[] = [], options = new Map<string, string>(), repeated = new Map<string, readonly string[]>();
  for (let i = 0; i < args.length; i++) {
    const arg = args[i]!;
    if (arg === "--") { words.push(...args.slice(i + 1)); break; }
    if (!arg.startsWith("-") || arg === "-") { words.push(arg); continue; }
    const equals = arg.startsWith("--") ? arg.indexOf("=") : -1;
    const typed = equals > 0 ? arg.slice(0, equals) : arg;
    const name = Object.keys(known).find((k) => `--${k}` === typed || (known[k]!.short !== undefined && `-${known[k]!.short}` === typed));
    if (!name) {
      const near = nearest(typed.replace(/^-+/, ""), Object.keys(known));
      throw new UserError(`Unknown option "${typed}"${near ? `; did you mean "--${near}"?` : ""} (domus ${command} --help lists them)`);
    }
    const { value } = known[name]!;
    if (value === undefined) {
      if (equals > 0) throw new UserError(`Option "--${name}" takes no value`);
      options.set(name, "");
    } else if (value.startsWith("[")) options.set(name, equals > 0 ? arg.slice(equals + 1) : "");
    else {
      const given = equals > 0 ? arg.slice(equals + 1) : args[++i];
      if (given === undefined || given === "") throw new UserError(`Option "--${name}" wants ${value}`);
      options.set(name, given);
      if (known[name]!.repeats) repeated.set(name, [...repeated.get(name) ?? [], given]);
    }
  }
  return { words, options, repeated };
}

/** An option's value as a whole number of a range. */
export function numberOption(parsed: Parsed, name: string, least: number, most: number): number | undefined {
  const text = parsed.options.get(name);
  if (text === undefined) return undefined;
  const n = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
  if (!(n >= least && n <= most)) throw new UserError(`Option "--${name}" wants a whole number from ${least} to ${most}, not "${text}"`);
  return n;
}

/** An option's value as one of some words. */
export function wordOption<T extends string>(parsed: Parsed, name: string, choices: readonly T[]): T | undefined {
  const text = parsed.options.get(name);
  if (text === undefined) return undefined;
  const found = choices.find((c) => c === text);
  if (!found) throw new UserError(`Option "--${name}" is one of ${choices.join(", ")}, not "${text}"`);
  return found;
}

/** The options' part of a help page. */
export function optionsHelp(known: Readonly<Record<string, Option>>): string {
  const rows = Object.entries(known).map(([name, o]) => [`${o.short ? `-${o.short}, ` : "    "}--${name}${o.value ? (o.value.startsWith("[") ? o.value : ` ${o.value}`) : ""}`, o.help] as const);
  const width = Math.max(...rows.map(([left]) => left.length));
  return rows.map(([left, help]) => `  ${left.padEnd(width)}  ${help}\n`).join("");
}
