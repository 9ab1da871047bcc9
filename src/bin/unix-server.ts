/** A server of the API at a Unix socket that only this user can open. */
import { chmodSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { apiListener, type Served } from "../api/serve.node.ts";
import { UserError } from "../base/errors.ts";

/** Serve; the path is the caller's own, and a socket that is left over there is replaced. @throws UserError where it cannot be had */
export async function serveUnix(path: string, served: Served): Promise<Server> {
  const { request, upgrade } = apiListener(served), server = createServer({ requestTimeout: 0, headersTimeout: 0, keepAliveTimeout: 1000 }, request);
  server.on("upgrade", upgrade);
  rmSync(path, { force: true });
  await new Promise<void>((done, failed) => {
    server.once("error", (e: NodeJS.ErrnoException) => failed(new UserError(`${path} cannot be served: ${e.code ?? e.message}`)));
    const mask = process.umask(0o177);       // the socket is made within listen(), and never stands open to others
    try { server.listen(path, done); } finally { process.umask(mask); }
  });
  chmodSync(path, 0o600);
  return server;
}
