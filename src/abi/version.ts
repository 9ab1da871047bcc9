/** public/version.h */
import { bytes, struct, u32, u64 } from "../base/struct.ts";

export const XENVER = {
  version: 0, extraversion: 1, compile_info: 2, capabilities: 3, changeset: 4, platform_parameters: 5, get_features: 6, pagesize: 7,
  guest_handle: 8, commandline: 9, build_id: 10,
} as const;
/** Fixed sizes of the strings copied out, with their zero. */
export const XEN_EXTRAVERSION_LEN = 16, XEN_CAPABILITIES_INFO_LEN = 1024, XEN_CHANGESET_INFO_LEN = 64, XEN_COMMANDLINE_LEN = 1024, XEN_GUEST_HANDLE_LEN = 16;
export const XenCompileInfo = struct(144, { compiler: bytes(0, 64), compile_by: bytes(64, 16), compile_domain: bytes(80, 32), compile_date: bytes(112, 32) });
export const XenPlatformParameters = struct(8, { virt_start: u64(0) });
/** submap_idx [GST]; submap [XEN]: a bit a feature, XENFEAT. */
export const XenFeatureInfo = struct(8, { submap_idx: u32(0), submap: u32(4) });
/** len [GST]: room for the bytes that follow. */
export const XenBuildId = struct(4, { len: u32(0) });
