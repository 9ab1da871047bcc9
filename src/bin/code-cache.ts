/** The persistent code cache of `--code-cache DIR`: one file for each version of the engine, replaced whole. */
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { UserError } from "../base/errors.ts";
import type { CodeCacheConfig } from "../toolstack/machine.ts";
import { makeFolders } from "./paths.ts";

/** What translates is what a translation depends on: its sources, by their digest. */
function engineName(): string {
  const hash = createHash("sha256");
  for (const room of ["x86", "wasm"]) {
    const folder = fileURLToPath(new URL(`../${room}`, import.meta.url));
    for (const name of readdirSync(folder).filter((n) => n.endsWith(".ts") && !n.endsWith(".test.ts")).sort()) hash.update(name).update(readFileSync(join(folder, name)));
  }
  return hash.digest("hex").slice(0, 16);
}

/** Open (and make) the folder. @throws UserError when it cannot be used */
export function openCodeCache(dir: string): CodeCacheConfig {
  const engine = engineName(), file = join(dir, `regions-${engine}.bin`);
  try {
    makeFolders(dir);
    return {
      engine, name: file, bytes: existsSync(file) ? readFileSync(file) : null,
      save: (bytes) => {
        const next = `${file}.${process.pid}`;
        try { writeFileSync(next, bytes); renameSync(next, file); } catch (e) { rmSync(next, { force: true }); throw new UserError(`The code cache cannot be written to ${file}: ${(e as Error).message}`); }
      },
    };
  } catch (e) {
    throw new UserError(`--code-cache: ${dir} cannot be used: ${(e as Error).message}`);
  }
}
