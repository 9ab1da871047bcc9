/**
 * Makes few files of the programs of src/bin and all that they read, for this machine: reading two hundred sources takes Node 0.2 s for each process that runs guests, and half of the time of a word
 * of xl. Each program's are its own: what one file takes from another it takes by a getter, which V8 is slow to see through. load.cjs stands for each program. What comes out lies in var/built under a name for these very sources and this place; launch.sh takes it, or the sources where there is none. Plain JavaScript, as it is part of setting up.
 */
import { execFileSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { LATER_FLAGS, root } from "./fit-node.mjs";

const PROGRAMS = ["bin/domus", "bin/domusd", "bin/machined", "bin/xenstore", "bin/xl", "toolstack/pcpu-worker"];

/** Where a source names a thread's program. */
const THREAD = /new URL\("\.\/([\w-]+\.node)\.ts", import\.meta\.url\)/g;
/** Daemons may still run what was built before. */
const KEPT_MS = 30 * 86_400_000;

/** Build, unless it is there. */
async function build() {
  const to = execFileSync("sh", [join(root, "bin/launch.sh"), "--built"], { encoding: "utf8" }).trim(), folder = dirname(to);
  if (to === "" || existsSync(to)) return;
  const { rolldown } = await import("rolldown"), next = join(folder, `.${process.pid}`);
  /** for load.cjs: V8's flags; by name, which of Node's modules each program uses, and what it loads by a word */
  const about = { flags: LATER_FLAGS, needs: {} };
  mkdirSync(next, { recursive: true });
  try {
    for (const path of PROGRAMS) {
      const bundle = await rolldown({
        input: join(root, `src/${path}.node.ts`), platform: "node", cwd: root, logLevel: "warn",
        // a program finds its files from where its source is, and its threads beside it
        plugins: [{ name: "places", transform: (code, id) => (code.includes("import.meta.url") ? { code: code.replaceAll(THREAD, 'new URL("../$1.js", process.getBuiltinModule("node:url").pathToFileURL(__filename))').replaceAll("import.meta.url", JSON.stringify(pathToFileURL(id).href)) } : null) }],
      });
      const { output } = await bundle.write({ dir: join(next, "code"), format: "cjs", entryFileNames: "[name].js", chunkFileNames: `${basename(path)}-[name]-[hash].js` });
      for (const { name, imports } of output) about.needs[name] = imports?.filter((of) => of.startsWith("node:"));
      copyFileSync(join(root, "bin/load.cjs"), join(next, `${basename(path)}.node.js`));
    }
    writeFileSync(join(next, "about.json"), JSON.stringify(about));
    writeFileSync(join(next, "package.json"), '{ "type": "commonjs" }\n');
  } catch (e) { rmSync(next, { recursive: true, force: true }); throw e; }
  for (const name of readdirSync(folder)) if (Date.now() - (statSync(join(folder, name), { throwIfNoEntry: false })?.mtimeMs ?? 0) > KEPT_MS) rmSync(join(folder, name), { recursive: true, force: true });
  try { renameSync(next, to); } catch (e) { rmSync(next, { recursive: true }); if (!existsSync(to)) throw e; }        // somebody was faster
}
try { await build(); } catch (e) { process.stderr.write(`domus: the programs are run from their sources, which takes longer: ${e.message}\n`); }
