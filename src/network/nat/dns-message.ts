/** DNS messages (RFC 1035) as far as a forwarder reads and writes them: the header, one question, answers of its own. */

/** Types. IANA DNS parameters */
export const DNS_TYPE = { A: 1, PTR: 12, AAAA: 28, ANY: 255 } as const;
/** Response codes. */
export const RCODE = { NOERROR: 0, FORMERR: 1, SERVFAIL: 2, NXDOMAIN: 3, NOTIMP: 4 } as const;
const QR = 0x8000, OPCODE_MASK = 0x7800, AA = 0x0400, RD = 0x0100, RA = 0x0080, CLASS_IN = 1;
const HEADER_BYTES = 12;

/** What a query asks. */
export type Question = {
  readonly id: number;
  readonly flags: number;
  /** lower case, labels joined with dots, no dot at the end */
  readonly name: string;
  readonly type: number;
  readonly class: number;
  /** behind the question's last byte */
  readonly end: number;
};

/** Read a query's header and its one question. @returns a response code for what is wrong with it, or null when it deserves no answer */
export function readQuery(bytes: Uint8Array): Question | number | null {
  if (bytes.length < HEADER_BYTES) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length), flags = view.getUint16(2);
  if (flags & QR) return null;
  if ((flags & OPCODE_MASK) !== 0) return RCODE.NOTIMP;
  if (view.getUint16(4) !== 1) return RCODE.FORMERR;
  return readQuestion(bytes, view) ?? RCODE.FORMERR;
}
function readQuestion(bytes: Uint8Array, view: DataView): Question | null {
  let at = HEADER_BYTES, name = "";
  for (;;) {
    const length = bytes[at];
    if (length === undefined || length > 63 || at + 1 + length > bytes.length || name.length > 255) return null;
    at++;
    if (length === 0) break;
    name += (name ? "." : "") + String.fromCharCode(...bytes.subarray(at, at + length));
    at += length;
  }
  if (at + 4 > bytes.length) return null;
  return { id: view.getUint16(0), flags: view.getUint16(2), name: name.toLowerCase(), type: view.getUint16(at), class: view.getUint16(at + 2), end: at + 4 };
}
/** Is `reply` an answer to `query`, whose id on the way was `id`? Names are compared without case. */
export function isReplyTo(reply: Uint8Array, query: Uint8Array, question: Question, id: number): boolean {
  if (reply.length < HEADER_BYTES) return false;
  const view = new DataView(reply.buffer, reply.byteOffset, reply.length);
  if (view.getUint16(0) !== id || !(view.getUint16(2) & QR)) return false;
  // An error may come without its question.
  if (view.getUint16(4) === 0) return (view.getUint16(2) & 15) !== 0;
  const got = readQuestion(reply, view);
  return got !== null && query.length > 0 && got.name === question.name && got.type === question.type && got.class === question.class;
}
/** The message under another id, in a copy. */
export function withId(message: Uint8Array, id: number): Uint8Array {
  const copy = message.slice();
  copy[0] = id >>> 8;
  copy[1] = id & 255;
  return copy;
}

/** One answer's content. */
export type Answer = { readonly type: number; readonly rdata: Uint8Array };
/** An answer of our own to `query`: its question, then `answers` about that name. An unreadable query gets header only. */
export function writeReply(query: Uint8Array, question: Question | null, rcode: number, answers: readonly Answer[], ttlSeconds: number): Uint8Array {
  const end = question?.end ?? HEADER_BYTES, bytes = new Uint8Array(end + answers.reduce((sum, a) => sum + 12 + a.rdata.length, 0)), view = new DataView(bytes.buffer);
  bytes.set(query.subarray(0, end));
  const flags = view.getUint16(2);
  view.setUint16(2, QR | (flags & (OPCODE_MASK | RD)) | RA | (question && rcode !== RCODE.SERVFAIL ? AA : 0) | rcode);
  view.setUint16(4, question ? 1 : 0);
  view.setUint16(6, answers.length);
  view.setUint32(8, 0);
  let at = end;
  for (const a of answers) {
    view.setUint16(at, 0xc000 | HEADER_BYTES);
    view.setUint16(at + 2, a.type);
    view.setUint16(at + 4, CLASS_IN);
    view.setUint32(at + 6, ttlSeconds);
    view.setUint16(at + 10, a.rdata.length);
    bytes.set(a.rdata, at + 12);
    at += 12 + a.rdata.length;
  }
  return bytes;
}
/** A name as it stands in a message. Its labels must be valid. */
export const encodeName = (name: string): Uint8Array =>
  Uint8Array.from([...name.split(".").flatMap((label) => [label.length, ...new TextEncoder().encode(label)]), 0]);
