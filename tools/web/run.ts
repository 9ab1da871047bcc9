/**
 * npm run web -- [--port N] [--export DIR] [--no-build]
 *
 * Builds the page and serves it on 127.0.0.1 with the headers that shared memory needs; prints the address. With --export it writes a folder that any host of
 * static files can serve, kernel and initramfs with it, and ends. --no-build serves what was built before.
 */
import { existsSync, mkdirSync, readdirSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { UserError } from "../../src/base/errors.ts";
import { prepareStart } from "../../src/bin/start.ts";
import { runTool } from "../tool.ts";
import { buildPage, exportImages, PAGE, startImages } from "./build.ts";
import { servePage } from "./serve.ts";

/** `domus start`'s files, fetched where they can be; the page works without them on files its user picks. */
async function fetchImages(): Promise<void> {
  if (startImages().length > 0) return;
  try { await prepareStart("cloud", { update: false, quiet: false }); } catch (e) {
    if (!(e instanceof UserError)) throw e;
    console.error(`${e.message}\nThe page comes without images; pick a kernel and an initramfs in it.`);
  }
}

await runTool(import.meta.filename, async () => {
  const { values } = parseArgs({ options: { port: { type: "string" }, export: { type: "string" }, "no-build": { type: "boolean" } } });
  const port = Number(values.port ?? 8080);
  if (!Number.isInteger(port) || port < 0 || port > 65535) throw new UserError(`Option "--port" is a number from 0 to 65535, not "${values.port}"`);
  await fetchImages();
  if (values.export !== undefined) {
    const folder = resolve(values.export);
    if (existsSync(folder) && readdirSync(folder).length > 0 && !existsSync(join(folder, "sw.js"))) throw new UserError(`${folder} holds other things; give a new folder, or one that was exported before`);
    try { mkdirSync(folder, { recursive: true }); } catch (e) { throw new UserError(`${folder} cannot be made: ${(e as Error).message}`); }
    await buildPage(folder);
    exportImages(folder);
    console.log(`${folder} can be served by any host of static files (over https, or on localhost)`);
    return 0;
  }
  if (!values["no-build"] || !existsSync(join(PAGE, "index.html"))) await buildPage();
  const server = await servePage({ port }).catch((e: NodeJS.ErrnoException) => {
    throw e.code === "EADDRINUSE" ? new UserError(`Port ${port} is taken; give another with --port`) : e;
  });
  console.log(`${server.url}  (^C ends it)`);
  await new Promise<void>((end) => { process.once("SIGINT", () => end()); process.once("SIGTERM", () => end()); });
  await server.close();
  return 0;
});
