/** Who has a domain that was handed over, written where it outlives the machine's process: what the other end is told when it asks after our death. */
import { existsSync, fdatasyncSync, fsyncSync, openSync, readFileSync, renameSync, writeFileSync, writeSync, closeSync } from "node:fs";
import { dirname } from "node:path";
import type { Standing } from "../../migration/commit.ts";
import type { Journal } from "../../toolstack/migrate.ts";

/** The other end asks within minutes, or when a person says so; older migrations are forgotten when the file is opened. */
const KEPT = 1000;
const NOTED: readonly string[] = ["given", "kept", "ready", "running", "dropped"] satisfies Standing[];

/** What an earlier process of ours noted last, of a domain that has died with it: one that was ready never ran, and nothing is left of it. */
const standingNoted = (noted: string): Standing => (noted === "ready" ? "dropped" : (noted as Standing));

/** Have what a folder says of its files stand. */
export function syncFolder(folder: string): void {
  const fd = openSync(folder, "r");
  try { fsyncSync(fd); } finally { closeSync(fd); }
}

/** Notes of a machine's migrations: a file, a line a note; the last of a migration holds. */
export class MigrationJournal implements Journal {
  readonly #fd: number;
  /** of processes before this one */
  readonly #before: ReadonlyMap<string, Standing>;
  /** @throws where the file cannot be read or written */
  constructor(path: string) {
    const last = new Map<string, string>();
    for (const line of existsSync(path) ? readFileSync(path, "latin1").split("\n") : []) {
      const [, migration, noted] = /^([0-9a-f]{1,64}) (\w+)$/.exec(line) ?? [];        // the end of one that was being written when the process died is none
      if (migration === undefined || !NOTED.includes(noted!)) continue;
      last.delete(migration);
      last.set(migration, noted!);
    }
    const kept = [...last].slice(-KEPT), fresh = `${path}.new`;
    writeFileSync(fresh, kept.map(([migration, noted]) => `${migration} ${noted}\n`).join(""), { mode: 0o600, flush: true });
    renameSync(fresh, path);
    syncFolder(dirname(path));
    this.#before = new Map(kept.map(([migration, noted]) => [migration, standingNoted(noted)]));
    this.#fd = openSync(path, "a");
  }
  /** Write it down; it is on the disk when this returns. @throws where it cannot be written: half of it may stand */
  note(migration: string, standing: Standing): void {
    const line = `\n${migration} ${standing}\n`;        // behind what may be half a line
    if (writeSync(this.#fd, line) !== line.length) throw new Error("The disk is full");
    fdatasyncSync(this.#fd);
  }
  /** What was noted before this process was, or null. */
  before(migration: string): Standing | null { return this.#before.get(migration) ?? null; }
  close(): void { closeSync(this.#fd); }
}
