/**
 * A cable: two ends, Ethernet frames both ways, and a word when a full end has room again. Bridge, router, tap, tunnel and the net back end are each an end.
 */

/** Segmentation that the sender left to whoever comes after: the frame is one TCP packet that is cut into segments of `mss` payload bytes. */
export type Gso = { readonly type: "tcpv4" | "tcpv6"; readonly mss: number };

/**
 * An Ethernet frame, without FCS. Nobody changes `bytes` once it was sent: it may be in several queues; who must change it copies it. `bytes` is not shared memory.
 * Up to 1514 bytes (1518 with a VLAN tag) times the MTU in force, and up to 64 KiB where `gso` is set.
 */
export type Frame = {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /**
   * Of the TCP or UDP checksum. `unknown`: as on a wire, perhaps wrong. `blank`: only the pseudo header's sum is in the field, to be completed before it leaves
   * for a real wire (`completed` in checksum.ts); the content is known to be whole. `good`: known to be right.
   */
  readonly checksum: "unknown" | "blank" | "good";
  /** null: an ordinary frame. With gso, `checksum` is `blank`. */
  readonly gso: Gso | null;
};

/** One end of a cable. To send, call `port.peer?.receive(frame)`. */
export interface Port {
  /** for logs and captures: "vif3.0", "nat", "xenbr0" */
  readonly name: string;
  /** what this end takes from its peer without harm; a sender that meets `false` cuts segments or completes checksums itself (offload.ts) */
  readonly takesGso: boolean;
  readonly takesBlankChecksum: boolean;
  /**
   * Take a frame from the peer. @returns false when there is no room: the frame was not taken, and `ready` is called on the sender's port when there is.
   * Who gets false may wait and send the same frame again, or drop it. Never throws for what the frame holds.
   */
  receive(frame: Frame): boolean;
  /** The peer has room again after it returned false. */
  ready(): void;
  /** the other end, set by `connect`; null: no cable, what is sent is lost */
  peer: Port | null;
}

/** Plug a cable in. */
export function connect(a: Port, b: Port): void {
  if (a.peer || b.peer) throw new Error(`Port ${a.peer ? a.name : b.name} has a cable already`);
  a.peer = b;
  b.peer = a;
}
/** Pull it out; safe where there is none. */
export function disconnect(a: Port): void {
  const b = a.peer;
  a.peer = null;
  if (b) { b.peer = null; b.ready(); }
}
