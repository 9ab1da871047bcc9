/** Tells a compression by its first bytes and undoes it. */
import { bunzip2 } from "./bzip2.ts";
import { gunzip } from "./gzip.ts";
import { unlz4 } from "./lz4.ts";
import { unlzma } from "./lzma.ts";
import { unlzop } from "./lzop.ts";
import type { Options } from "./output.ts";
import { unxz } from "./xz.ts";
import { unzstd } from "./zstd.ts";

/** What we can undo; the names are for messages. */
export type Compression = "gzip" | "bzip2" | "LZMA" | "XZ" | "LZO" | "LZ4" | "zstd";

/** First bytes; Linux tells its payload by the same ones (lib/decompress.c). */
const MAGIC: readonly (readonly [Compression, readonly number[]])[] = [
  ["gzip", [0x1f, 0x8b]], ["bzip2", [0x42, 0x5a, 0x68]], ["LZMA", [0x5d, 0, 0]], ["XZ", [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0]],
  ["LZO", [0x89, 0x4c, 0x5a, 0x4f]], ["LZ4", [0x02, 0x21, 0x4c, 0x18]], ["zstd", [0x28, 0xb5, 0x2f, 0xfd]],
];
const DECOMPRESSORS: Readonly<Record<Compression, (input: Uint8Array, options?: Options) => Uint8Array>> = {
  gzip: gunzip, bzip2: bunzip2, LZMA: unlzma, XZ: unxz, LZO: unlzop, LZ4: unlz4, zstd: unzstd,
};

/** Tell the compression of some data, if it is one of ours. */
export const compressionOf = (input: Uint8Array): Compression | undefined => MAGIC.find(([, magic]) => magic.every((b, i) => input[i] === b))?.[0];

/** @throws UserError when the data are damaged or unpack to more than the limit */
export const decompress = (compression: Compression, input: Uint8Array, options?: Options): Uint8Array => DECOMPRESSORS[compression](input, options);
