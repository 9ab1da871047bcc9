/**
 * Opens and makes disks by path and format; a new format is one row in each table. The format is always said, never guessed: a guest writes whatever it
 * likes into a raw disk, also the head of another format.
 */
import { type ByteFile, type Disk, DiskError, type FileStore } from "./disk.ts";
import { createQcow2, type CreateQcow2Options } from "./qcow2/create.ts";
import { openQcow2 } from "./qcow2/qcow2.ts";
import type { Unzstd } from "./qcow2/compressed.ts";
import { RawDisk } from "./raw.ts";
import { createVhd, openVhd } from "./vhd/vhd.ts";

/** What to open, and how. */
export type OpenDiskOptions = {
  readonly path: string;
  /** one of `diskFormats()` */
  readonly format: string;
  readonly store: FileStore;
  readonly isReadonly?: boolean;
  /** the file whose folder a relative path is taken from, for a backing file */
  readonly from?: string;
  /** an internal snapshot to read instead of the disk as it is */
  readonly snapshot?: string;
  /** for images compressed with zstd */
  readonly unzstd?: Unzstd;
};
/** What a format needs to open an image. The file is the format's, also when it fails. */
export type FormatOpener = (file: ByteFile, options: OpenDiskOptions & { readonly openBacking: (path: string, format: string | null) => Promise<Disk> }) => Promise<Disk>;

/** A format of another file's: one row here, one in CREATORS when it can be made. */
const FORMATS: Record<string, FormatOpener> = {
  raw: async (file, { isReadonly }) => new RawDisk(file, isReadonly ?? false),
  qcow2: (file, options) => openQcow2(file, options),
  vhd: (file, { isReadonly }) => openVhd(file, { readonly: isReadonly ?? false }),
};
/** What a new image is to be. Other fields are for the formats that know them. */
export type CreateDiskOptions = CreateQcow2Options & { readonly format: string };
const CREATORS: Record<string, (file: ByteFile, options: CreateDiskOptions) => Promise<void>> = {
  raw: async (file, { sizeBytes, backing }) => {
    if (backing) throw new DiskError("unsupported", `${file.name}: a raw image has no backing file`);
    await file.truncate(sizeBytes);
  },
  qcow2: (file, options) => createQcow2(file, options),
  vhd: async (file, { sizeBytes, backing }) => {
    if (backing) throw new DiskError("unsupported", `${file.name}: a VHD image with a backing file cannot be made`);
    await createVhd(file, { sizeBytes, kind: "dynamic" });
  },
};
/** Images that back one another, at most. */
const MAX_CHAIN = 64;

/** All names that `openDisk` takes for a format. */
export const diskFormats = (): string[] => Object.keys(FORMATS);

/** All names that `createDisk` takes for a format. */
export const creatableFormats = (): string[] => Object.keys(CREATORS);

/** Write an empty image, which reads as zeros or as its backing file, into an empty file. The file stays open. @throws DiskError */
export async function createDisk(file: ByteFile, options: CreateDiskOptions): Promise<void> {
  const create = Object.hasOwn(CREATORS, options.format) ? CREATORS[options.format] : undefined;
  if (!create) throw new DiskError("unsupported", `${file.name}: images of format "${options.format}" cannot be made; ${creatableFormats().join(", ")} can`);
  await create(file, options);
}

/** Open a disk and all that backs it. Backing files are opened for reading. @throws DiskError */
export function openDisk(options: OpenDiskOptions): Promise<Disk> {
  return openChain(options, []);
}
async function openChain(options: OpenDiskOptions, above: readonly string[]): Promise<Disk> {
  const { path, format, store, from, isReadonly = false } = options, open = Object.hasOwn(FORMATS, format) ? FORMATS[format] : undefined;
  if (!open) throw new DiskError("unsupported", `${path}: format "${format}" is none of ${diskFormats().join(", ")}`);
  const file = await store.open(path, isReadonly || options.snapshot !== undefined ? "read" : "write", from);
  if (above.includes(file.name) || above.length >= MAX_CHAIN) {
    await file.close();
    const isCircle = above.includes(file.name);
    throw new DiskError("corrupt", isCircle ? `${file.name} is its own backing file (${[...above, file.name].slice(-4).join(" -> ")})` : `${above[0]} has more than ${MAX_CHAIN} backing files`);
  }
  return open(file, {
    ...options,
    openBacking: (backingPath, backingFormat) => {
      if (backingFormat === null) {
        const remedy = `qemu-img rebase -u -b ${backingPath} -F FORMAT ${file.name}`;
        throw new DiskError("unsupported", `${file.name} does not say what format its backing file ${backingPath} has; write it down with: ${remedy}`);
      }
      const { snapshot: _, ...rest } = options;
      return openChain({ ...rest, path: backingPath, format: backingFormat, isReadonly: true, from: file.name }, [...above, file.name]);
    },
  });
}
