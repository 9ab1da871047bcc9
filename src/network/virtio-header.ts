/** struct virtio_net_hdr, linux/virtio_net.h: what a frame's sender left undone, as TAPs and virtio devices say it. Here it is little endian (TUNSETVNETLE). */
import { struct, u16, u8 } from "../base/struct.ts";
import { checksumOf, findTransport, IPPROTO } from "./checksum.ts";
import { MSS_BYTES_MIN } from "./offload.ts";
import type { Frame } from "./port.ts";

/** Its fields; offsets in it are from the frame's first byte. The legacy form, without num_buffers. */
export const VirtioNetHdr = struct(10, { flags: u8(0), gso_type: u8(1), hdr_len: u16(2), gso_size: u16(4), csum_start: u16(6), csum_offset: u16(8) });
/** virtio_net_hdr.flags */
export const VIRTIO_NET_HDR_F = { NEEDS_CSUM: 1, DATA_VALID: 2 } as const;
/** virtio_net_hdr.gso_type */
export const VIRTIO_NET_HDR_GSO = { NONE: 0, TCPV4: 1, UDP: 3, TCPV6: 4, UDP_L4: 5, ECN: 0x80 } as const;

const HDR = VirtioNetHdr;

/** Write the header of a frame at the view's first bytes. @returns false when the frame is not what its `gso` says: it is lost */
export function writeHeader(view: DataView, { bytes, checksum, gso }: Frame): boolean {
  for (let at = 0; at < HDR.sizeof; at++) view.setUint8(at, 0);
  if (checksum !== "blank" && !gso) return true;
  const t = findTransport(bytes);
  if (!t) return !gso;
  HDR.flags.set(view, 0, VIRTIO_NET_HDR_F.NEEDS_CSUM);
  HDR.csum_start.set(view, 0, t.at);
  HDR.csum_offset.set(view, 0, t.checksumAt - t.at);
  if (!gso) return true;
  const payloadAt = t.at + (bytes[t.at + 12]! >>> 4) * 4;
  if (t.protocol !== IPPROTO.tcp || (t.version === 4) !== (gso.type === "tcpv4") || payloadAt < t.at + 20 || payloadAt > t.end || !(gso.mss >= MSS_BYTES_MIN && gso.mss <= 0xffff)) return false;
  HDR.gso_type.set(view, 0, gso.type === "tcpv4" ? VIRTIO_NET_HDR_GSO.TCPV4 : VIRTIO_NET_HDR_GSO.TCPV6);
  HDR.gso_size.set(view, 0, gso.mss);
  HDR.hdr_len.set(view, 0, payloadAt);
  return true;
}

/**
 * The frame behind a header. A checksum that is left undone where the frame has no TCP or UDP packet that says so (a packet in a tunnel's) is completed at once, in place.
 * @param bytes header and frame, the callee's from now on
 * @returns null when the header does not fit the frame or says what was not agreed upon
 */
export function readFrame(bytes: Uint8Array<ArrayBuffer>): Frame | null {
  if (bytes.length < HDR.sizeof + 14) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, HDR.sizeof), frame = bytes.subarray(HDR.sizeof);
  const flags = HDR.flags.get(view, 0), type = HDR.gso_type.get(view, 0) & ~VIRTIO_NET_HDR_GSO.ECN, start = HDR.csum_start.get(view, 0), field = start + HDR.csum_offset.get(view, 0);
  const isBlank = (flags & VIRTIO_NET_HDR_F.NEEDS_CSUM) !== 0, t = isBlank ? findTransport(frame) : null, isPlain = t?.at === start && t.checksumAt === field;
  if (type !== VIRTIO_NET_HDR_GSO.NONE) {
    const mss = HDR.gso_size.get(view, 0), isV4 = type === VIRTIO_NET_HDR_GSO.TCPV4;
    if (!isPlain || t.protocol !== IPPROTO.tcp || mss === 0 || (isV4 ? t.version !== 4 : type !== VIRTIO_NET_HDR_GSO.TCPV6 || t.version !== 6)) return null;
    return { bytes: frame, checksum: "blank", gso: { type: isV4 ? "tcpv4" : "tcpv6", mss } };
  }
  if (!isBlank) return { bytes: frame, checksum: flags & VIRTIO_NET_HDR_F.DATA_VALID ? "good" : "unknown", gso: null };
  if (isPlain) return { bytes: frame, checksum: "blank", gso: null };
  if (field + 2 > frame.length) return null;
  const checksum = checksumOf(frame, start, frame.length) || 0xffff;
  frame[field] = checksum >>> 8;
  frame[field + 1] = checksum & 0xff;
  return { bytes: frame, checksum: "unknown", gso: null };
}
