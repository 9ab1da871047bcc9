/**
 * What lies around libxc's image: xl's header with the domain's configuration, and libxl's stream, version 2.
 * @see tools/xl/xl.h savefileheader; docs/specs/libxl-migration-stream.pandoc
 */
import { struct, u32 } from "../base/struct.ts";
import { type Source, StreamError } from "./stream.ts";

const MAGIC = new TextEncoder().encode("Xen saved domain, xl format\n \0 \r"), BYTE_ORDER = 0x01020304;
const FLAG = { json: 1, streamV2: 2 } as const;
const XlHeader = struct(48, { magic: { at: 0, size: 32 }, byteorder: u32(32), mandatory_flags: u32(36), optional_flags: u32(40), optional_data_len: u32(44) });
/** A configuration is text that people write; libxl's JSON of one is some KiB. */
const CONFIG_BYTES_MAX = 1 << 20;
const IDENT = 0x4c6962786c466d74n /* "LibxlFmt" */, VERSION = 2;
/** Record types of libxl's stream. */
export const LIBXL_REC = { END: 0, LIBXC_CONTEXT: 1, EMULATOR_XENSTORE_DATA: 2, EMULATOR_CONTEXT: 3, CHECKPOINT_END: 4, CHECKPOINT_STATE: 5 } as const;

/** xl's header with a configuration in JSON, libxl's header, and the record after which libxc's image begins. */
export function envelopeStart(configJson: string): Uint8Array {
  const config = new TextEncoder().encode(configJson), bytes = new Uint8Array(XlHeader.sizeof + 4 + config.length + 16 + 8), dv = new DataView(bytes.buffer);
  bytes.set(MAGIC);
  XlHeader.byteorder.set(dv, 0, BYTE_ORDER);
  XlHeader.mandatory_flags.set(dv, 0, FLAG.json | FLAG.streamV2);
  XlHeader.optional_data_len.set(dv, 0, 4 + config.length);
  dv.setUint32(XlHeader.sizeof, config.length, true);
  bytes.set(config, XlHeader.sizeof + 4);
  const at = XlHeader.sizeof + 4 + config.length;
  dv.setBigUint64(at, IDENT);
  dv.setUint32(at + 8, VERSION);
  dv.setUint32(at + 16, LIBXL_REC.LIBXC_CONTEXT, true);
  return bytes;
}
/** What closes libxl's stream after libxc's END. */
export const envelopeEnd = (): Uint8Array => new Uint8Array(8);

/** Read as far as libxc's image. @returns the configuration @throws StreamError */
export async function readEnvelopeStart(from: Source): Promise<string> {
  from.what = "xl's header";
  const header = await from.exactly(XlHeader.sizeof), dv = new DataView(header.buffer), flags = XlHeader.mandatory_flags.get(dv, 0), length = XlHeader.optional_data_len.get(dv, 0);
  if (MAGIC.some((byte, i) => header[i] !== byte)) throw new StreamError("This is no saved domain: it does not begin as xl's files do");
  if (XlHeader.byteorder.get(dv, 0) !== BYTE_ORDER) throw new StreamError("The saved domain comes from a machine of the other byte order, or its header is damaged");
  if (flags & ~(FLAG.json | FLAG.streamV2)) throw new StreamError(`The saved domain needs features 0x${flags.toString(16)} that this version has not`);
  if (!(flags & FLAG.streamV2)) throw new StreamError("The saved domain is of a Xen before 4.6 (Xen's convert-legacy-stream makes a newer one)");
  if (length > CONFIG_BYTES_MAX + 4) throw new StreamError(`xl's header claims ${length} bytes of configuration: it is damaged`);
  from.what = "the configuration";
  const data = await from.exactly(length), configLength = length >= 4 ? new DataView(data.buffer).getUint32(0, true) : 0;
  if (!(flags & FLAG.json) || configLength > length - 4) throw new StreamError(`The saved domain's configuration of ${configLength} bytes is not what its header claims: it is damaged`);
  let config: string;
  try { config = new TextDecoder("utf-8", { fatal: true }).decode(data.subarray(4, 4 + configLength)); } catch { throw new StreamError("The saved domain's configuration is no text: it is damaged"); }
  from.what = "libxl's header";
  const at = from.offset, libxl = new DataView((await from.exactly(16)).buffer), version = libxl.getUint32(8), options = libxl.getUint32(12);
  if (libxl.getBigUint64(0) !== IDENT) throw new StreamError(`libxl's header at byte ${at} is none: the stream is damaged`);
  if (version !== VERSION) throw new StreamError(`The stream has libxl's version ${version}, this Domus takes ${VERSION}`);
  if (options & 1) throw new StreamError("The stream is big-endian, which is not taken");
  await readLibxlRecord(from, LIBXL_REC.LIBXC_CONTEXT);
  return config;
}
/** Read to the end of libxl's stream, behind libxc's image. @throws StreamError */
export const readEnvelopeEnd = (from: Source): Promise<void> => readLibxlRecord(from, LIBXL_REC.END);
async function readLibxlRecord(from: Source, want: number): Promise<void> {
  from.what = "a record of libxl's";
  const at = from.offset, dv = new DataView((await from.exactly(8)).buffer), type = dv.getUint32(0, true), length = dv.getUint32(4, true);
  if (type !== want || length !== 0) throw new StreamError(`libxl's record at byte ${at} has type ${type} and ${length} bytes where ${Object.keys(LIBXL_REC)[want]} is due: ${type === LIBXL_REC.EMULATOR_CONTEXT || type === LIBXL_REC.EMULATOR_XENSTORE_DATA ? "the domain has a device model, which is not built yet" : "the stream is damaged"}`);
}
