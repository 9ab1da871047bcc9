/** What a sender does for a peer that takes no offloads: large TCP frames are cut, blank checksums completed. */
import { checksumOf, completed, findTransport, IPPROTO, writeChecksum } from "./checksum.ts";
import type { Frame, Port } from "./port.ts";

/** No peer's segments are smaller; a guest that asks for less would turn one frame into thousands. Linux's tcp_min_snd_mss is 48 */
export const MSS_BYTES_MIN = 48;
const FIN = 0x01, PSH = 0x08, CWR = 0x80;

/**
 * Cut a frame with `gso` into segments of `mss` payload bytes, each a frame of its own with right lengths, sequence numbers, flags and checksums.
 * A frame without `gso` comes back alone, as it is. @returns [] when the frame is not the TCP packet that its `gso` says or `mss` is below MSS_BYTES_MIN: it is lost
 */
export function segment(frame: Frame): Frame[] {
  const { bytes, gso } = frame;
  if (!gso) return [frame];
  const t = findTransport(bytes), { mss } = gso;
  if (!t || t.protocol !== IPPROTO.tcp || (t.version === 4) !== (gso.type === "tcpv4") || !Number.isInteger(mss) || mss < MSS_BYTES_MIN) return [];
  const payloadAt = t.at + (bytes[t.at + 12]! >>> 4) * 4;
  if (payloadAt < t.at + 20 || payloadAt > t.end) return [];
  if (t.end - payloadAt <= mss) return [completed({ bytes: t.end < bytes.length ? bytes.subarray(0, t.end) : bytes, checksum: "blank", gso: null })];
  const { ipAt, at, checksumAt } = t, frames: Frame[] = [], view = new DataView(bytes.buffer, bytes.byteOffset);
  const seq = view.getUint32(at + 4), id = view.getUint16(ipAt + 4), flags = bytes[at + 13]!;
  // One buffer for all of them: an ArrayBuffer a segment costs more than the segment's copy and sum together.
  const all = new Uint8Array(t.end - payloadAt + payloadAt * Math.ceil((t.end - payloadAt) / mss)), out = new DataView(all.buffer);
  for (let from = payloadAt, start = 0; from < t.end; from += mss) {
    const to = Math.min(t.end, from + mss), isFirst = from === payloadAt, isLast = to === t.end, end = start + payloadAt + to - from;
    all.set(bytes.subarray(0, payloadAt), start);
    all.set(bytes.subarray(from, to), start + payloadAt);
    const ip = start + ipAt, tcp = start + at;
    if (t.version === 4) {
      out.setUint16(ip + 2, end - ip);
      out.setUint16(ip + 4, id + frames.length);
      out.setUint16(ip + 10, 0);
      out.setUint16(ip + 10, checksumOf(all, ip, ip + (all[ip]! & 15) * 4));
    } else out.setUint16(ip + 4, end - ip - 40);
    out.setUint32(tcp + 4, seq + (from - payloadAt));
    all[tcp + 13] = flags & ~((isFirst ? 0 : CWR) | (isLast ? 0 : FIN | PSH));
    writeChecksum(all, { version: t.version, protocol: t.protocol, ipAt: ip, at: tcp, end, checksumAt: start + checksumAt });
    frames.push({ bytes: all.subarray(start, end), checksum: "good", gso: null });
    start = end;
  }
  return frames;
}

/** The frames to send so that `peer` can take them: the frame itself, its checksum completed, or its segments; none when it cannot be cut. */
export function suited(frame: Frame, peer: Pick<Port, "takesGso" | "takesBlankChecksum">): Frame[] {
  if (frame.gso) return peer.takesGso && (peer.takesBlankChecksum || frame.checksum !== "blank") ? [frame] : segment(frame);
  return [frame.checksum === "blank" && !peer.takesBlankChecksum ? completed(frame) : frame];
}
