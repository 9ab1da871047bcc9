/** A scanner that tells TypeScript's code from its comments and strings; enough for the checks here, no parser. */

export type Scanned = {
  /** The text with comments and the insides of strings blanked; offsets and lines are kept. */
  readonly code: string;
  readonly imports: readonly { readonly specifier: string; readonly line: number; readonly typeOnly: boolean }[];
};

const REGEX_MAY_FOLLOW = /(?:^|[(,=:[!&|?{};+\-*%<>~^]|\b(?:return|typeof|case|in|of|delete|void|throw|new|else|do|yield|await))\s*$/;

/** Blank from `from` to `to`, keeping line ends. */
const blank = (text: string): string => text.replace(/[^\n]/g, " ");

const endOfQuoted = (text: string, at: number): number => {
  const quote = text[at];
  let i = at + 1;
  while (i < text.length && text[i] !== quote && text[i] !== "\n") i += text[i] === "\\" ? 2 : 1;
  return Math.min(i + 1, text.length);
};
const endOfRegex = (text: string, at: number): number => {
  let i = at + 1, inClass = false;
  while (i < text.length && text[i] !== "\n" && (inClass || text[i] !== "/")) {
    if (text[i] === "[") inClass = true;
    else if (text[i] === "]") inClass = false;
    i += text[i] === "\\" ? 2 : 1;
  }
  return Math.min(i + 1, text.length);
};

/** Split one source file into code and the rest. */
export function scan(text: string): Scanned {
  let code = "", i = 0;
  const strings: { at: number; value: string }[] = [];
  /** Depth of braces at which each open `${` ends. */
  const holes: number[] = [];
  let depth = 0;
  const skip = (to: number) => { code += blank(text.slice(i, to)); i = to; };
  const template = (from: number) => {
    let j = from;
    while (j < text.length && text[j] !== "`" && !(text[j] === "$" && text[j + 1] === "{")) j += text[j] === "\\" ? 2 : 1;
    if (text[j] === "$") { skip(j + 2); holes.push(depth); } else skip(Math.min(j + 1, text.length));
  };
  while (i < text.length) {
    const c = text[i]!, next = text[i + 1];
    if (c === "/" && next === "/") skip(text.indexOf("\n", i) < 0 ? text.length : text.indexOf("\n", i));
    else if (c === "/" && next === "*") { const end = text.indexOf("*/", i + 2); skip(end < 0 ? text.length : end + 2); }
    else if (c === '"' || c === "'") {
      const end = endOfQuoted(text, i);
      strings.push({ at: i, value: text.slice(i + 1, end - 1) });
      code += c + blank(text.slice(i + 1, end - 1)) + c;
      i = end;
    } else if (c === "`") template(i + 1);
    else if (c === "/" && REGEX_MAY_FOLLOW.test(code.slice(-40))) skip(endOfRegex(text, i));
    else if (c === "}" && holes.at(-1) === depth) { holes.pop(); template(i + 1); }
    else {
      if (c === "{") depth++;
      if (c === "}") depth--;
      code += c;
      i++;
    }
  }
  const lineOf = (at: number): number => text.slice(0, at).split("\n").length;
  const imports = strings.flatMap(({ at, value }) => {
    const before = code.slice(Math.max(0, at - 2000), at);
    const statement = /(?:^|[;\n}])\s*((?:import|export)\b[^;"']*\bfrom\s*|import\s*)$/.exec(before)?.[1];
    if (statement !== undefined) return [{ specifier: value, line: lineOf(at), typeOnly: /^(?:import|export)\s+type\b/.test(statement) }];
    if (/\bimport\s*\(\s*$/.test(before) || (/\bnew\s+URL\s*\(\s*$/.test(before) && /^\.\.?\/.*\.ts$/.test(value))) return [{ specifier: value, line: lineOf(at), typeOnly: false }];
    return [];
  });
  return { code, imports };
}
