/** The API at an address: who may, what it says of itself, events, consoles by WebSocket, metrics, and certificates. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { copyFileSync, mkdirSync, readFileSync, symlinkSync } from "node:fs";
import type { IncomingMessage } from "node:http";
import { request as httpsRequest } from "node:https";
import { connect } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";
import WebSocket from "ws";
import { ACTIONS, type Params, STREAMS } from "../src/api/actions.ts";
import { ApiClient } from "../src/api/client.node.ts";
import type { ApiFault } from "../src/api/fault.ts";
import { parseHttp } from "../src/bin/daemon/http.ts";
import { TestHost } from "./host.ts";

let host: TestHost, port: number, tokens: Record<"read" | "operate" | "admin", string>;
const at = (token?: string): ApiClient => new ApiClient({ host: "127.0.0.1", port, ...(token === undefined ? {} : { token }) });
const code = (c: string) => (e: ApiFault): boolean => e.code === c;
before(async () => {
  host = await TestHost.start("--http=127.0.0.1:0");
  port = Number(new URL((await host.client.call("host.status", {})).http!).port);
  const token = async (role: "read" | "operate" | "admin"): Promise<string> => (await host.client.call("token.create", { name: role, role })).token;
  tokens = { read: await token("read"), operate: await token("operate"), admin: await token("admin") };
});
after(async () => { await host[Symbol.asyncDispose](); });

test("without a token nothing is told but what there is; a token opens its role and those below", async () => {
  await assert.rejects(at().call("domain.list", {}), code("unauthorized"));
  await assert.rejects(at("x".repeat(43)).call("domain.list", {}), code("unauthorized"));
  assert.equal((await at(tokens.read).call("domain.list", {})).length, 1);
  await assert.rejects(at(tokens.read).call("machine.dmesg", {}), code("forbidden"));
  assert.match((await at(tokens.operate).call("machine.dmesg", {})).text, /Domus machine/);
  await assert.rejects(at(tokens.operate).call("token.list", {}), code("forbidden"));
  assert.deepEqual((await at(tokens.admin).call("token.list", {})).map((t) => t.name), ["admin", "operate", "read"]);
  await assert.rejects(host.client.call("token.create", { name: "read", role: "admin" }), code("exists"));
  assert.equal(readFileSync(host.paths.database).includes(tokens.read), false);
  const { token } = await host.client.call("token.create", { name: "short", role: "read" });
  await host.client.call("token.remove", { name: "short" });
  await assert.rejects(at(token).call("domain.list", {}), code("unauthorized"));
});

test("what does not fit is refused by name, and nothing of it is done", async () => {
  const post = async (path: string, body: string): Promise<{ status: number; json: { error?: { code: string; message: string } } }> => {
    const r = await fetch(`http://127.0.0.1:${port}${path}`, { method: "POST", body, headers: { authorization: `Bearer ${tokens.admin}` } });
    return { status: r.status, json: await r.json() as never };
  };
  assert.deepEqual(await post("/v1/domain.list", "{"), { status: 400, json: { error: { code: "invalid", message: "The request's body is not JSON" } } });
  assert.match((await post("/v1/domain.memSet", '{"domain":1,"kib":-1}')).json.error!.message, /^domain\.memSet: kib: /);
  assert.match((await post("/v1/domain.rename", '{"domain":1,"name":"a\\u0000b"}')).json.error!.message, /name: .*control character/);
  assert.equal((await post("/v1/domain.explode", "{}")).status, 404);
  assert.equal((await post("/v1/block.attach", JSON.stringify({ domain: 1, spec: Array(99).fill("x") }))).status, 400);
  assert.equal((await post("/v1/domain.destroy", '{"domain":77}')).status, 404);
  assert.equal((await post("/v1/domain.list", " ".repeat((4 << 20) + 1))).status, 413);
  assert.equal((await fetch(`http://127.0.0.1:${port}/v1/domain.list`)).status, 404);
});

test("the OpenAPI document has every action, stream and role", async () => {
  const doc = JSON.parse(await at().page("/openapi.json")) as { openapi: string; paths: Record<string, Record<string, { operationId: string; "x-role": string }>> };
  assert.equal(doc.openapi, "3.1.0");
  assert.deepEqual(Object.keys(doc.paths).sort(), [...Object.keys(ACTIONS).map((n) => `/v1/${n}`), "/v1/events", ...Object.keys(STREAMS).map((n) => `/v1/streams/${n}`)].sort());
  for (const [name, a] of Object.entries(ACTIONS)) assert.equal(doc.paths[`/v1/${name}`]!["post"]!["x-role"], a.role, name);
});

test("events and consoles come by WebSocket, metrics as Prometheus reads them", async () => {
  const events = new WebSocket(`ws://127.0.0.1:${port}/v1/events`, ["domus", `token.${tokens.read}`]), seen: { kind: string; name?: string }[] = [];
  events.on("message", (m) => seen.push(JSON.parse(String(m)) as never));
  await once(events, "open");
  assert.equal(events.protocol, "domus");
  await host.done("create", "-q", host.cfg("watched"));
  await host.until("its making is told", async () => seen.some((e) => e.kind === "domain.created" && e.name === "watched"));
  const console1 = new WebSocket(`ws://127.0.0.1:${port}/v1/streams/console?domain=watched`, { headers: { authorization: `Bearer ${tokens.operate}` } });
  await once(console1, "open");
  for (const [path, token, status] of [["console?domain=watched", tokens.read, "403"], ["console?domain=watched", "", "401"], ["nothing", tokens.admin, "404"]]) {
    const refused = new WebSocket(`ws://127.0.0.1:${port}/v1/streams/${path}`, { headers: token ? { authorization: `Bearer ${token}` } : {} });
    const [e] = await once(refused, "error");
    assert.match((e as Error).message, new RegExp(status!));
  }
  const none = new WebSocket(`ws://127.0.0.1:${port}/v1/streams/console?domain=nobody`, { headers: { authorization: `Bearer ${tokens.operate}` } }), [closeCode, reason] = await once(none, "close");
  assert.deepEqual([closeCode, JSON.parse(String(reason)).code], [4000, "notfound"]);
  const metrics = await at(tokens.read).page("/metrics");
  assert.match(metrics, /^domus_domain_memory_bytes\{domain="watched",uuid="[0-9a-f-]{36}"\} \d+$/m);
  assert.match(metrics, /^domus_api_requests_total\{action="POST \/v1\/domain\.create",status="200"\} 1$/m);
  for (const line of metrics.trimEnd().split("\n")) assert.match(line, /^(?:# (?:HELP|TYPE) domus_\w+ .+|domus_\w+(?:\{(?:\w+="[^"]*",?)+\})? -?[\d.e+-]+)$/);
  await host.done("destroy", "watched");
  await once(console1, "close");
  events.terminate();
});

test("what names no address is refused, costs no connection, and is counted under no name of its own", async () => {
  const raw = async (head: string): Promise<string> => {
    const socket = connect(port, "127.0.0.1");
    let text = "";
    socket.on("data", (d) => { text += String(d); });
    socket.write(`${head}\r\nHost: x\r\n`);
    if (!head.startsWith("POST")) socket.write("Connection: Upgrade\r\nUpgrade: websocket\r\n");
    socket.write("Connection: close\r\n\r\n");
    await once(socket, "close");
    return text;
  };
  assert.match(await raw("GET // HTTP/1.1"), /^HTTP\/1\.1 400 /);
  for (const path of ["//", "/v1/domain.one", "/v1/domain.two"]) assert.match(await raw(`POST ${path} HTTP/1.1`), /^HTTP\/1\.1 40[04] /);
  const metrics = await at(tokens.read).page("/metrics");
  assert.match(metrics, /action="other",status="404"/);
  assert.doesNotMatch(metrics, /domain\.one|POST \/\//);
  await assert.rejects(host.client.call("task.watch", { task: "none" }), code("notfound"));
});

test("what a WebSocket says at once reaches its stream", async () => {
  const early = connect(port, "127.0.0.1"), said = Buffer.from("no migration stream, and longer than its header is");
  const head = `GET /v1/streams/migrate.receive HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${Buffer.alloc(16).toString("base64")}\r\nAuthorization: Bearer ${tokens.operate}\r\n\r\n`;
  early.resume().write(Buffer.concat([Buffer.from(head), Buffer.from([0x82, 0x80 | said.length, 0, 0, 0, 0]), said]));        // in one piece with the request; a mask of zeros
  const taskNow = async () => (await host.client.call("task.list", {})).findLast((t) => t.action === "migrate.receive");
  await host.until("it was read", async () => (await taskNow())?.state === "failed");
  early.destroy();
});

test("off the loopback there is no serving without TLS; with a CA a client's certificate is its name and role", async () => {
  const options = (o: Record<string, string>) => parseHttp(new Map(Object.entries(o)));
  assert.throws(() => options({ http: "0.0.0.0:7443" }), /wants TLS; give "--tls-cert"/);
  assert.throws(() => options({ http: "127.example.org:7443" }), /wants TLS; give "--tls-cert"/);
  assert.throws(() => options({ http: "127.0.0.1" }), /wants ADDR:PORT/);
  assert.throws(() => options({ http: "127.0.0.1:1", "tls-cert": "x" }), /come together/);
  assert.equal(options({ http: "none" }), null);
  host.certificates({ server: "/CN=localhost", client: "/OU=operate/CN=peer" });
  const read = (name: string): string => readFileSync(join(host.folder, name), "utf8"), ca = read("ca.pem");
  host.daemon("stop", "--keep-machine");
  const started = host.daemon("start", ...TestHost.tls(host, "server"));
  assert.equal(started.code, 0, started.err);
  const url = new URL((await host.client.call("host.status", {})).http!), tls = (own: object) => new ApiClient({ host: "localhost", port: Number(url.port), tls: { ca, ...own } });
  assert.equal(url.protocol, "https:");
  const peer = tls({ cert: read("client.pem"), key: read("client.key") });
  assert.equal((await peer.call("domain.list", {})).length, 1);
  await assert.rejects(peer.call("token.list", {}), code("forbidden"));
  const asked = async (origin: string): Promise<number> => {
    const req = httpsRequest({ host: "localhost", port: url.port, method: "POST", path: "/v1/domain.list", ca, cert: read("client.pem"), key: read("client.key"), agent: false, headers: { origin } }).end(), [res] = await once(req, "response") as [IncomingMessage];
    res.resume();
    return res.statusCode!;
  };
  assert.deepEqual([await asked(`https://localhost:${url.port}`), await asked("https://elsewhere.example"), await asked("null")], [200, 401, 401]);        // a browser shows its certificate for any page
  await assert.rejects(tls({}).call("domain.list", {}), code("unauthorized"));
  await assert.rejects(new ApiClient({ host: "localhost", port: Number(url.port), tls: {} }).call("domain.list", {}), code("unreachable"));
});

test("over HTTP the role operate names files in the folders that the host gives, wherever links lead, and none of the daemon's own", async () => {
  await using host = await TestHost.start("--http=127.0.0.1:0");
  const { token } = await host.client.call("token.create", { name: "operate", role: "operate" });
  const operated = async (): Promise<ApiClient> => new ApiClient({ host: "127.0.0.1", port: Number(new URL((await host.client.call("host.status", {})).http!).port), token });
  const operate = await operated(), folder = join(host.folder, "given"), config = async (name: string, kernel: string) => {
    const made = JSON.parse(await host.done("create", "-n", host.cfg(name))) as Params<"domain.create">["config"];
    return { ...made, b_info: { ...made.b_info, kernel } };
  };
  mkdirSync(folder);
  copyFileSync(join(host.folder, "sleeps"), join(folder, "kernel"));
  symlinkSync(host.paths.state, join(folder, "link"));
  const own = [host.paths.database, join(folder, "link/host.sqlite"), `${folder}/../state/host.sqlite`, join(host.folder, "sleeps"), join(folder, "none")];
  await host.done("create", "-q", host.cfg("first"));
  const all = async (path: string): Promise<void> => {
    for (const [name, params] of Object.entries({
      "domain.create": { config: await config("x", path) }, "domain.configUpdate": { domain: "first", config: await config("first", path) }, "domain.restore": { path }, "cdrom.change": { domain: "first", vdev: "hdc", path },
      "domain.save": { domain: "first", path: `${path}/../x` }, "domain.dumpCore": { domain: "first", path: `${path}/../x` },
      "block.attach": { domain: "first", spec: [`${path},raw,xvdb,w`] },
    })) await assert.rejects(operate.call(name as "domain.restore", params as { path: string }), (e: ApiFault) => e.code === "forbidden" && /domusd --folders/.test(e.message), `${name} ${path}`);
  };
  for (const path of [...own, join(folder, "kernel")]) await all(path);
  for (const path of [host.folder, host.paths.state, join(folder, "link")]) await assert.rejects(operate.call("domain.create", { config: { ...await config("x", join(folder, "kernel")), p9s: [{ tag: "t", path, security_model: "none" }] } }), code("forbidden"));
  for (const spec of ["vdev=xvdb,format=raw,target=nbds://../../etc/passwd", `vdev=xvdb,format=raw,target=nbd+unix:///?socket=${host.paths.socket}`]) await assert.rejects(operate.call("block.attach", { domain: "first", spec: [spec] }), code("forbidden"));
  await assert.rejects(operate.call("domain.migrate", { domain: "first", to: "127.0.0.1:1", tls: { key: host.paths.database } }), code("forbidden"));
  for (const bad of [host.folder, host.paths.state, join(folder, "link")]) {
    host.daemon("stop", "--keep-machine");
    assert.match(host.daemon("start", `--folders=${bad}`).err, /--folders: .* are one in the other/);
  }
  assert.equal(host.daemon("start", `--folders=${folder}`).code, 0);
  const given = await operated();
  const { domid } = await given.call("domain.create", { config: await config("second", join(folder, "kernel")) });
  for (const path of own) await assert.rejects(given.call("block.attach", { domain: domid, spec: [`${path},raw,xvdb,w`] }), code("forbidden"));
  for (const path of own) await assert.rejects(given.call("domain.save", { domain: domid, path: join(folder, "saved"), config: await config("second", path) }), code("forbidden"));
  await given.call("domain.dumpCore", { domain: domid, path: join(folder, "core") });
});
