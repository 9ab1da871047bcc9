/**
 * A tree of files as the server of a share asks for it: a few calls that say what is to be had, and nothing of how a guest asks. Names are single ones, a character a byte, checked by the
 * caller: not empty, no slash, no NUL, neither "." nor "..".
 */

/** What a file system refuses, by Linux's number for it. */
export class FolderError extends Error {
  override name = "FolderError";
  readonly errno: number;
  constructor(errno: number, options?: ErrorOptions) {
    super(`errno ${errno}`, options);
    this.errno = errno;
  }
}

/** struct stat. `id` is one file's alone in the tree. */
export type Stat = {
  readonly id: bigint; readonly mode: number; readonly uid: number; readonly gid: number; readonly nrLinks: bigint; readonly rdev: bigint; readonly sizeBytes: bigint; readonly nrBlocks: bigint;
  readonly atimeNs: bigint; readonly mtimeNs: bigint; readonly ctimeNs: bigint; readonly birthNs: bigint;
};
/** struct statfs */
export type Space = { readonly blockBytes: number; readonly nrBlocks: bigint; readonly nrFree: bigint; readonly nrAvailable: bigint; readonly nrFiles: bigint; readonly nrFreeFiles: bigint; readonly id: bigint };
/** What is to be changed; a time is "now" where only that was said. */
export type Change = { readonly mode?: number; readonly uid?: number; readonly gid?: number; readonly sizeBytes?: number; readonly atimeNs?: bigint | "now"; readonly mtimeNs?: bigint | "now" };
/** How a file is opened. */
export type Opening = { readonly reads: boolean; readonly writes: boolean; readonly truncates: boolean; readonly appends: boolean; /** each write is on the disk when it is answered: its bytes, or all that is known of the file too */ readonly syncs: "no" | "data" | "all" };
/** Who a new file belongs to, where the host lets that be said. */
export type Owner = { readonly uid: number; readonly gid: number };

/** A file that is open. Calls that are on their way end before it is closed. */
export interface OpenFile {
  /** @returns how many bytes came: less only at the file's end */
  read(at: number, into: Uint8Array): Promise<number>;
  /** @returns how many bytes went */
  write(at: number, from: Uint8Array): Promise<number>;
  close(): void;
}

/**
 * A place in the tree: a file, a folder, a link, something else. It stays the same file wherever it is moved to. Whoever gets one drops it, once; calls that are on their way then end all
 * the same. Every call rejects with a FolderError.
 */
export interface FolderNode {
  readonly kind: "file" | "folder" | "link" | "other";
  /** Hold it once more. @returns itself */
  keep(): this;
  drop(): void;
  stat(file: OpenFile | null): Promise<Stat>;
  /** One step down; "..": up, and at the root nowhere. */
  walk(name: string): Promise<{ readonly node: FolderNode; readonly stat: Stat }>;
  /** Open a file, or see that a folder may be listed. */
  open(how: Opening): Promise<OpenFile>;
  /** Make a file and open it; `isNew`: it must not be there. */
  create(name: string, how: Opening, isNew: boolean, mode: number, owner: Owner): Promise<{ readonly node: FolderNode; readonly file: OpenFile; readonly stat: Stat }>;
  makeFolder(name: string, mode: number, owner: Owner): Promise<Stat>;
  makeLink(name: string, target: string, owner: Owner): Promise<Stat>;
  /** Give a file one more name, in this folder. */
  addName(name: string, of: FolderNode): Promise<void>;
  readLink(): Promise<string>;
  /** Names in a folder, without "." and "..". @param mostBytes of memory for them, NAME_BYTES and its length each; more is refused */
  list(mostBytes: number): Promise<string[]>;
  /** What is known of these; null: it is gone. */
  statAll(names: readonly string[]): Promise<(Stat | null)[]>;
  unlink(name: string, isFolder: boolean): Promise<void>;
  /** Take this file itself away, by the name it was reached by. */
  remove(): Promise<void>;
  rename(name: string, to: FolderNode, newName: string): Promise<void>;
  /** The same of this file itself. */
  move(to: FolderNode, newName: string): Promise<void>;
  change(c: Change, file: OpenFile | null): Promise<void>;
  sync(file: OpenFile | null, dataOnly: boolean): Promise<void>;
  space(): Promise<Space>;
}

/** What a name in a listing costs beside its length. */
export const NAME_BYTES = 32;

/** A tree that is open. */
export interface Folder {
  /** held by the tree itself */
  readonly root: FolderNode;
  close(): Promise<void>;
}
/** Where a tree is; opened anew for each life of a domain. */
export interface FolderSource {
  /** for messages and the store: the host's path */
  readonly path: string;
  /** @throws UserError where it cannot be had */
  open(): Promise<Folder>;
}
