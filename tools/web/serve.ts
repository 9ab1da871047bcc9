/** Serving the built page on loopback, with the headers that shared memory asks for. */
import { createReadStream, statSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { extname, join, normalize } from "node:path";
import { pipeline } from "node:stream/promises";
import { imageFile, PAGE, startImages } from "./build.ts";

const TYPES: Readonly<Record<string, string>> = { ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".json": "application/json", ".svg": "image/svg+xml", ".wasm": "application/wasm" };
/** What makes a page cross-origin isolated; HTML standard, "cross-origin isolation mode". */
export const ISOLATION = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp", "Cross-Origin-Resource-Policy": "same-origin" } as const;

/** A page that is served. */
export type PageServer = AsyncDisposable & { readonly url: string; close(): Promise<void> };

/**
 * Serve on 127.0.0.1.
 * @param options.port 0: any that is free @param options.isolated false: without the headers, as a host that cannot set them @param options.folder default: where `buildPage` builds
 */
export async function servePage(options: { port?: number; isolated?: boolean; folder?: string } = {}): Promise<PageServer> {
  const folder = options.folder ?? PAGE, headers = options.isolated === false ? {} : ISOLATION;
  const fileOf = (path: string): string | null => {
    const image = /^\/images\/([\w.-]+)$/.exec(path)?.[1], inside = normalize(join(folder, path.endsWith("/") ? `${path}index.html` : path));
    for (const file of [inside.startsWith(join(folder, "/")) ? inside : null, image === undefined ? null : imageFile(image)]) {
      if (file !== null && statSync(file, { throwIfNoEntry: false })?.isFile()) return file;
    }
    return null;
  };
  const server: Server = createServer((request, response) => {
    let path: string;
    try { path = decodeURIComponent(new URL(request.url ?? "/", "http://localhost").pathname); } catch { response.writeHead(400).end(); return; }
    if (request.method !== "GET" && request.method !== "HEAD") { response.writeHead(405, { Allow: "GET, HEAD" }).end(); return; }
    const file = path.includes("\0") ? null : fileOf(path);
    if (file === null && path === "/images/list.json") { response.writeHead(200, { "Content-Type": TYPES[".json"], ...headers }).end(JSON.stringify(startImages())); return; }
    if (file === null) { response.writeHead(404, { "Content-Type": "text/plain", ...headers }).end("not found\n"); return; }
    response.writeHead(200, { "Content-Type": TYPES[extname(file)] ?? "application/octet-stream", "Content-Length": statSync(file).size, "Cache-Control": path.startsWith("/assets/") ? "max-age=31536000, immutable" : "no-cache", ...headers });
    if (request.method === "HEAD") { response.end(); return; }
    void pipeline(createReadStream(file), response).catch(() => {});      // who went away wants no more
  });
  await new Promise<void>((resolve, reject) => { server.once("error", reject).listen(options.port ?? 0, "127.0.0.1", () => resolve()); });
  const { port } = server.address() as { port: number };
  const close = (): Promise<void> => new Promise((done) => { server.close(() => done()); server.closeAllConnections(); });
  return { url: `http://127.0.0.1:${port}/`, close, [Symbol.asyncDispose]: close };
}
