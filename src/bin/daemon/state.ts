/**
 * What a host knows beyond its daemon's life, in SQLite: machines, configurations of domains, tokens. Whoever has it open is the host's daemon: the file stays locked until its
 * process ends, however it ends.
 */
import { dirname } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as sleep } from "node:timers/promises";
import type { Result, Role } from "../../api/actions.ts";
import { UserError } from "../../base/errors.ts";
import type { LibxlConfig } from "../../toolstack/libxl-json.ts";
import { makeFolders } from "../paths.ts";

/** A machine's process: its number, and the kernel's word for when it began (proc(5), stat field 22), which tells it from a later process of that number. */
export type MachineRow = { readonly name: string; readonly pid: number; readonly pidStart: string; readonly socket: string; readonly xenstore: string; readonly startedMs: number };
/** A domain's configuration. "creating": asked for; "running": it is there, or between two lives; "lost": its machine died. */
export type DomainRow = { readonly uuid: string; readonly name: string; readonly domid: number | null; readonly machine: string; readonly state: "creating" | "running" | "lost"; readonly config: LibxlConfig; readonly sinceMs: number; readonly why: string };
/** A token's row; `hash` is of its secret. */
export type TokenRow = { readonly name: string; readonly hash: string; readonly role: Role; readonly createdMs: number };

const VERSION = 1, TRIES = 10;
const TABLES = `
  create table machines (name text primary key, pid integer, pid_start text, socket text, xenstore text, started_ms integer) strict;
  create table domains (uuid text primary key, name text, domid integer, machine text, state text, config text, since_ms integer, why text) strict;
  create table tokens (name text primary key, hash text unique, role text, created_ms integer) strict;
  create table settings (name text primary key, value text) strict;
  pragma user_version = ${VERSION};`;

type Row = Record<string, string | number | null>;

/** The database, open and locked. */
export class HostState {
  readonly #db: DatabaseSync;

  private constructor(path: string) {
    makeFolders(dirname(path), 0o700);
    this.#db = new DatabaseSync(path, { timeout: 0 });
    try {
      // exclusive before WAL: no shared memory is used then, and the lock is held from the first transaction to the end of the process
      this.#db.exec("pragma locking_mode = exclusive; pragma journal_mode = wal; pragma synchronous = full; begin exclusive; commit;");
    } catch (e) {
      this.#db.close();
      throw e;
    }
    const version = Number((this.#db.prepare("pragma user_version").get() as Row)["user_version"]);
    if (version === 0) this.#db.exec(`begin; ${TABLES} commit;`);
    else if (version !== VERSION) throw new UserError(`The host's state ${path} is of version ${version}; this domusd knows ${VERSION}`);
  }
  /** Open and lock it. Of two who come at once each may find it locked by the other: they come again. @throws UserError where another daemon has it, or it cannot be had */
  static async open(path: string): Promise<HostState> {
    for (let tries = 1; ; tries++) {
      try { return new HostState(path); } catch (e) {
        if (e instanceof UserError) throw e;
        if (!/locked|busy/i.test((e as Error).message)) throw new UserError(`The host's state ${path} cannot be opened: ${(e as Error).message}`);
        if (tries === TRIES) throw new UserError(`A domusd runs on ${dirname(path)} already`);
        await sleep(20 + Math.random() * 100);
      }
    }
  }
  close(): void { this.#db.close(); }
  #all(sql: string, ...values: (string | number | null)[]): Row[] { return this.#db.prepare(sql).all(...values) as Row[]; }
  #run(sql: string, ...values: (string | number | null)[]): number { return Number(this.#db.prepare(sql).run(...values).changes); }

  // Machines -----------------------------------------------------------------------
  machines(): MachineRow[] {
    return this.#all("select * from machines").map((r) => ({ name: String(r["name"]), pid: Number(r["pid"]), pidStart: String(r["pid_start"]), socket: String(r["socket"]), xenstore: String(r["xenstore"]), startedMs: Number(r["started_ms"]) }));
  }
  putMachine(m: MachineRow): void { this.#run("insert or replace into machines values (?, ?, ?, ?, ?, ?)", m.name, m.pid, m.pidStart, m.socket, m.xenstore, m.startedMs); }
  dropMachine(name: string): void { this.#run("delete from machines where name = ?", name); }

  // Domains ------------------------------------------------------------------------
  domains(): DomainRow[] {
    return this.#all("select * from domains order by since_ms, name").map((r) => ({
      uuid: String(r["uuid"]), name: String(r["name"]), domid: r["domid"] === null ? null : Number(r["domid"]), machine: String(r["machine"]), state: String(r["state"]) as DomainRow["state"],
      config: JSON.parse(String(r["config"])) as LibxlConfig, sinceMs: Number(r["since_ms"]), why: String(r["why"]),
    }));
  }
  putDomain(d: Omit<DomainRow, "sinceMs" | "why">): void { this.#run("insert or replace into domains values (?, ?, ?, ?, ?, ?, ?, '')", d.uuid, d.name, d.domid, d.machine, d.state, JSON.stringify(d.config), Date.now()); }
  dropDomain(uuid: string): void { this.#run("delete from domains where uuid = ? and state <> 'lost'", uuid); }
  /** What is asked for is written down before it is begun; a domain of that uuid that lives keeps its row. */
  noteCreating(config: LibxlConfig, machine: string): void {
    this.#run("insert into domains values (?, ?, null, ?, 'creating', ?, ?, '') on conflict (uuid) do update set state = 'creating', name = excluded.name, config = excluded.config where state = 'lost'", config.c_info.uuid, config.c_info.name, machine, JSON.stringify(config), Date.now());
  }
  /** The making has ended, well or not: what became of it the events tell. */
  dropCreating(uuid: string): void { this.#run("delete from domains where uuid = ? and state = 'creating'", uuid); }
  /** A machine died: those who lived on it did. @returns them */
  lose(machine: string, why: string): DomainRow[] {
    const lived = new Set(this.domains().filter((d) => d.machine === machine && d.state !== "lost").map((d) => d.uuid));        // those of an earlier machine were told of
    this.#run("update domains set state = 'lost', why = ?, since_ms = ? where machine = ? and state in ('running', 'creating')", why, Date.now(), machine);
    return this.domains().filter((d) => lived.has(d.uuid));
  }
  lost(): Result<"host.status">["lost"] {
    return this.domains().filter((d) => d.state === "lost").map((d) => ({ machine: d.machine, domid: d.domid ?? -1, name: d.name, uuid: d.uuid, lostMs: d.sinceMs, why: d.why }));
  }
  forgetLost(): void { this.#run("delete from domains where state = 'lost'"); }

  // Tokens and settings ------------------------------------------------------------
  tokens(): TokenRow[] { return this.#all("select * from tokens order by name").map((r) => ({ name: String(r["name"]), hash: String(r["hash"]), role: String(r["role"]) as Role, createdMs: Number(r["created_ms"]) })); }
  roleOfHash(hash: string): Role | null { return (this.#all("select role from tokens where hash = ?", hash)[0]?.["role"] as Role | undefined) ?? null; }
  /** @returns false where there is one of that name */
  putToken(t: TokenRow): boolean { return this.#run("insert or ignore into tokens values (?, ?, ?, ?)", t.name, t.hash, t.role, t.createdMs) > 0; }
  dropToken(name: string): boolean { return this.#run("delete from tokens where name = ?", name) > 0; }
  setting(name: string): string | null { return (this.#all("select value from settings where name = ?", name)[0]?.["value"] as string | undefined) ?? null; }
  putSetting(name: string, value: string): void { this.#run("insert or replace into settings values (?, ?)", name, value); }
}
