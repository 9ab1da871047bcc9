/** `npm run check`: types, lint, and the rules of the house. Prints what is broken; exit 1 if anything is. */
import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { checkTree } from "./rules.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));

const run = (name: string, script: string, args: string[]): Promise<boolean> => new Promise((resolve) => {
  const begun = performance.now();
  const child = spawn(process.execPath, [`${root}node_modules/${script}`, ...args], { cwd: root, stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  child.stdout.on("data", (b) => { said += b; });
  child.stderr.on("data", (b) => { said += b; });
  child.on("close", (code) => {
    if (code !== 0) console.log(said.trimEnd());
    console.log(`${code === 0 ? "ok  " : "FAIL"} ${name} (${((performance.now() - begun) / 1000).toFixed(1)} s)`);
    resolve(code === 0);
  });
});

const checks = [
  run("types", "typescript/bin/tsc", ["-p", ".", "--pretty", "false"]),
  run("lint", "@biomejs/biome/bin/biome", ["lint", "--diagnostic-level=error", "--max-diagnostics=50", "--colors=off"]),
];
const findings = checkTree(root), errors = findings.filter((f) => !f.warning), undocumented = findings.length - errors.length;
for (const f of errors) console.log(`${f.path}:${f.line}: ${f.text}`);
console.log(`${errors.length === 0 ? "ok  " : "FAIL"} rules: rooms, web standards, sizes, paths in documents`);
if (undocumented) console.log(`note: ${undocumented} exported names have no doc comment${process.argv.includes("--docs") ? "" : " (npm run check -- --docs lists them)"}`);
if (process.argv.includes("--docs")) for (const f of findings.filter((x) => x.warning)) console.log(`${f.path}:${f.line}: ${f.text}`);
process.exit((await Promise.all(checks)).every(Boolean) && errors.length === 0 ? 0 : 1);
