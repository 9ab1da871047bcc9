/** Structured logs: a line of JSON for each thing worth telling, on stderr. */
import { copyFileSync, fstatSync, ftruncateSync, statSync, writeSync } from "node:fs";

/** How bad it is. */
export type Level = "info" | "warn" | "error";
/** Tell it. `what` is a sentence; further fields are for programs. */
export type Log = (level: Level, what: string, fields?: Readonly<Record<string, unknown>>) => void;
/** The file that a background program's stderr was opened on, by who started it. */
export const LOG_FILE = "DOMUS_LOG_FILE";
const STDERR = 2, LOG_BYTES = 16 << 20;

/** A file that is full becomes NAME.1, in the place of an earlier one: strangers' requests and guests cannot fill the disk. Others, as one that a user chose, are left alone. */
function keepShort(path: string | undefined, maxBytes: number): void {
  if (!path) return;
  const open = fstatSync(STDERR);
  if (!open.isFile() || open.size < maxBytes || statSync(path).ino !== open.ino) return;
  copyFileSync(path, `${path}.1`);        // who writes has it open: a new name would not be followed
  ftruncateSync(STDERR);
}
/** A log of one part of the host. */
export function jsonLog(part: string, maxBytes = LOG_BYTES): Log {
  return (level, what, fields = {}) => {
    try {
      keepShort(process.env[LOG_FILE], maxBytes);
      writeSync(STDERR, `${JSON.stringify({ time: new Date().toISOString(), level, part, pid: process.pid, what, ...fields })}\n`);
    } catch { /* the disk is full: nobody to tell */ }
  };
}
