/** A block request: from a slot's bytes to a typed value, every number checked. The slot was copied out of the ring before. */
import {
  BLKIF_DISCARD_SECURE, BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST, BLKIF_MAX_SEGMENTS_PER_REQUEST, BLKIF_OP, BLKIF_RSP, BlkifRequest, BlkifRequestDiscard, BlkifRequestIndirect, BlkifRequestSegment,
} from "../../abi/io/blkif.ts";
import { SECTOR_BYTES } from "../../storage/disk.ts";

const SECTORS_PER_PAGE = 8, SEGMENTS_PER_PAGE = 512, PAGE_BYTES = 4096;
/** What is offered as feature-max-indirect-segments: 1 MiB a request. */
export const MAX_INDIRECT_SEGMENTS = 256;
/** Sector numbers beyond this are on no disk: 2^53 bytes. */
const MAX_SECTOR = 2 ** 44;

/** A part of one granted page. */
export type Segment = { readonly ref: number; readonly offset: number; readonly lengthBytes: number };
/** `id` is the guest's and goes back as it came; `op` as the response names it: an indirect request's is the inner one, as Linux's front end wants it. */
type Head = { readonly id: bigint; readonly op: number };
export type BlockTransfer = Head & { readonly kind: "read" | "write"; readonly offset: number; readonly lengthBytes: number; readonly segments: readonly Segment[] };
/** `bad` is not to be carried out: answered with `status`. */
export type BlockOther = Head & ({ readonly kind: "flush" } | { readonly kind: "discard"; readonly offset: number; readonly lengthBytes: number } | { readonly kind: "bad"; readonly status: number; readonly why: string });
export type BlockRequest = BlockTransfer | BlockOther;

/** Copies a granted page; null when the grant is no good. */
export type PageReader = (ref: number) => Uint8Array | null;

function segmentsOf(dv: DataView, at: number, nr: number, into: Segment[]): string | null {
  for (let i = 0; i < nr; i++) {
    const p = at + i * BlkifRequestSegment.sizeof, first = BlkifRequestSegment.first_sect.get(dv, p), last = BlkifRequestSegment.last_sect.get(dv, p);
    if (first > last || last >= SECTORS_PER_PAGE) return `sectors ${first} to ${last} of a page`;
    into.push({ ref: BlkifRequestSegment.gref.get(dv, p), offset: first * SECTOR_BYTES, lengthBytes: (last - first + 1) * SECTOR_BYTES });
  }
  return null;
}

/** The grants of an indirect request's pages of segments, as its slot says; of others none. */
export function* tablesOf(slot: DataView): Generator<number> {
  const R = BlkifRequestIndirect;
  if (R.operation.get(slot, 0) !== BLKIF_OP.INDIRECT) return;
  const nrPages = Math.ceil(Math.min(R.nr_segments.get(slot, 0), MAX_INDIRECT_SEGMENTS) / SEGMENTS_PER_PAGE);
  for (let i = 0; i < nrPages; i++) yield slot.getUint32(R.indirect_grefs.at + i * 4, true);
}
/**
 * Take a slot apart.
 * @param slot the copy of a request, BlkifRequest.sizeof bytes
 * @see public/io/blkif.h
 */
export function parseRequest(slot: DataView, readPage: PageReader): BlockRequest {
  const op = BlkifRequest.operation.get(slot, 0), id = BlkifRequest.id.get(slot, 0);
  const bad = (why: string, status: number = BLKIF_RSP.ERROR): BlockRequest => ({ id, op, kind: "bad", status, why });
  switch (op) {
    case BLKIF_OP.READ: case BLKIF_OP.WRITE: {
      const nr = BlkifRequest.nr_segments.get(slot, 0), segments: Segment[] = [];
      if (nr < 1 || nr > BLKIF_MAX_SEGMENTS_PER_REQUEST) return bad(`${nr} segments`);
      const flaw = segmentsOf(slot, BlkifRequest.seg.at, nr, segments);
      return flaw ? bad(flaw) : transfer(op, id, BlkifRequest.sector_number.get(slot, 0), segments);
    }
    case BLKIF_OP.INDIRECT: {
      const R = BlkifRequestIndirect, inner = R.indirect_op.get(slot, 0), nr = R.nr_segments.get(slot, 0), nrPages = Math.ceil(nr / SEGMENTS_PER_PAGE), segments: Segment[] = [];
      const refused = (why: string): BlockRequest => ({ id: R.id.get(slot, 0), op: inner, kind: "bad", status: BLKIF_RSP.ERROR, why });
      if (inner !== BLKIF_OP.READ && inner !== BLKIF_OP.WRITE) return refused(`indirect operation ${inner}`);
      if (nr < 1 || nr > MAX_INDIRECT_SEGMENTS || nrPages > BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST) return refused(`${nr} indirect segments`);
      for (let i = 0; i < nrPages; i++) {
        const page = readPage(slot.getUint32(R.indirect_grefs.at + i * 4, true));
        if (!page) return refused("a page of segments whose grant is no good");
        const flaw = segmentsOf(new DataView(page.buffer, page.byteOffset, PAGE_BYTES), 0, Math.min(SEGMENTS_PER_PAGE, nr - i * SEGMENTS_PER_PAGE), segments);
        if (flaw) return refused(flaw);
      }
      return transfer(inner, R.id.get(slot, 0), R.sector_number.get(slot, 0), segments);
    }
    case BLKIF_OP.FLUSH_DISKCACHE: return { id, op, kind: "flush" };
    case BLKIF_OP.DISCARD: {
      const R = BlkifRequestDiscard, sector = R.sector_number.get(slot, 0), nr = R.nr_sectors.get(slot, 0);
      if (R.flag.get(slot, 0) & BLKIF_DISCARD_SECURE) return bad("secure discard", BLKIF_RSP.EOPNOTSUPP);
      if (sector > BigInt(MAX_SECTOR) || nr > BigInt(MAX_SECTOR)) return bad(`${nr} sectors at ${sector}`);
      return { id, op, kind: "discard", offset: Number(sector) * SECTOR_BYTES, lengthBytes: Number(nr) * SECTOR_BYTES };
    }
    default: return bad(`operation ${op}`, BLKIF_RSP.EOPNOTSUPP);
  }
}
function transfer(op: number, id: bigint, sector: bigint, segments: readonly Segment[]): BlockRequest {
  if (sector > BigInt(MAX_SECTOR)) return { id, op, kind: "bad", status: BLKIF_RSP.ERROR, why: `sector ${sector}` };
  const lengthBytes = segments.reduce((sum, s) => sum + s.lengthBytes, 0);
  return { id, op, kind: op === BLKIF_OP.READ ? "read" : "write", offset: Number(sector) * SECTOR_BYTES, lengthBytes, segments };
}
