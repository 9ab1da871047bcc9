/**
 * Pages that follow their domain: post-copy. Before it is handed over DOMUS_AWAITED names those that the receiver will lack. When it runs there, the receiver says by the same record which it lacks (all of
 * them at first, fewer where a broken link is followed by a new one), and by DOMUS_WANTED which of those somebody waits for; the sender answers with PAGE_DATA, what is wanted first, and after it
 * its neighbours. Each end closes its part with END, and reads on to the other's: the sender when all that was lacked has gone, the receiver when it has it, or needs no more.
 */
import type { Arrival } from "../hypervisor/arrival.ts";
import type { Domain } from "../hypervisor/domain.ts";
import { GfnSet } from "../memory/gfn_set.ts";
import { GFN_BITS } from "../memory/p2m.ts";
import { pagesWithin } from "./deflated.ts";
import { covered, REC, record, recordName, RecordReader } from "./libxc.ts";
import { PageBuffer, PageWriter } from "./pages.ts";
import { type Sink, type Source, StreamError } from "./stream.ts";

/** Pages a record: what is wanted waits for the one that is under way. */
export const LATE_BATCH = 16;
/** gfns a record */
const LIST_MAX = 1 << 20;

/** Records that name gfns. */
function lists(type: number, gfns: readonly number[]): Uint8Array<ArrayBuffer>[] {
  const records: Uint8Array<ArrayBuffer>[] = [];
  for (let from = 0; from === 0 || from < gfns.length; from += LIST_MAX) records.push(covered(type, new Uint8Array(Uint32Array.from(gfns.slice(from, from + LIST_MAX)).buffer)));
  return records;
}
/** @throws StreamError */
export function parseGfns(body: Uint8Array, name: string): number[] {
  if (body.length % 4) throw new StreamError(`The stream's ${name} has ${body.length} bytes, no multiple of 4: the stream is damaged`);
  const dv = new DataView(body.buffer, body.byteOffset, body.length), gfns = Array.from({ length: body.length / 4 }, (_, i) => dv.getUint32(i * 4, true)), wrong = gfns.find((gfn) => gfn >= 2 ** GFN_BITS);
  if (wrong !== undefined) throw new StreamError(`The stream's ${name} is about gfn 0x${wrong.toString(16)}, which cannot be: the stream is damaged`);
  return gfns;
}
/** Give a domain that does not run the frames it lacks for pages that come later, and have it wait for them. @throws StreamError, UserError for more than it may have, MachineMemoryExhausted */
export function expectPages(arrival: Arrival, d: Domain, gfns: readonly number[], name: string): void {
  for (const gfn of gfns) {
    if (d.p2m.lookup(gfn) === 0) d.populate(gfn, 1);
    if (!arrival.expect(gfn)) throw new StreamError(`The stream's ${name} is about gfn 0x${gfn.toString(16)}, where the domain has no memory of its own: the stream is damaged`);
  }
}
/** In a domain's image: these pages come later. */
export async function writeAwaited(sink: Sink, gfns: readonly number[]): Promise<void> { for (const bytes of lists(REC.DOMUS_AWAITED, gfns)) await sink.write(bytes); }

/**
 * Send what the receiver lacks. The domain stands still here.
 * @param late what it may lack; nothing else is sent to it
 * @param mustBeThere throws when the domain is gone here: its memory is others' then
 * @param progress is told how many of how many have gone
 * @throws StreamError, and what the stream has to say: the receiver may lack any of them then
 */
export async function sendLate(d: Domain, late: GfnSet, sink: Sink, answers: Source, deflates: boolean, mustBeThere: () => void, progress: (done: number, total: number) => void): Promise<void> {
  const reader = new RecordReader(answers), writer = new PageWriter(d, sink, LATE_BATCH, deflates), left = new GfnSet(), order: number[] = [], wanted: number[] = [];
  reader.isCovered = true;
  let isOver = false, isSending = false;
  /** What the receiver says next. */
  const hear = async (): Promise<void> => {
    const head = await reader.head(), isList = head.type === REC.DOMUS_AWAITED && !isSending;
    if (head.type === REC.END) { isOver = true; return; }
    if (!isList && head.type !== REC.DOMUS_WANTED) throw new StreamError(`The other end's ${recordName(head)} asks for nothing: it does not speak as Domus does`);
    for (const gfn of parseGfns(await reader.body(head), recordName(head))) {
      if (!isList && left.has(gfn)) wanted.push(gfn);
      if (!isList || left.has(gfn) || !late.has(gfn)) continue;
      left.add(gfn);
      order.push(gfn);
    }
  };
  await hear();
  const total = left.size, heard = (async () => { while (!isOver) await hear(); })(), failed = new Promise<never>((_, reject) => { heard.catch(reject); });
  failed.catch(() => {});
  const place = new Map(order.map((gfn, i) => [gfn, i]));
  let at = 0;
  while (left.size !== 0 && !isOver) {
    const gfns: number[] = [], take = (gfn: number): void => {
      if (!left.has(gfn)) return;
      left.delete(gfn);
      gfns.push(gfn);
    };
    for (let gfn = wanted.shift(); gfn !== undefined; gfn = gfns.length < LATE_BATCH ? wanted.shift() : undefined) {
      take(gfn);
      at = place.get(gfn) ?? at;        // what lies behind it is likely to be wanted next
    }
    for (let looked = 0; gfns.length < LATE_BATCH && looked < order.length; looked++, at = (at + 1) % order.length) take(order[at]!);
    isSending = true;
    mustBeThere();
    await Promise.race([writer.write(gfns.map((gfn) => ({ gfn, mfn: d.p2m.ram(gfn) }))), failed]);        // one that is not there any more is told as such
    progress(total - left.size, total);
  }
  await Promise.race([sink.write(record(REC.END)), failed]);
  await heard;
}
/**
 * Receive what the domain lacks, over a link of which this is the first or a later one.
 * @param progress is told when pages have come
 * @throws StreamError, and what the stream has to say: what is left of it can come over another one
 */
export async function receiveLate(arrival: Arrival, from: Source, answers: Sink, progress: () => void): Promise<void> {
  const reader = new RecordReader(from), buffer = new PageBuffer(), place = (gfn: number, bytes: Uint8Array | null): void => arrival.place(gfn, bytes);
  reader.isCovered = true;
  for (const bytes of lists(REC.DOMUS_AWAITED, arrival.left)) answers.post(bytes);
  const ask = (gfns: readonly number[]): void => { for (const bytes of lists(REC.DOMUS_WANTED, gfns)) answers.post(bytes); };
  arrival.onWanted = ask;
  arrival.poll();
  if (arrival.wanted.length) ask(arrival.wanted);
  try {
    for (let isSaid = false; ;) {
      const needsMore = !arrival.isOver && arrival.nrLeft !== 0;
      if (!needsMore && !isSaid) answers.post(record(REC.END));
      isSaid ||= !needsMore;
      const head = await reader.head();
      if (head.type === REC.END && needsMore) throw new StreamError(`The other end has sent all of its pages; ${arrival.nrLeft} are missing`);
      if (head.type === REC.END) return;
      if (head.type === REC.PAGE_DATA) await buffer.read(from, reader, head, place);
      else if (head.type === REC.DOMUS_DEFLATED) {
        const { from: within, records, inner } = await pagesWithin(head, await reader.body(head));
        await buffer.read(within, records, inner, place);
      } else throw new StreamError(`The stream's ${recordName(head)} is no page: the stream is damaged`);
      progress();
    }
  } finally { if (arrival.onWanted === ask) arrival.onWanted = () => {}; }        // another link may have taken this one's place
}
