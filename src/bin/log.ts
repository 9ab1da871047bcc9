/** Structured logs: a line of JSON for each thing worth telling, on stderr. */
import { writeSync } from "node:fs";

/** How bad it is. */
export type Level = "info" | "warn" | "error";
/** Tell it. `what` is a sentence; further fields are for programs. */
export type Log = (level: Level, what: string, fields?: Readonly<Record<string, unknown>>) => void;
/** A log of one part of the host. */
export function jsonLog(part: string): Log {
  return (level, what, fields = {}) => {
    try { writeSync(2, `${JSON.stringify({ time: new Date().toISOString(), level, part, pid: process.pid, what, ...fields })}\n`); } catch { /* the disk is full: nobody to tell */ }
  };
}
