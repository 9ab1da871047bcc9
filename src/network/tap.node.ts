/**
 * A TAP: a network interface of the host's kernel whose cable ends here (Documentation/networking/tuntap.rst, linux/if_tun.h). Offloads pass both ways in a virtio header before
 * each frame. Interfaces are made by whoever may (CAP_NET_ADMIN), or beforehand for a user; a bridge of the host's takes them in as an uplink.
 */
import { spawnSync } from "node:child_process";
import { closeSync, constants, openSync } from "node:fs";
import { userInfo } from "node:os";
import { UserError } from "../base/errors.ts";
import { ERRNO, type FdWatch, type Libc, loadLibc } from "../base/libc.node.ts";
import { suited } from "./offload.ts";
import { disconnect, type Frame, type Port } from "./port.ts";
import { readFrame, VirtioNetHdr, writeHeader } from "./virtio-header.ts";

/** What `openTap` wants. */
export type TapOptions = {
  /** the interface's, up to 15 letters; made if there is none, and then gone when the TAP is closed */
  readonly name: string;
  /** what the interface may carry, without Ethernet's header; as it is if left out */
  readonly mtuBytes?: number;
  /** a bridge of the host's to put the interface into */
  readonly bridge?: string;
  readonly log?: (sentence: string) => void;
};
/** Frames from the kernel (`rx`) and to it (`tx`), bytes without the virtio header. `lost`: what the kernel, we or the peer could not take, such as frames while the interface is down. */
export type TapCounters = { rxFrames: number; rxBytes: number; txFrames: number; txBytes: number; lost: number };

/** linux/if_tun.h, its ioctls encoded as in asm-generic/ioctl.h. */
const TUNSETIFF = 0x4004_54ca, TUNSETOFFLOAD = 0x4004_54d0, TUNSETVNETHDRSZ = 0x4004_54d8, TUNSETVNETLE = 0x4004_54dc;
const IFF = { TAP: 0x0002, NO_PI: 0x1000, VNET_HDR: 0x4000 } as const, TUN_F = { CSUM: 0x01, TSO4: 0x02, TSO6: 0x04 } as const;
/** struct ifreq, linux/if.h: the name of IFNAMSIZ bytes with its zero, flags at 16. */
const IFREQ_BYTES = 40, IFREQ_FLAGS_AT = 16, IFNAMSIZ = 16;
const DEVICE = "/dev/net/tun";
/** 64 KiB of IP behind an Ethernet header and two tags. */
const FRAME_BYTES_MAX = 65535 + 14 + 8;
/** Frames taken from the kernel before others have their turn. */
const FRAMES_A_TURN = 64;

/** Is this a name that an interface of the kernel's may have, and a program's argument? A percent sign, which the kernel would replace, is none of them. */
const isInterfaceName = (name: string): boolean => name.length < IFNAMSIZ && /^[a-z\d_][\w.-]*$/i.test(name);

/**
 * Open a TAP, and set its interface up.
 * @throws UserError without koffi, outside Linux, without the right to it, for a name that cannot be or is in use, for a bridge that is none
 */
export function openTap(options: TapOptions): Tap {
  const { name, mtuBytes, bridge } = options;
  for (const [what, given] of [["interface", name], ["bridge", bridge]] as const) {
    if (given !== undefined && !isInterfaceName(given)) throw new UserError(`"${given}" cannot be the name of an ${what === "bridge" ? "interface that is a bridge" : what}: 1 to ${IFNAMSIZ - 1} letters, digits and "_.-"`);
  }
  const libc = loadLibc("TAP"), fd = openDevice(name);
  try {
    attach(libc, fd, name);
    setUp(name, mtuBytes, bridge);
    return new Tap(libc, fd, options);
  } catch (e) {
    closeSync(fd);
    throw e;
  }
}

const remedy = (name: string): string => `run as root or make the interface first: ip tuntap add dev ${name} mode tap user ${userInfo().username}`;

function openDevice(name: string): number {
  try {
    return openSync(DEVICE, constants.O_RDWR | constants.O_NONBLOCK);
  } catch (e) {
    const { code, message } = e as NodeJS.ErrnoException;
    if (code === "EACCES" || code === "EPERM") throw new UserError(`${DEVICE}: permission denied; ${remedy(name)}`);
    if (code === "ENOENT" || code === "ENODEV" || code === "ENXIO") throw new UserError(`${DEVICE} does not exist; load the kernel's module: modprobe tun`);
    throw new UserError(`${DEVICE} cannot be opened: ${message}`);
  }
}

function attach(libc: Libc, fd: number, name: string): void {
  const ifreq = new Uint8Array(IFREQ_BYTES), int = new Uint8Array(4), view = new DataView(int.buffer);
  ifreq.set(new TextEncoder().encode(name));
  new DataView(ifreq.buffer).setUint16(IFREQ_FLAGS_AT, IFF.TAP | IFF.NO_PI | IFF.VNET_HDR, true);
  if (libc.ioctl(fd, TUNSETIFF, ifreq) < 0) {
    const errno = libc.errno();
    if (errno === ERRNO.EPERM) throw new UserError(`${DEVICE}: permission denied for ${name}; ${remedy(name)}`);
    if (errno === ERRNO.EBUSY) throw new UserError(`Interface ${name} is in use by another program`);
    if (errno === ERRNO.EINVAL) throw new UserError(`Interface ${name} is no TAP of one queue: another kind of interface has that name`);
    throw new UserError(`Interface ${name} cannot be made a TAP: error ${errno} of TUNSETIFF`);
  }
  const set = (what: string, result: number): void => { if (result < 0) throw new UserError(`Interface ${name} does not do offloads: error ${libc.errno()} of ${what}`); };
  view.setInt32(0, VirtioNetHdr.sizeof, true);
  set("TUNSETVNETHDRSZ", libc.ioctl(fd, TUNSETVNETHDRSZ, int));
  view.setInt32(0, 1, true);
  set("TUNSETVNETLE", libc.ioctl(fd, TUNSETVNETLE, int));
  set("TUNSETOFFLOAD", libc.ioctlNumber(fd, TUNSETOFFLOAD, TUN_F.CSUM | TUN_F.TSO4 | TUN_F.TSO6));
}

/** Runs `ip` and waits for it, some milliseconds. */
function ip(args: readonly string[], fault: string): string {
  const { error, status, stdout, stderr } = spawnSync("ip", args, { encoding: "utf8" });
  if (error) throw new UserError((error as NodeJS.ErrnoException).code === "ENOENT" ? "TAP wants the program ip: install the package iproute2" : `${fault}: ip cannot be run: ${error.message}`);
  if (status !== 0) throw new UserError(`${fault}: ip says: ${stderr.trim().split("\n")[0]}`);
  return stdout;
}
/** What is right already is left alone: an interface made for a user may be used, and not changed, by him. */
function setUp(name: string, mtuBytes: number | undefined, bridge: string | undefined): void {
  const [is] = JSON.parse(ip(["-json", "link", "show", "dev", name], `Interface ${name} cannot be looked at`)) as [{ flags: string[]; mtu: number; master?: string }];
  if (bridge !== undefined && is.master !== bridge) ip(["link", "set", "dev", name, "master", bridge], `Interface ${name} cannot be put into bridge ${bridge}`);
  if (mtuBytes !== undefined && is.mtu !== mtuBytes) ip(["link", "set", "dev", name, "mtu", `${mtuBytes}`], `Interface ${name} cannot have an MTU of ${mtuBytes}`);
  if (!is.flags.includes("UP")) ip(["link", "set", "dev", name, "up"], `Interface ${name} cannot be set up`);
}

/** One end of the cable; the other is the kernel's interface. */
export class Tap implements Port {
  readonly name: string;
  readonly takesGso = true;
  readonly takesBlankChecksum = true;
  peer: Port | null = null;
  readonly counters: TapCounters = { rxFrames: 0, rxBytes: 0, txFrames: 0, txBytes: 0, lost: 0 };
  readonly #libc: Libc;
  /** -1: closed, or the interface is gone */
  #fd: number;
  readonly #watch: FdWatch;
  readonly #log: (sentence: string) => void;
  readonly #in = new Uint8Array(VirtioNetHdr.sizeof + FRAME_BYTES_MAX + 1);
  readonly #out = new Uint8Array(VirtioNetHdr.sizeof + FRAME_BYTES_MAX);
  readonly #outView = new DataView(this.#out.buffer);
  /** the peer has no room for these; meanwhile the kernel keeps what comes, and drops what is too much for its queue */
  readonly #held: Frame[] = [];
  #hasRefused = false;

  /** Made by `openTap`. */
  constructor(libc: Libc, fd: number, options: TapOptions) {
    this.name = options.name;
    this.#libc = libc;
    this.#fd = fd;
    this.#log = options.log ?? (() => {});
    this.#watch = libc.watch(fd, ({ readable, writable, isBroken }) => {
      if (isBroken) this.#lose();
      if (writable) this.#tellRoom();
      if (readable && this.#held.length === 0) this.#read();
      this.#wait();
    });
    this.#wait();
  }
  get isOpen(): boolean { return this.#fd >= 0; }
  #wait(): void { this.#watch.wait({ readable: this.#held.length === 0, writable: this.#hasRefused }); }

  #read(): void {
    for (let nr = 0; nr < FRAMES_A_TURN && this.#held.length === 0 && this.#fd >= 0; nr++) {
      const lengthBytes = this.#libc.read(this.#fd, this.#in, this.#in.length);
      if (lengthBytes < 0) {
        if (this.#libc.errno() === ERRNO.EBADFD) this.#lose();
        return;
      }
      const frame = lengthBytes < this.#in.length ? readFrame(this.#in.slice(0, lengthBytes)) : null;
      if (!frame) {
        this.counters.lost++;
        continue;
      }
      this.counters.rxFrames++;
      this.counters.rxBytes += frame.bytes.length;
      if (!this.peer) continue;
      this.#held.push(...suited(frame, this.peer));
      if (this.#held.length === 0) this.counters.lost++;
      this.#give();
    }
  }
  #give(): void {
    for (let frame = this.#held.shift(); frame; frame = this.#held.shift()) {
      if (this.peer && !this.peer.receive(frame)) {
        this.#held.unshift(frame);
        return;
      }
    }
  }
  ready(): void {
    this.#give();
    this.#wait();
  }

  receive(frame: Frame): boolean {
    const { length } = frame.bytes;
    if (this.#fd < 0 || length > FRAME_BYTES_MAX || !writeHeader(this.#outView, frame)) {
      this.counters.lost++;
      return true;
    }
    this.#out.set(frame.bytes, VirtioNetHdr.sizeof);
    if (this.#libc.write(this.#fd, this.#out, VirtioNetHdr.sizeof + length) >= 0) {
      this.counters.txFrames++;
      this.counters.txBytes += length;
    } else if (this.#libc.errno() === ERRNO.EAGAIN) {
      this.#hasRefused = true;
      this.#wait();
      return false;
    } else this.counters.lost++;
    return true;
  }
  #tellRoom(): void {
    if (!this.#hasRefused) return;
    this.#hasRefused = false;
    this.peer?.ready();
  }

  /** Somebody removed the interface. */
  #lose(): void {
    if (this.#fd < 0) return;
    this.#end();
    this.#log(`${this.name}: the interface is gone; what is sent to it is lost`);
    this.#tellRoom();
  }
  #end(): void {
    this.#watch.close();
    closeSync(this.#fd);
    this.#fd = -1;
  }
  /** Leave the interface, which goes if `openTap` made it, and pull the cable. Safe to call again. */
  close(): void {
    if (this.#fd >= 0) this.#end();
    this.#held.length = 0;
    this.#hasRefused = false;
    disconnect(this);
  }
}
