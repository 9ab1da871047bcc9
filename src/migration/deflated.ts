/** DOMUS_DEFLATED: a whole PAGE_DATA record and its checksum, as raw DEFLATE (RFC 1951), behind the number of bytes they are. For links that are slower than a processor deflates. */
import { covered, REC, REC_LENGTH_MAX, recName, type RecordHead, recordName, RecordReader } from "./libxc.ts";
import { Source, StreamError } from "./stream.ts";

/** What does not get smaller than this goes as it is. */
const WORTH = 0.9;
/** Links slower than this are worth it: a processor deflates about twice as much a second, beside its other work. */
export const DEFLATE_BELOW_BYTES_PER_SECOND = 24 << 20;

/** @returns the record to send in place of `bytes`, or those where it does not pay */
export async function deflated(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  const small = await new Response(new Blob([bytes]).stream().pipeThrough(new CompressionStream("deflate-raw"))).arrayBuffer();
  if (small.byteLength > bytes.length * WORTH) return bytes;
  const body = new Uint8Array(4 + small.byteLength);
  new DataView(body.buffer).setUint32(0, bytes.length, true);
  body.set(new Uint8Array(small), 4);
  return covered(REC.DOMUS_DEFLATED, body);
}
/** The records within, to be read as any. @param body of the record, which its checksum has confirmed @throws StreamError */
async function inflated(head: RecordHead, body: Uint8Array<ArrayBuffer>): Promise<Source> {
  const length = body.length >= 4 ? new DataView(body.buffer).getUint32(0, true) : 0, damaged = (why: string): StreamError => new StreamError(`The stream's ${recordName(head)} ${why}: the stream is damaged`);
  if (length === 0 || length > REC_LENGTH_MAX) throw damaged(`claims to be ${length} bytes`);
  const whole = new Uint8Array(length), from = new Source(new Blob([body.subarray(4)]).stream().pipeThrough(new DecompressionStream("deflate-raw")));
  try {
    await from.readInto(whole);
    if (!(await from.isEnded())) throw damaged(`is more than the ${length} bytes it claims`);
  } catch (e) {
    await from.cancel(e);
    throw e instanceof StreamError && !e.message.includes("cut short") ? e : damaged(`is not ${length} deflated bytes`);
  }
  return new Source(new Blob([whole]).stream());
}
/** The PAGE_DATA record within, its header read. @param body of the record, which its checksum has confirmed @throws StreamError */
export async function pagesWithin(head: RecordHead, body: Uint8Array<ArrayBuffer>): Promise<{ readonly from: Source; readonly records: RecordReader; readonly inner: RecordHead }> {
  const from = await inflated(head, body), records = new RecordReader(from);
  records.isCovered = true;
  const inner = await records.head();
  if (inner.type !== REC.PAGE_DATA) throw new StreamError(`The stream's ${recordName(head)} holds ${recName(inner.type)}, not PAGE_DATA: the stream is damaged`);
  return { from, records, inner };
}
