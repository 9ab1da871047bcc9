/** Domains that go into files and out of them, and from one host to another. */
import { createReadStream } from "node:fs";
import { type FileHandle, open, readFile, rename, stat, unlink } from "node:fs/promises";
import { Socket } from "node:net";
import { dirname } from "node:path";
import type { Duplex } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { ApiClient, isLoopback } from "../../api/client.node.ts";
import type { Result } from "../../api/actions.ts";
import { ApiFault } from "../../api/fault.ts";
import type { CallContext, StreamOpener } from "../../api/serve.node.ts";
import type { TaskContext, Tasks } from "../../api/tasks.ts";
import { whyOf } from "../../storage/file.node.ts";
import { dumpCore } from "../../toolstack/dumpcore.ts";
import { diskFromLibxl, type LibxlConfig } from "../../toolstack/libxl-json.ts";
import type { Standing } from "../../migration/commit.ts";
import type { Domain } from "../../toolstack/domain.ts";
import { linkOver, readableOf } from "../../toolstack/link.node.ts";
import { type Link, MigrationInDoubt, type MigrateReport, receiveOrGiveBack, sendDomain, standingOf } from "../../toolstack/migrate.ts";
import { receiveRest, RELINK_MS, restOf } from "../../toolstack/rest.ts";
import { type Progress as Step, restoreDomain, saveDomain } from "../../toolstack/save.ts";
import { mustNameWithin } from "./bounds.ts";
import { remedyOf } from "./doubts.ts";
import { handOver } from "./drives.ts";
import { configOfText, mustBuild, type Resident, type Residents } from "./residents.ts";

/** Steps of a save or migration as a task tells them. */
const PHASES: Readonly<Record<Step["phase"], string>> = { suspend: "suspending the guest", memory: "memory", round: "memory while it runs", stop: "the last pages", devices: "devices", commit: "handing over", behind: "memory behind it" };
const tell = (c: TaskContext) => (s: Step): void => c.progress({ text: s.round === undefined ? PHASES[s.phase] : `${PHASES[s.phase]}, round ${s.round + 1}`, done: s.donePages, total: s.totalPages });
/** What goes with the stream: the domain as it is, or as it is to be where it goes on. @throws UserError where that cannot be */
function configJson(r: Resident, other: LibxlConfig | undefined, keeps: readonly ("uuid" | "name")[]): string {
  const { config } = r;
  return JSON.stringify(other ? { ...mustBuild(other), c_info: { ...other.c_info, ...Object.fromEntries(keeps.map((key) => [key, config.c_info[key]])) } } : config);
}

/** Have what a file's folder says of it stand when the host loses its power. */
async function syncFolderOf(path: string): Promise<void> {
  const folder = await open(dirname(path), "r");
  try { await folder.sync(); } finally { await folder.close(); }
}
/** A file that is there whole or not at all: its name is given when all is on the disk. @param named told when it has its name */
export async function fileSink(path: string, named: () => void = () => {}): Promise<WritableStream<Uint8Array>> {
  const part = `${path}.part-${crypto.randomUUID().slice(0, 8)}`, unwritten = (e: NodeJS.ErrnoException): ApiFault => new ApiFault(e.code === "ENOSPC" ? "failed" : "invalid", `${path} cannot be written: ${e.code === "ENOENT" ? "its folder does not exist" : whyOf(e)}`, { cause: e });
  const there = await stat(path).catch(() => null);
  if (there && !there.isFile()) throw new ApiFault("invalid", there.isDirectory() ? `${path} is a folder; name a file in it` : `${path} is a device, a pipe or a socket, which would be replaced; name a file`);
  const file: FileHandle = await open(part, "wx", 0o600).catch((e) => { throw unwritten(e); });
  const drop = async (): Promise<void> => { await file.close().catch(() => {}); await unlink(part).catch(() => {}); };
  return new WritableStream<Uint8Array>({
    write: async (bytes) => {
      try { for (let at = 0; at < bytes.length;) at += (await file.write(bytes, at)).bytesWritten; } catch (e) { await drop(); throw unwritten(e as Error); }       // nobody calls abort() of a sink that has failed
    },
    close: async () => {
      try {
        await file.sync();
        await file.close();
        await rename(part, path);
      } catch (e) { await drop(); throw unwritten(e as Error); }
      try { await syncFolderOf(path); } catch (e) { await unlink(path).catch(() => {}); throw unwritten(e as Error); }
      named();
    },
    abort: drop,
  });
}

/** xl save. Where it fails the domain runs on, and no file is left: another copy of what runs. Where it cannot run on, a file that is whole stays. */
export async function saveToFile(residents: Residents, ref: number | string, path: string, afterwards: "destroy" | "run" | "pause", other: LibxlConfig | undefined, c: TaskContext): Promise<Result<"domain.save">> {
  const r = residents.keeper(ref), { domain, name } = r, begun = performance.now();
  let isNamed = false;
  const out = await fileSink(path, () => { isNamed = true; });
  const { bytes } = await saveDomain(domain, out, { configJson: configJson(r, other, ["uuid"]), leaveRunning: afterwards === "run", leavePaused: afterwards === "pause", signal: c.signal, progress: tell(c) }).catch(async (e: unknown) => {
    if (isNamed && !domain.isGone && domain.suspension === null) await unlink(path).then(() => syncFolderOf(path)).catch((why: Error) => residents.house.messages.say(`${path} holds ${name}, which runs on, and is not to be restored: ${why.message}`));
    else if (isNamed) residents.house.messages.say(`${name} is whole in ${path}, and does not run on`);
    throw e;
  });
  if (afterwards === "destroy") await r.gone;        // its name and disks are free when we say that it is saved
  return { bytes, ms: Math.round(performance.now() - begun) };
}
/** xl dump-core. */
export async function dumpToFile(domain: Domain, path: string, c: { readonly signal?: AbortSignal; progress?(p: { text: string; done: number; total: number }): void }): Promise<{ bytes: number }> {
  return { bytes: await dumpCore(domain, await fileSink(path), { ...(c.signal ? { signal: c.signal } : {}), progress: (done, total) => c.progress?.({ text: "writing the core", done, total }) }) };
}
/** xl restore. */
export async function restoreFromFile(residents: Residents, path: string, isPaused: boolean, config: LibxlConfig | null, c: CallContext): Promise<Result<"domain.restore">> {
  if ((await stat(path).catch(() => null))?.isDirectory()) throw new ApiFault("invalid", `${path} cannot be read: it is a folder`);
  const file = createReadStream(path, { highWaterMark: 1 << 20 });
  await new Promise<void>((done, failed) => {
    file.once("open", () => done());
    file.once("error", (e: NodeJS.ErrnoException) => failed(new ApiFault("invalid", `${path} cannot be read: ${whyOf(e)}`)));
  });
  const input = readableOf(file);
  const domain = await residents.adopt((opened) => restoreDomain(residents.house.machine, input, { open: opened, paused: isPaused, signal: c.signal, progress: tell(c) }), (saved) => mustNameWithin(c.folders ?? null, config ?? saved));
  return { domid: domain.domid };
}

/** How long a connection may be silent until its other end is asked whether it is there: while a domain is handed over both wait for a word, and a host without power says none. */
const SILENCE_MS = 10_000;
function linkOf(connection: Duplex): Link {
  if (connection instanceof Socket) connection.setKeepAlive(true, SILENCE_MS);
  return linkOver(connection);
}
/** Begins a task that waits for its connection. */
function overConnection(tasks: Tasks, action: string, run: (connection: Duplex, c: TaskContext) => Promise<unknown>): Awaited<ReturnType<StreamOpener>> {
  const opened = Promise.withResolvers<Duplex>();
  const { id } = tasks.start(action, async (c) => {
    const connection = await opened.promise;
    try { return await run(connection, c); } finally { connection.end(); }
  });
  return { task: id, take: (connection) => { connection.on("error", () => {}); opened.resolve(connection); } };
}
/** What a sender may be told. */
type SendParams = { readonly live?: boolean; readonly postcopy?: boolean; readonly maxBytesPerSecond?: number; /** in place of its own */ readonly config?: LibxlConfig };
async function send(residents: Residents, r: Resident & { domain: Domain }, connection: Duplex, params: SendParams, c: TaskContext, relink?: (migration: string) => Promise<Link | null>): Promise<MigrateReport> {
  const { live, postcopy, maxBytesPerSecond, config } = params;
  const report = await sendDomain(r.domain, linkOf(connection), {
    configJson: configJson(r, config, ["uuid", "name"]), live: live ?? true, journal: residents.house.journal, signal: c.signal, progress: tell(c), handOver: handOver(r.disks, (r.config.disks ?? []).map(diskFromLibxl)),
    ...(postcopy === undefined ? {} : { postcopy }), ...(relink ? { relink } : {}), ...(maxBytesPerSecond === undefined ? {} : { maxBytesPerSecond }),
  }).catch((e: unknown) => {
    if (e instanceof MigrationInDoubt) residents.doubts.hold(e, r.gone);
    throw e;
  });
  await r.gone;
  residents.house.messages.say(`${r.name} went to another host: ${report.bytes} bytes in ${Math.round(report.totalMs)} ms, still for ${Math.round(report.downtimeMs)} ms${report.latePages ? `, ${report.latePages} pages behind it in ${Math.round(report.lateMs)} ms` : ""}`);
  return report;
}
/** Give a domain away: the connection leads to a peer's migrate.receive, or to xl migrate-receive. */
export const sendStream = (residents: Residents, tasks: Tasks): StreamOpener => async (params) => {
  const { domain, config, ...rest } = params as { domain: number | string; config?: string } & Omit<SendParams, "config">, r = residents.keeper(domain), other = config === undefined ? {} : { config: configOfText(config, "The configuration in its place") };
  return overConnection(tasks, "migrate.send", (connection, c) => send(residents, r, connection, { ...rest, ...other }, c).catch((e: unknown) => { throw e instanceof MigrationInDoubt ? remedyOf(e) : e; }));
};

/** What this host says of a migration: its process, or, where that does not know it, what the processes before it have noted. */
export function standingIn(residents: Residents, migration: string): Standing {
  const { machine, journal } = residents.house, known = standingOf(machine, migration);
  return known === "unknown" ? journal.before(migration) ?? known : known;
}
/** A person says which end has a domain that stands still here. */
export async function settleMigration(residents: Residents, migration: string, standing: "running" | "dropped"): Promise<Result<"migration.settle">> {
  const settled = await residents.doubts.settle(migration, standing);
  residents.house.messages.say(`Migration ${migration} is settled by hand: ${settled ? `${settled.name} runs on here` : "the other host has the domain"}`);
  return { isHere: Boolean(settled) };
}
/** What domain.migrate takes. */
export type MigrateParams = SendParams & { readonly domain: number | string; readonly to: string; readonly token?: string; readonly isPaused?: boolean; readonly tls?: { readonly ca?: string; readonly cert?: string; readonly key?: string } };
/** How long the other end is asked what became of a domain that both ends hold still. */
const DOUBT_MS = 600_000, ASK_MS = 1000;
/** Move a domain to the host at an address. When the link breaks in the moment of handing over, the other end is asked until it says who has it. */
export async function migrateTo(residents: Residents, p: MigrateParams, c: TaskContext): Promise<unknown> {
  const r = residents.keeper(p.domain), [, v6, name, port] = /^(?:\[([\da-f:.]+)\]|([\w.-]+)):(\d{1,5})$/i.exec(p.to) ?? [], host = v6 ?? name;
  if (host === undefined || Number(port) > 65535) throw new ApiFault("invalid", `"${p.to}" is not of the form HOST:PORT`);
  const pem = async (path: string | undefined): Promise<string | undefined> => (path === undefined ? undefined : readFile(path, "utf8").catch((e) => { throw new ApiFault("invalid", `${path} cannot be read (${(e as NodeJS.ErrnoException).code})`); }));
  const [ca, cert, key] = await Promise.all([pem(p.tls?.ca), pem(p.tls?.cert), pem(p.tls?.key)]);
  const isTls = p.tls !== undefined || !isLoopback(host);        // neither a token nor a guest's memory goes over a network as it is
  const peer = new ApiClient({ host, port: Number(port), ...(p.token === undefined ? {} : { token: p.token }), ...(isTls ? { tls: { ...(ca === undefined ? {} : { ca }), ...(cert === undefined ? {} : { cert }), ...(key === undefined ? {} : { key }) } } : {}) });
  c.progress({ text: `connecting to ${p.to}` });
  const connection = await peer.stream("migrate.receive", p.isPaused ? { isPaused: true } : {});
  connection.on("error", () => {});
  /** A new connection for the memory that follows the domain, as long as the other end is asked and may answer. */
  const relink = async (migration: string): Promise<Link | null> => {
    residents.house.messages.say(`${r.name}: the connection broke while its memory followed it; ${p.to} is called again`);
    for (const begun = performance.now(); performance.now() - begun < RELINK_MS && !r.domain.isGone; await sleep(ASK_MS)) {
      try {
        const again = await peer.stream("migrate.rest", { migration });
        again.on("error", () => {});
        links.push(again);
        return linkOf(again);
      } catch (e) { if (e instanceof ApiFault && e.code === "notfound") return null; }
    }
    return null;
  };
  const links = [connection];
  try {
    return await send(residents, r, connection, p, c, relink);
  } catch (e) {
    if (!(e instanceof MigrationInDoubt)) throw e;
    residents.house.messages.say(`${e.message}; ${p.to} is asked`);
    const { doubts } = residents, over = doubts.over(e.migration);
    for (const begun = performance.now(); performance.now() - begun < DOUBT_MS;) {
      const said = await peer.call("migration.standing", { migration: e.migration }).catch(() => null);
      if (said) await doubts.settle(e.migration, said.standing as Standing).catch(() => {});        // `over` throws it; or a person was faster
      const settled = await Promise.race([over, sleep(ASK_MS).then(() => undefined)]);
      if (settled === null) { await r.gone; return { migration: e.migration }; }
      if (settled) throw new ApiFault("failed", `${r.name} is not moved and runs on here: the link broke, and ${p.to} has it not`);
    }
    throw remedyOf(e);
  } finally {
    for (const link of links) link.destroy();
  }
}
/** Take the rest of a domain's memory over another connection than the one that broke. */
export const restStream = (residents: Residents, tasks: Tasks): StreamOpener => async (params) => {
  const { migration } = params as { migration: string }, { machine } = residents.house;
  if (!restOf(machine, migration)) throw new ApiFault("notfound", `No domain here waits for the rest of migration "${migration}"`);
  return overConnection(tasks, "migrate.rest", (connection) => receiveRest(machine, migration, linkOf(connection)));
};
/** Take a domain in. */
export const receiveStream = (residents: Residents, tasks: Tasks): StreamOpener => async (params, folders) => {
  const { isPaused, name } = params as { isPaused?: boolean; name?: string };
  return overConnection(tasks, "migrate.receive", async (connection, c) => {
    const domain = await residents.adopt((opened, prepare) => receiveOrGiveBack(residents.house.machine, linkOf(connection), { open: opened, prepare, relinkMs: RELINK_MS, journal: residents.house.journal, signal: c.signal, progress: tell(c) }), async (config) => ({ ...await mustNameWithin(folders, config), ...(name === undefined ? {} : { c_info: { ...config.c_info, name } }) }));
    if (isPaused) await domain.pause();
    await domain.rest?.whole();
    return { domid: domain.domid, name: domain.name };
  });
};
