/** Which queue a frame goes to: all frames of a flow to the same, so that they stay in order. */

import { ETHERTYPE, IPPROTO } from "../../network/checksum.ts";

/** FNV-1a over bytes `from` to `to`. */
function mix(hash: number, bytes: Uint8Array, from: number, to: number): number {
  for (let i = from; i < to; i++) hash = Math.imul(hash ^ bytes[i]!, 0x01000193);
  return hash;
}

/**
 * A number from addresses, and ports where every packet of the flow shows them (not of fragmented datagrams); from the Ethernet addresses of what is not IP.
 * @returns 0 to 2^32 - 1
 */
export function flowHash(bytes: Uint8Array): number {
  const typeAt = (at: number): number => (bytes[at]! << 8) | bytes[at + 1]!;
  let ip = 14, hash = 0x811c9dc5 | 0;
  if (bytes.length >= 18 && typeAt(12) === ETHERTYPE.vlan) ip = 18;
  const type = bytes.length >= ip ? typeAt(ip - 2) : 0;
  let ports = 0;
  if (type === ETHERTYPE.ipv4 && bytes.length >= ip + 20) {
    hash = mix(hash, bytes, ip + 12, ip + 20);
    const protocol = bytes[ip + 9]!, isFragment = (typeAt(ip + 6) & 0x3fff) !== 0;  // offset, or more fragments
    if (!isFragment && (protocol === IPPROTO.tcp || protocol === IPPROTO.udp)) ports = ip + (bytes[ip]! & 15) * 4;
  } else if (type === ETHERTYPE.ipv6 && bytes.length >= ip + 40) {
    hash = mix(hash, bytes, ip + 8, ip + 40);
    if (bytes[ip + 6] === IPPROTO.tcp || bytes[ip + 6] === IPPROTO.udp) ports = ip + 40;
  } else hash = mix(hash, bytes, 0, Math.min(12, bytes.length));
  if (ports !== 0 && bytes.length >= ports + 4) hash = mix(hash, bytes, ports, ports + 4);
  hash = Math.imul(hash ^ (hash >>> 16), 0x45d9f3b);  // FNV's low bits alone know little of the last bytes
  return (hash ^ (hash >>> 16)) >>> 0;
}
