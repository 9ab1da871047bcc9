/** What is said between a page and the worker that has its private file system's access handles. */
import type { DiskFault } from "./disk.ts";

/** A file that is kept in this browser. */
export type StoredFile = { readonly name: string; readonly sizeBytes: number; readonly changedMs: number };
/** Requests; each gets one answer of the same `id`. `file`: a handle that `open` gave. */
export type ToOpfs = { readonly id: number } & (
  | { readonly op: "open"; readonly name: string; readonly mode: "read" | "write" | "create" }
  | { readonly op: "read"; readonly file: number; readonly at: number; readonly lengthBytes: number }
  | { readonly op: "write"; readonly file: number; readonly at: number; readonly bytes: Uint8Array<ArrayBuffer> }
  | { readonly op: "truncate"; readonly file: number; readonly sizeBytes: number }
  | { readonly op: "flush" | "close"; readonly file: number }
  | { readonly op: "list" }
  | { readonly op: "rename"; readonly name: string; readonly to: string }
  | { readonly op: "remove"; readonly name: string });
/** What was asked for; each field of the operations that have it. */
export type OpfsResult = { readonly file?: number; readonly sizeBytes?: number; readonly bytes?: Uint8Array<ArrayBuffer>; readonly files?: readonly StoredFile[] };
/** Answers. */
export type FromOpfs = { readonly id: number } & ({ readonly result: OpfsResult } | { readonly fault: DiskFault; readonly message: string });
