/** public/io/netif.h: the network device's rings. The control ring (hashes, static grants) is left out. All of it lies in guest memory: copy first, then check. */
import { bytes, struct, u16, u32, u8 } from "../../base/struct.ts";

/** In the first slot of a frame `size` is the whole frame's, in the others their own. `flags` are NETTXF. */
export const NetifTxRequest = struct(12, { gref: u32(0), offset: u16(4), flags: u16(6), id: u16(8), size: u16(10) });
/** `status` is an int16_t, NETIF_RSP: write it as it is, sign it when read. */
export const NetifTxResponse = struct(4, { id: u16(0), status: u16(2) });
/** A page to receive into, all of it. */
export const NetifRxRequest = struct(8, { id: u16(0), pad: u16(2), gref: u32(4) });
/** `status` is an int16_t: bytes in this slot, or NETIF_RSP. `flags` are NETRXF. It stands in the slot of its request. */
export const NetifRxResponse = struct(8, { id: u16(0), offset: u16(2), flags: u16(4), status: u16(6) });
/** In a slot of either ring, after a frame's first; of type GSO. */
export const NetifExtraInfo = struct(8, { type: u8(0), flags: u8(1), gso_size: u16(2), gso_type: u8(4), gso_pad: u8(5), gso_features: u16(6) });
/** ... of type MCAST_ADD or MCAST_DEL. */
export const NetifExtraInfoMcast = struct(8, { type: u8(0), flags: u8(1), addr: bytes(2, 6) });
/** ... of type HASH. */
export const NetifExtraInfoHash = struct(8, { type: u8(0), flags: u8(1), hash_type: u8(2), algorithm: u8(3), value: bytes(4, 4) });

/** bits of NetifTxRequest.flags; checksum and extra_info count in a frame's first slot only */
export const NETTXF = { csum_blank: 1, data_validated: 2, more_data: 4, extra_info: 8 } as const;
/** bits of NetifRxResponse.flags; the same two are the other way round here */
export const NETRXF = { data_validated: 1, csum_blank: 2, more_data: 4, extra_info: 8, gso_prefix: 16 } as const;
/** NetifExtraInfo.type; NONE and from MAX on are invalid */
export const XEN_NETIF_EXTRA_TYPE = { NONE: 0, GSO: 1, MCAST_ADD: 2, MCAST_DEL: 3, HASH: 4, MAX: 5 } as const;
/** The bit that says another extra info follows. */
export const XEN_NETIF_EXTRA_FLAG_MORE = 1;
/** NetifExtraInfo.gso_type */
export const XEN_NETIF_GSO_TYPE = { NONE: 0, TCPV4: 1, TCPV6: 2 } as const;
/** `status` of a response; NULL answers an extra info in the transmit ring */
export const NETIF_RSP = { DROPPED: -2, ERROR: -1, OKAY: 0, NULL: 1 } as const;
/** Slots of one frame that every back end takes. */
export const XEN_NETIF_NR_SLOTS_MIN = 18;
/** The largest `size` there is, in bytes. */
export const XEN_NETIF_MAX_TX_SIZE = 0xffff;
/** Slot size of the transmit ring, the larger of request and response. */
export const NETIF_TX_SLOT_BYTES = NetifTxRequest.sizeof;
/** Slot size of the receive ring. */
export const NETIF_RX_SLOT_BYTES = NetifRxResponse.sizeof;
