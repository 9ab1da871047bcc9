/** For tests: streams in memory, and a stream without what only Domus reads. */
import { concat } from "../base/bytes.ts";
import { envelopeEnd } from "./envelope.ts";
import { REC, REC_OPTIONAL } from "./libxc.ts";

/** Collects what is written. */
export function collector(): { stream: WritableStream<Uint8Array>; bytes(): Uint8Array<ArrayBuffer> } {
  const chunks: Uint8Array[] = [];
  return {
    stream: new WritableStream({ write: (chunk) => { chunks.push(chunk.slice()); } }),
    bytes: () => concat(chunks),
  };
}
/** Gives bytes out, so many at a time. */
export const streamOf = (bytes: Uint8Array, chunkBytes = 1 << 20): ReadableStream<Uint8Array> => {
  let at = 0;
  return new ReadableStream({
    pull: (c) => {
      if (at >= bytes.length) return c.close();
      c.enqueue(bytes.subarray(at, at + chunkBytes));
      at += chunkBytes;
    },
  });
};
/** Where each of libxc's records lies in a saved domain. */
export function recordsOf(bytes: Uint8Array): { type: number; at: number; end: number }[] {
  const dv = new DataView(bytes.buffer, bytes.byteOffset, bytes.length), found: { type: number; at: number; end: number }[] = [];
  for (let at = startOfRecords(bytes); ; ) {
    const type = dv.getUint32(at, true), end = at + 8 + Math.ceil(dv.getUint32(at + 4, true) / 8) * 8;
    found.push({ type, at, end });
    if (type === REC.END) return found;
    at = end;
  }
}
/** Behind xl's, libxl's and libxc's headers. */
export const startOfRecords = (bytes: Uint8Array): number => 48 + new DataView(bytes.buffer, bytes.byteOffset, bytes.length).getUint32(44, true) + 16 + 8 + 24 + 16;
/** The stream as a tool reads it that passes optional records over. */
export function withoutOptional(bytes: Uint8Array): Uint8Array {
  return concat([bytes.subarray(0, startOfRecords(bytes)), ...recordsOf(bytes).filter((r) => r.type < REC_OPTIONAL).map((r) => bytes.subarray(r.at, r.end)), envelopeEnd()]);
}
