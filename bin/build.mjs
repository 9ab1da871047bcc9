/**
 * Makes few files of the programs of src/bin and all that they read, for this machine: reading two hundred sources takes Node 0.2 s for each process that runs guests, and half of the time of a word
 * of xl. What comes out lies in var/built under a name for these very sources and this place; launch.sh takes it, or the sources where there is none. Plain JavaScript, as it is part of setting up.
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { rolldown } from "rolldown";
import { root } from "./fit-node.mjs";

const PROGRAMS = ["domus", "domusd", "machined", "xenstore", "xl"];

/** Daemons may still run what was built before. */
const KEPT_MS = 30 * 86_400_000;

/** Build, unless it is there. */
async function build() {
  const to = execFileSync("sh", [join(root, "bin/launch.sh"), "--built"], { encoding: "utf8" }).trim(), folder = dirname(to);
  if (to === "" || existsSync(to)) return;
  const next = join(folder, `.${process.pid}`);
  const bundle = await rolldown({
    input: PROGRAMS.map((name) => join(root, `src/bin/${name}.node.ts`)), platform: "node", cwd: root, logLevel: "warn",
    // a program finds its files from where its source is
    plugins: [{ name: "places", transform: (code, id) => (code.includes("import.meta.url") ? { code: code.replaceAll("import.meta.url", JSON.stringify(pathToFileURL(id).href)) } : null) }],
  });
  await bundle.write({ dir: next, format: "esm" });
  for (const name of readdirSync(folder)) if (Date.now() - statSync(join(folder, name)).mtimeMs > KEPT_MS) rmSync(join(folder, name), { recursive: true, force: true });
  try { renameSync(next, to); } catch (e) { rmSync(next, { recursive: true }); if (!existsSync(to)) throw e; }        // somebody was faster
}
mkdirSync(join(root, "var/built"), { recursive: true });
try { await build(); } catch (e) { process.stderr.write(`domus: the programs are run from their sources, which takes longer: ${e.message}\n`); }
