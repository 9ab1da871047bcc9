/**
 * VLANs of a bridge's ports, IEEE 802.1Q: which VLAN a frame belongs to when it comes in, and in which form it leaves. VLAN 0 stands for the network of the ports that
 * name no VLAN. Frames are kept as they came; a form that a port needs is made when the first port needs it.
 */
import { UserError } from "../base/errors.ts";
import { ETHERTYPE } from "./checksum.ts";
import { suited } from "./offload.ts";
import type { Frame, Port } from "./port.ts";

/**
 * What a port carries. `access`: untagged frames, all of them in that VLAN; who sends tags is not heard. `trunk`: tagged frames of these VLANs (1 to 4094), and untagged
 * ones of VLAN `native` if there is one.
 */
export type VlanOptions = { readonly access: number } | { readonly trunk: readonly number[] | "all"; readonly native?: number };

/** Bits of the tag's second half: priority and drop eligibility, VLAN identifier - 802.1Q 9.6. */
const TCI = { priority: 0xf000, vid: 0x0fff } as const;
const VID_MAX = 4094;
/** Types that some switch takes for a tag: 802.1Q, 802.1ad, and what stood for the latter before. */
const isTagType = (type: number): boolean => type === ETHERTYPE.vlan || type === ETHERTYPE.serviceVlan || type === 0x9100 || type === 0x9200;

/** "5,7-9" */
const rangesOf = (vids: ReadonlySet<number>): string => [...vids].sort((a, b) => a - b).reduce<[number, number][]>((ranges, vid) => {
  const last = ranges.at(-1);
  if (last && last[1] === vid - 1) last[1] = vid;
  else ranges.push([vid, vid]);
  return ranges;
}, []).map(([from, to]) => (from === to ? `${from}` : `${from}-${to}`)).join(",");

/** The VLAN of a frame that came in. */
export type Tagging = {
  readonly vid: number;
  /** the tag's priority bits; 0 without one */
  readonly priority: number;
  readonly isTagged: boolean;
  /** behind the outer tag stands another one: it must never become the outer one */
  readonly isDouble: boolean;
  /** of the Ethernet type behind the outer tag */
  readonly typeAt: number;
};

/** One port's membership. */
export class VlanMember {
  /** VLAN of untagged frames, null: none are taken */
  readonly untagged: number | null;
  readonly #trunk: ReadonlySet<number> | "all" | null;
  /** for listings: "", "access 7", "trunk 1,7 native 0" */
  readonly text: string;

  /** @throws UserError for an identifier that is none; `name` is the port's */
  constructor(options: VlanOptions, name: string) {
    const check = (vid: number, least: number): number => {
      if (!Number.isInteger(vid) || vid < least || vid > VID_MAX) throw new UserError(`Port ${name}: VLAN ${vid} is not in ${least} to ${VID_MAX}`);
      return vid;
    };
    if ("access" in options) {
      this.untagged = check(options.access, 0);
      this.#trunk = null;
      this.text = options.access === 0 ? "" : `access ${options.access}`;
      return;
    }
    this.untagged = options.native === undefined ? null : check(options.native, 0);
    this.#trunk = options.trunk === "all" ? "all" : new Set(options.trunk.map((vid) => check(vid, 1)));
    this.text = `trunk ${this.#trunk === "all" ? "all" : rangesOf(this.#trunk)}${options.native === undefined ? "" : ` native ${options.native}`}`;
  }
  /** How frames of a VLAN leave: null when the port has no part in it. */
  leaves(vid: number): "tagged" | "untagged" | null {
    if (vid === this.untagged) return "untagged";
    return vid !== 0 && (this.#trunk === "all" || this.#trunk?.has(vid)) ? "tagged" : null;
  }
  /** Place a frame of at least 14 bytes that came in here. @returns null when it is not for this port to send */
  classify(bytes: Uint8Array): Tagging | null {
    const type = (bytes[12]! << 8) | bytes[13]!;
    if (type !== ETHERTYPE.vlan) {
      if (this.untagged === null || isTagType(type)) return null;
      return { vid: this.untagged, priority: 0, isTagged: false, isDouble: false, typeAt: 12 };
    }
    if (bytes.length < 18) return null;
    const tci = (bytes[14]! << 8) | bytes[15]!, vid = tci & TCI.vid, isDouble = isTagType((bytes[16]! << 8) | bytes[17]!);
    const found = (vid: number): Tagging => ({ vid, priority: tci & TCI.priority, isTagged: true, isDouble, typeAt: 16 });
    // Identifier 0 says a priority and no VLAN. The tag goes off here, so what is behind it must not be a tag.
    if (vid === 0) return this.untagged === null || isDouble ? null : found(this.untagged);
    return vid <= VID_MAX && (this.#trunk === "all" || this.#trunk?.has(vid)) ? found(vid) : null;
  }
}

/** A frame on its way through the bridge, in the forms in which it leaves. */
export class Outgoing {
  readonly #frame: Frame;
  readonly #tagging: Tagging;
  /** by tagged 4, gso 2, blank checksum 1 */
  readonly #forms: (readonly Frame[] | undefined)[] = [];
  constructor(frame: Frame, tagging: Tagging) {
    this.#frame = frame;
    this.#tagging = tagging;
  }
  /** What to send to `peer`, in order; none when it must not leave so: a tag would come to light, or the frame cannot be cut. */
  for(peer: Pick<Port, "takesGso" | "takesBlankChecksum">, how: "tagged" | "untagged"): readonly Frame[] {
    if (how === "untagged" && this.#tagging.isDouble) return [];
    const key = (how === "tagged" ? 4 : 0) | (peer.takesGso ? 2 : 0) | (peer.takesBlankChecksum ? 1 : 0);
    return (this.#forms[key] ??= suited(how === "tagged" ? this.#tagged() : this.#untagged(), peer));
  }
  #untagged(): Frame {
    if (!this.#tagging.isTagged) return this.#frame;
    const { bytes } = this.#frame, out = new Uint8Array(bytes.length - 4);
    out.set(bytes.subarray(0, 12));
    out.set(bytes.subarray(16), 12);
    return { ...this.#frame, bytes: out };
  }
  #tagged(): Frame {
    const { bytes } = this.#frame, { vid, priority, isTagged } = this.#tagging, tci = priority | vid;
    if (isTagged && ((bytes[14]! << 8) | bytes[15]!) === tci) return this.#frame;
    const out = new Uint8Array(bytes.length + (isTagged ? 0 : 4));
    out.set(bytes.subarray(0, 12));
    out.set([ETHERTYPE.vlan >>> 8, ETHERTYPE.vlan & 0xff, tci >>> 8, tci & 0xff], 12);
    out.set(bytes.subarray(isTagged ? 16 : 12), 16);
    return { ...this.#frame, bytes: out };
  }
}
