/** public/io/xs_wire.h: xenstore's packets and its ring page. */
import { bytes, struct, u32 } from "../../base/struct.ts";

/** xsd_sockmsg.type. */
export const XS = {
  CONTROL: 0, DIRECTORY: 1, READ: 2, GET_PERMS: 3, WATCH: 4, UNWATCH: 5, TRANSACTION_START: 6, TRANSACTION_END: 7, INTRODUCE: 8,
  RELEASE: 9, GET_DOMAIN_PATH: 10, WRITE: 11, MKDIR: 12, RM: 13, SET_PERMS: 14, WATCH_EVENT: 15, ERROR: 16, IS_DOMAIN_INTRODUCED: 17,
  RESUME: 18, SET_TARGET: 19, RESET_WATCHES: 21, DIRECTORY_PART: 22,
} as const;
export const XS_TYPE_COUNT = 23, XS_INVALID = 0xffff;
/** len: bytes of payload that follow. */
export const XsdSockmsg = struct(16, { type: u32(0), req_id: u32(4), tx_id: u32(8), len: u32(12) });
/** Errors travel as these words; a client that meets another word takes it for EINVAL. */
export const XSD_ERRORS = [
  "EINVAL", "EACCES", "EEXIST", "EISDIR", "ENOENT", "ENOMEM", "ENOSPC", "EIO", "ENOTEMPTY", "ENOSYS", "EROFS", "EBUSY", "EAGAIN",
  "EISCONN", "E2BIG", "EPERM",
] as const;
export type XsdError = (typeof XSD_ERRORS)[number];

export const XENSTORE_RING_SIZE = 1024;
/** Longest payload, with all its zeros; longest path from the root, and relative one. */
export const XENSTORE_PAYLOAD_MAX = 4096, XENSTORE_ABS_PATH_MAX = 3072, XENSTORE_REL_PATH_MAX = 2048;
/** req_prod and rsp_cons are the guest's, req_cons and rsp_prod the server's. Indexes run free; a byte is index & 1023. `Atomics` only. */
export const XenstoreDomainInterface = struct(2076, {
  req: bytes(0, 1024), rsp: bytes(1024, 1024), req_cons: u32(2048), req_prod: u32(2052), rsp_cons: u32(2056), rsp_prod: u32(2060),
  /** XENSTORE_SERVER_FEATURE [server] */
  server_features: u32(2064),
  /** XENSTORE_CONNECTED, or _RECONNECT from the guest's asking to the server's answer */
  connection: u32(2068),
  /** XENSTORE_ERROR [server] */
  error: u32(2072),
});
export const XENSTORE_SERVER_FEATURE = { RECONNECTION: 1, ERROR: 2 } as const;
export const XENSTORE_CONNECTED = 0, XENSTORE_RECONNECT = 1;
export const XENSTORE_ERROR = { NONE: 0, COMM: 1, RINGIDX: 2, PROTO: 3 } as const;
