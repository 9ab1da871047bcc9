/** The rules that the compiler does not know: order of rooms, web standards, size, true paths in the documents. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { builtinModules } from "node:module";
import { dirname, join, posix } from "node:path";
import { scan } from "./scan.ts";

/** The rooms of src/, lowest first; a file imports from its own room and from those before it. `index.ts` is the library's front door. */
export const ROOMS = ["base", "abi", "wasm", "memory", "x86", "hypervisor", "xenstore", "storage", "network", "chips", "drivers", "builder",
  "migration", "toolstack", "cluster", "api", "web", "index.ts", "bin"];
export const MAX_LINES = 800;
const NODE_NAMES = /(?<![.\w$])(?:Buffer|process|require|__dirname|__filename|setImmediate|clearImmediate)\b(?!\s*[?]?:)/g;
const builtins = new Set(builtinModules);

/** One broken rule, or (`warning`) a smell. */
export type Finding = { readonly path: string; readonly line: number; readonly text: string; readonly warning?: true };

/** May this file know Node? */
export const mayUseNode = (path: string): boolean =>
  !path.startsWith("src/") || path.startsWith("src/bin/") || path.endsWith(".node.ts") || path.endsWith(".test.ts");

/** All files below the given folders that end so, as paths from the root. */
export function filesIn(root: string, folders: readonly string[], end: string): string[] {
  return folders.flatMap((folder) => existsSync(join(root, folder))
    ? readdirSync(join(root, folder), { recursive: true, encoding: "utf8" }).map((f) => posix.join(folder, f)).filter((f) => f.endsWith(end)).sort() : []);
}

const roomOf = (path: string): string => path.split("/")[1]!;

/** Rooms and web standards, for one file. */
export function checkImports(path: string, text: string): Finding[] {
  const { code, imports } = scan(text), found: Finding[] = [];
  const say = (line: number, what: string) => found.push({ path, line, text: what });
  for (const { specifier, line } of imports) {
    const relative = specifier.startsWith(".");
    if (!relative) {
      const isNode = specifier.startsWith("node:") || builtins.has(specifier);
      if (isNode && !specifier.startsWith("node:")) say(line, `Write "node:${specifier}"`);
      if (isNode && !mayUseNode(path)) say(line, `"${specifier}" is Node's: only *.node.ts, src/bin and tests may import it`);
      continue;
    }
    const target = posix.normalize(posix.join(dirname(path), specifier));
    if (!/\.(?:tsx?|json)$/.test(target)) { if (!code.includes("import.meta.url")) say(line, `"${specifier}" lacks its suffix`); continue; }
    if (!path.startsWith("src/")) continue;
    const isTest = path.endsWith(".test.ts");
    if (!target.startsWith("src/")) { if (!isTest) say(line, `"${specifier}" leads out of src/`); continue; }
    if (!mayUseNode(path) && target.endsWith(".node.ts")) say(line, `"${specifier}" needs Node and this file must not`);
    if (!isTest && target.endsWith(".test.ts")) say(line, `"${specifier}" is a test`);
    const from = ROOMS.indexOf(roomOf(path)), to = ROOMS.indexOf(roomOf(target));
    if (from < 0) say(line, `src/${roomOf(path)} is not a room of the house (ROOMS in tools/check/rules.ts)`);
    else if (to > from) say(line, `${roomOf(path)} must not import from ${roomOf(target)}, which lies above it`);
  }
  if (!mayUseNode(path)) {
    code.split("\n").forEach((row, i) => {
      for (const [name] of row.matchAll(NODE_NAMES)) say(i + 1, `${name} is Node's: web standards only here`);
    });
  }
  return found;
}

/** No file grows past MAX_LINES without a reason stated in tools/check/big-files.txt ("path: reason"). */
export function checkSize(path: string, text: string, reasons: ReadonlyMap<string, string>): Finding[] {
  const lines = text.split("\n").length;
  return lines > MAX_LINES && !reasons.has(path) ? [{ path, line: lines, text: `${lines} lines; over ${MAX_LINES} needs a reason in tools/check/big-files.txt` }] : [];
}

/** Every exported name has a doc comment (R11). A smell, not an error. */
export function checkDocs(path: string, text: string): Finding[] {
  if (path.endsWith(".test.ts")) return [];
  const rows = text.split("\n");
  return rows.flatMap((row, i) => {
    const name = /^export (?:async )?(?:function\*?|class|interface|type|const) (\w+)/.exec(row)?.[1];
    if (!name || /\/\*\*|\/\/|\*\/\s*$/.test(row)) return [];
    let above = i - 1;
    while (/^export (?:async )?function/.test(rows[above] ?? "")) above--;
    return /\*\/\s*$|^\s*\/\//.test(rows[above] ?? "") ? [] : [{ path, line: i + 1, text: `${name} has no doc comment`, warning: true as const }];
  });
}

/** Paths that a document names in backticks, links or its picture must exist. */
export function checkPaths(root: string, path: string, text: string): Finding[] {
  const folders = "src|bin|tools|docs|guests|bench|test|\\.ci";
  return text.split("\n").flatMap((row, i) => [...row.matchAll(new RegExp(`[\`(]((?:${folders})/[^\`)\\s,;]*)[\`)]`, "g"))]
    .map((m) => m[1]!.replace(/[#:].*$/, "")).filter((p) => !/[*{<]/.test(p) && !existsSync(join(root, p)))
    .map((p) => ({ path, line: i + 1, text: `${p} does not exist` })));
}

/** All rules over the whole tree. */
export function checkTree(root: string): Finding[] {
  const read = (p: string) => readFileSync(join(root, p), "utf8");
  const reasons = new Map(read("tools/check/big-files.txt").split("\n").filter((l) => l && !l.startsWith("#"))
    .map((l) => { const colon = l.indexOf(":"); return [l.slice(0, colon), l.slice(colon + 1).trim()] as const; }));
  const sources = [...filesIn(root, ["src", "tools", "test", "bench", "guests"], ".ts"), ...filesIn(root, ["src"], ".tsx")];
  const found = sources.flatMap((p) => {
    const text = read(p);
    return [...checkImports(p, text), ...checkSize(p, text, reasons), ...(p.startsWith("src/") ? checkDocs(p, text) : [])];
  });
  for (const [p, reason] of reasons) {
    if (!existsSync(join(root, p)) || !reason) found.push({ path: "tools/check/big-files.txt", line: 1, text: `"${p}" does not exist or has no reason` });
  }
  const documents = ["README.md", "ARCHITECTURE.md", ...filesIn(root, ["docs"], ".md")];
  return [...found, ...documents.flatMap((p) => (existsSync(join(root, p)) ? checkPaths(root, p, read(p)) : [{ path: p, line: 1, text: "is missing" }]))];
}
