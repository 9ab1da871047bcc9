/**
 * Kernel files: a Linux bzImage, an ELF file, or either of them compressed. All end as an ELF image.
 * @see Linux's Documentation/x86/boot.rst (the boot protocol, version 2.08 and later)
 */
import { UserError } from "../base/errors.ts";
import { struct, u16, u32, u8 } from "../base/struct.ts";
import { type Compression, compressionOf, decompress } from "./decompress/decompress.ts";
import type { MakePlace } from "./decompress/output.ts";
import { type ElfImage, isElf, parseElf } from "./elf.ts";

/** struct setup_header's fields that matter here, by their offset in the file. */
const SetupHeader = struct(0x250, {
  setup_sects: u8(0x1f1), boot_flag: u16(0x1fe), header: u32(0x202), version: u16(0x206), kernel_version: u16(0x20e),
  payload_offset: u32(0x248), payload_length: u32(0x24c),
});
const BOOT_FLAG = 0xaa55, HDRS = 0x53726448, PAYLOAD_SINCE = 0x208;

/** A kernel file, read. */
export type Kernel = {
  readonly image: ElfImage;
  /** "ELF" or "bzImage", and how it was packed */
  readonly format: "ELF" | "bzImage";
  readonly compression?: Compression;
  /** a bzImage's version text, such as "6.1.0-56-cloud-amd64 (...) #1 SMP ..." */
  readonly version?: string;
  /** memory that the file was unpacked into, where it was packed; unless it is the reader's own (`place`), it is the reader's to give back (ArrayBuffer.transfer) when nothing of `image` is needed any more */
  readonly unpacked?: ArrayBufferLike;
};

/** @param name what messages call the file @param place for what a bzImage unpacks to */
export function readKernel(file: Uint8Array, name: string, place?: MakePlace): Kernel {
  if (isElf(file)) return { image: parseElf(file, name), format: "ELF" };
  if (isBzImage(file)) return readBzImage(file, name, place);
  const compression = compressionOf(file);
  if (compression === undefined) throw new UserError(`${name}: ${guess(file)}; give a Linux bzImage (vmlinuz) or an ELF kernel`);
  const inner = decompress(compression, file, { name });
  if (isElf(inner)) return { image: parseElf(inner, name), format: "ELF", compression, unpacked: inner.buffer };
  if (isBzImage(inner)) return readBzImage(inner, name, place);
  throw new UserError(`${name}: ${compression} data without a kernel in them (${guess(inner)}); give a Linux bzImage (vmlinuz) or an ELF kernel`);
}

const viewOf = (file: Uint8Array): DataView => new DataView(file.buffer, file.byteOffset, file.length);

function isBzImage(file: Uint8Array): boolean {
  if (file.length < SetupHeader.sizeof) return false;
  const view = viewOf(file);
  return SetupHeader.boot_flag.get(view, 0) === BOOT_FLAG && SetupHeader.header.get(view, 0) === HDRS;
}

function readBzImage(file: Uint8Array, name: string, place?: MakePlace): Kernel {
  const view = viewOf(file), version = SetupHeader.version.get(view, 0);
  if (version < PAYLOAD_SINCE)
    throw new UserError(`${name}: boot protocol ${version >> 8}.${(version & 255).toString().padStart(2, "0")}; PVH needs 2.08 (Linux 2.6.24) or later, or the kernel as ELF (vmlinux)`);
  const payloadAt = ((SetupHeader.setup_sects.get(view, 0) || 4) + 1) * 512 + SetupHeader.payload_offset.get(view, 0), n = SetupHeader.payload_length.get(view, 0);
  if (n < 16 || payloadAt + n > file.length)
    throw new UserError(`${name}: the bzImage is truncated or damaged: its payload of ${n} bytes at ${payloadAt} reaches past its end (${file.length}); fetch or build the file again`);
  const payload = file.subarray(payloadAt, payloadAt + n), text = versionText(file, view), about = { format: "bzImage", ...(text ? { version: text } : {}) } as const;
  if (isElf(payload)) return { image: parseElf(payload, name), ...about };
  const compression = compressionOf(payload);
  if (compression === undefined)
    throw new UserError(`${name}: a payload that begins with ${hex(payload.subarray(0, 6))}, which is no compression known here; rebuild the kernel with gzip, bzip2, LZMA, XZ, LZO, LZ4 or zstd`);
  // Linux's build puts the size of the result behind the data; gzip has it there by itself
  const size = new DataView(payload.buffer, payload.byteOffset + n - 4).getUint32(0, true);
  const vmlinux = decompress(compression, compression === "gzip" ? payload : payload.subarray(0, n - 4), { name, sizeHint: size, ...(compression === "LZ4" ? { place } : {}) });
  if (vmlinux.length !== size) throw new UserError(`${name}: the payload is damaged: it unpacks to ${vmlinux.length} bytes instead of ${size}; fetch or build the file again`);
  if (!isElf(vmlinux)) throw new UserError(`${name}: the payload is not an ELF file (${guess(vmlinux)}); give a stock kernel`);
  return { image: parseElf(vmlinux, name), compression, ...about, unpacked: vmlinux.buffer };
}

function versionText(file: Uint8Array, view: DataView): string | undefined {
  const at = SetupHeader.kernel_version.get(view, 0) + 0x200;
  if (at === 0x200 || at >= file.length) return undefined;
  const end = file.subarray(at, at + 256).indexOf(0);
  return end <= 0 ? undefined : new TextDecoder("latin1").decode(file.subarray(at, at + end));
}

const hex = (b: Uint8Array): string => Array.from(b, (x) => x.toString(16).padStart(2, "0")).join(" ");

/** What a file that is no kernel looks like. */
function guess(file: Uint8Array): string {
  const starts = (text: string): boolean => [...text].every((c, i) => file[i] === c.charCodeAt(0));
  if (file.length === 0) return "an empty file";
  if (starts("070701") || starts("070702")) return "a cpio archive (an initramfs?)";
  if (starts("!<arch>\n")) return "an ar archive (a Debian package?)";
  if (file[0] === 0x27 && file[1] === 5 && file[2] === 0x19 && file[3] === 0x56) return "a U-Boot image";
  if (file[56] === 0x41 && file[57] === 0x52 && file[58] === 0x4d && file[59] === 0x64) return "a kernel for AArch64";
  if (starts("MZ")) return "a PE file without Linux's boot protocol";
  if (starts("#!")) return "a script";
  if (file.length < SetupHeader.sizeof) return `a file of ${file.length} bytes, too short for a kernel`;
  return `neither an ELF file nor a bzImage (it begins with ${hex(file.subarray(0, 8))})`;
}
