/** Calls of the C library that Node has no way to, through the package koffi, which is optional: whoever needs it says so when it is missing. */
import { createRequire } from "node:module";
import { UserError } from "./errors.ts";

/** The part of koffi that is used. Its `poll` is in its types but not in its manual, so package.json holds it to one minor version. */
type Koffi = {
  load(path: null): { func(definition: string): (...args: unknown[]) => number };
  errno(): number;
  readonly node: { poll(fd: number, events: Events, call: PollCall): { start(events: Events, call: PollCall): void; stop(): void; close(): void } };
};
type Events = { readonly readable: boolean; readonly writable: boolean };
type PollCall = (status: number, events: Events) => void;

/** errno.h of Linux, as far as it is asked for. */
export const ERRNO = { EPERM: 1, EAGAIN: 11, EBUSY: 16, ENODEV: 19, EINVAL: 22, ENOSPC: 28, ENOSYS: 38, EBADFD: 77, EOPNOTSUPP: 95 } as const;
/** linux/falloc.h */
export const FALLOC = { KEEP_SIZE: 1, PUNCH_HOLE: 2 } as const;

/** The library. The calls return what they return in C; below zero, `errno` says why when it is called at once. Memory is used during the call only. */
export type Libc = {
  /** @param request as asm-generic/ioctl.h encodes it, which is right for x86, Arm and RISC-V */
  ioctl(fd: number, request: number, argument: Uint8Array): number;
  /** for a request whose argument is a number and no pointer */
  ioctlNumber(fd: number, request: number, argument: number): number;
  read(fd: number, into: Uint8Array, lengthBytes: number): number;
  write(fd: number, from: Uint8Array, lengthBytes: number): number;
  /** Make a hole, for one, by mode FALLOC.PUNCH_HOLE | FALLOC.KEEP_SIZE. fallocate(2) */
  fallocate(fd: number, mode: number, at: number, lengthBytes: number): number;
  /** Put the calling thread, and what it opens and starts from now on, into new namespaces. unshare(2) */
  unshare(flags: number): number;
  /** Put it into the namespace that `fd` stands for. setns(2) */
  setns(fd: number, type: number): number;
  errno(): number;
  /** Watch a descriptor that Node's own streams cannot wait for; nothing is waited for yet. */
  watch(fd: number, happened: (what: Events & { /** the descriptor is in error, and is watched no more */ readonly isBroken: boolean }) => void): FdWatch;
};
/** A watched descriptor. While something is waited for, the process lives. */
export type FdWatch = {
  /** What is waited for from now on. `happened` is called each turn while it is so, not only when it becomes so. */
  wait(events: Events): void;
  /** End it, before the descriptor is closed. */
  close(): void;
};

/**
 * Load it.
 * @param what needs it, the subject of the sentence when it cannot be had
 * @param require whose packages are looked through
 * @throws UserError when this is not Linux or koffi is not installed
 */
export function loadLibc(what: string, require: (name: string) => unknown = createRequire(import.meta.url)): Libc {
  if (process.platform !== "linux") throw new UserError(`${what} is Linux's, and this is ${process.platform}`);
  let koffi: Koffi;
  try {
    koffi = require("koffi") as Koffi;
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code === "MODULE_NOT_FOUND") throw new UserError(`${what} wants the package koffi: npm install koffi`);
    throw new UserError(`${what} wants the package koffi, which does not load here: ${(e as Error).message}`);
  }
  const library = koffi.load(null), c = (definition: string) => library.func(definition) as never;
  return {
    ioctl: c("int ioctl(int fd, unsigned long request, void *argument)"), ioctlNumber: c("int ioctl(int fd, unsigned long request, uintptr_t argument)"),
    read: c("intptr_t read(int fd, void *into, size_t length)"), write: c("intptr_t write(int fd, const void *from, size_t length)"),
    fallocate: c("int fallocate(int fd, int mode, int64_t at, int64_t length)"),
    unshare: c("int unshare(int flags)"), setns: c("int setns(int fd, int type)"),
    errno: () => koffi.errno(),
    watch: (fd, happened) => watch(koffi, fd, happened),
  };
}

function watch(koffi: Koffi, fd: number, happened: Parameters<Libc["watch"]>[1]): FdWatch {
  let isClosed = false, told: ReturnType<typeof setImmediate> | undefined, waited: Events = { readable: false, writable: false };
  // koffi calls from the event loop past Node's own machinery: promises would not go on and errors would be lost. setImmediate leads back, in the same turn.
  const call: PollCall = (status, { readable, writable }) => {
    told ??= setImmediate(() => {
      told = undefined;
      if (!isClosed) happened({ readable, writable, isBroken: status < 0 });
    });
  };
  const handle = koffi.node.poll(fd, { readable: true, writable: false }, call);
  handle.stop();
  return {
    wait: ({ readable, writable }) => {
      if (isClosed || (readable === waited.readable && writable === waited.writable)) return;
      waited = { readable, writable };
      if (readable || writable) handle.start(waited, call);
      else handle.stop();
    },
    close: () => {
      if (isClosed) return;
      isClosed = true;
      clearImmediate(told);
      handle.close();
    },
  };
}
