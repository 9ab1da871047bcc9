/** A logical unit of a session as the link of a `PeerDisk`. */
import { DiskError } from "../disk.ts";
import type { PeerLink, PeerRequest, PeerShape } from "../peer.ts";
import { type BlockLimits, type Capacity, cdb, readBlockLimits, readCapacity, readIdentity, readLuns, readSense, readWrite, saidOf, SCSI, unmap, verdict } from "./scsi.ts";
import type { IscsiSession, ScsiCommand } from "./session.ts";

/** One command moves at most this much, and zeroes or unmaps at most that. */
const PART_BYTES_MAX = 1 << 20, ZERO_BYTES_MAX = 64 << 20, UNMAP_BYTES_MAX = 1 << 30;
const TRIES_MAX = 8, FIRST_PAUSE_MS = 20, PAUSE_MAX_MS = 1000;
const VPD_BYTES = 252;

/** An open logical unit. */
export class IscsiLink implements PeerLink {
  shape: PeerShape;
  onLost: ((why: DiskError) => void) | null = null;
  onShape: (() => void) | null = null;
  readonly #session: IscsiSession;
  readonly #lun: number;
  readonly #name: string;
  readonly #limits: BlockLimits;
  /** SCSI's cached writes exist only where the unit says so; WRITE SAME and UNMAP until refused */
  #canZero = true;
  #canTrim: boolean;
  readonly #rest: Pick<PeerShape, "isReadonly" | "canFlush" | "identity">;

  private constructor(session: IscsiSession, lun: number, name: string, capacity: Capacity, limits: BlockLimits, rest: Pick<PeerShape, "isReadonly" | "canFlush" | "identity">) {
    this.#session = session;
    this.#lun = lun;
    this.#name = name;
    this.#limits = limits;
    this.#rest = rest;
    this.#canTrim = capacity.isThin;
    this.shape = this.#shapeOf(capacity);
    session.onLost = (why) => this.onLost?.(why);
  }
  #shapeOf(c: Capacity): PeerShape {
    const most = (limitBlocks: number, ours: number): number => Math.max(c.blockBytes, Math.min(limitBlocks ? limitBlocks * c.blockBytes : ours, ours));
    const maxZero = Math.min(most(this.#limits.maxWriteSame, ZERO_BYTES_MAX), this.#canTrim ? most(this.#limits.maxUnmap, UNMAP_BYTES_MAX) : ZERO_BYTES_MAX);
    return {
      ...this.#rest, sizeBytes: c.nrBlocks * c.blockBytes, blockBytes: c.blockBytes, physicalSectorBytes: c.physicalBytes >= 4096 ? 4096 : 512,
      maxBytes: most(this.#limits.maxTransfer, PART_BYTES_MAX), maxZeroBytes: maxZero, canTrim: this.#canTrim, canZero: this.#canZero, depth: 64,
    };
  }
  #reshape(capacity: Capacity): void {
    this.shape = this.#shapeOf(capacity);
    this.onShape?.();
  }

  /** Ask the unit what it is. @throws DiskError `missing` when there is no disk behind the number */
  static async open(session: IscsiSession, lun: number, name: string): Promise<IscsiLink> {
    const ask = (what: string, command: Omit<ScsiCommand, "lun"> & { lun?: number }) => runCommand(session, { lun, ...command }, name, what, "opening");
    /** null where the unit does not know the command or page */
    const maybe = async (what: string, command: Uint8Array, bytes: number, at = lun): Promise<Uint8Array | null> => {
      const read = new Uint8Array(bytes);
      try { return read.subarray(0, await ask(what, { cdb: command, read, lun: at })); } catch (e) {
        if (e instanceof DiskError && (e.fault === "unsupported" || e.fault === "io") && /ILLEGAL REQUEST/.test(e.message)) return null;
        throw e;
      }
    };
    const luns = await maybe("REPORT LUNS", cdb(SCSI.REPORT_LUNS, [6, 8 + 8 * 512, 4]), 8 + 8 * 512, 0);
    if (luns && luns.length < 8 + 8 * 512 && !readLuns(luns).includes(lun)) throw new DiskError("missing", `${name}: the target has no unit ${lun}; it has ${readLuns(luns).slice(0, 16).join(", ") || "none"}`);
    const inquiry = await maybe("INQUIRY", cdb(SCSI.INQUIRY, [3, 96, 2]), 96);
    if (!inquiry || inquiry.length < 5) throw new DiskError("io", `${name}: the unit does not say what it is`);
    if (inquiry[0]! >> 5 !== 0) throw new DiskError("missing", `${name}: nothing stands behind unit ${lun}`);
    if ((inquiry[0]! & 31) !== 0) throw new DiskError("unsupported", `${name}: unit ${lun} is a device of type ${inquiry[0]! & 31}, not a disk`);
    await ask("TEST UNIT READY", { cdb: cdb(SCSI.TEST_UNIT_READY) });
    const capacity = await askCapacity(session, lun, name);
    const pages = (await maybe("INQUIRY", cdb(SCSI.INQUIRY, [1, 1, 1], [3, VPD_BYTES, 2]), VPD_BYTES))?.subarray(4) ?? new Uint8Array(0);
    const page = async (nr: number): Promise<Uint8Array> => {
      const found = pages.includes(nr) ? await maybe(`INQUIRY of page ${nr.toString(16)}`, cdb(SCSI.INQUIRY, [1, 1, 1], [2, nr, 1], [3, VPD_BYTES, 2]), VPD_BYTES) : null;
      return found && found.length >= 4 && found[1] === nr ? found.subarray(0, 4 + ((found[2]! << 8) | found[3]!)) : new Uint8Array(0);
    };
    const mode = await maybe("MODE SENSE", cdb(SCSI.MODE_SENSE_6, [1, 8, 1], [2, 8, 1], [4, 64, 1]), 64), caching = mode && mode.length > 6 ? mode.subarray(4 + mode[3]!) : null;
    return new IscsiLink(session, lun, name, capacity, readBlockLimits(await page(0xb0)), {
      isReadonly: mode !== null && mode.length > 2 && (mode[2]! & 0x80) !== 0,
      // Without a word about the cache it is taken for one.
      canFlush: !caching || caching.length < 3 || (caching[0]! & 0x3f) !== 8 || (caching[2]! & 4) !== 0,
      identity: readIdentity(await page(0x83)),
    });
  }

  async request(r: PeerRequest): Promise<void> {
    const b = this.shape.blockBytes, block = r.offset / b, nrBlocks = r.lengthBytes / b, what = `a ${r.kind} of ${r.lengthBytes} bytes at ${r.offset}`;
    try {
      switch (r.kind) {
        case "read": {
          const n = await this.#run({ cdb: readWrite(false, block, nrBlocks), read: r.bytes! }, what);
          if (n !== r.lengthBytes) throw new DiskError("io", `${this.#name}: the target answers ${what} with ${n} bytes`);
          return;
        }
        case "write": await this.#run({ cdb: readWrite(true, block, nrBlocks), write: r.bytes! }, what); return;
        case "flush": await this.#run({ cdb: cdb(SCSI.SYNCHRONIZE_CACHE_10) }, what); return;
        case "zero": await this.#run({ cdb: cdb(SCSI.WRITE_SAME_16, [2, block, 8], [10, nrBlocks, 4]), write: new Uint8Array(b) }, what); return;
        case "trim": await this.#run(unmap(block, nrBlocks), what); return;
      }
    } catch (e) {
      if (e instanceof DiskError && e.fault === "unsupported" && (r.kind === "zero" || r.kind === "trim")) {
        if (r.kind === "zero") this.#canZero = false;
        else this.#canTrim = false;
        this.shape = { ...this.shape, canZero: this.#canZero, canTrim: this.#canTrim };
        this.onShape?.();
      }
      throw e;
    }
  }
  #run(command: Omit<ScsiCommand, "lun">, what: string): Promise<number> {
    return runCommand(this.#session, { ...command, lun: this.#lun }, this.#name, what, "open", async () => this.#reshape(await askCapacity(this.#session, this.#lun, this.#name)));
  }
  fail(why: DiskError): void {
    this.#session.fail(why);
  }
  close(): Promise<void> {
    return this.#session.close();
  }
}

/** READ CAPACITY, the long form first. */
async function askCapacity(session: IscsiSession, lun: number, name: string): Promise<Capacity> {
  const long = new Uint8Array(32), short = new Uint8Array(8);
  try {
    if ((await runCommand(session, { lun, cdb: cdb(SCSI.SERVICE_ACTION_IN_16, [1, 0x10, 1], [10, 32, 4]), read: long }, name, "READ CAPACITY(16)", "opening")) >= 14) return readCapacity(long, name);
  } catch (e) {
    if (!(e instanceof DiskError && e.fault === "unsupported" && /ILLEGAL REQUEST/.test(e.message))) throw e;
  }
  if ((await runCommand(session, { lun, cdb: cdb(SCSI.READ_CAPACITY_10), read: short }, name, "READ CAPACITY(10)", "opening")) !== 8) throw new DiskError("io", `${name}: the target does not say the unit's size`);
  if (new DataView(short.buffer).getUint32(0) === 0xffffffff) throw new DiskError("unsupported", `${name}: the unit has more blocks than READ CAPACITY(10) can say`);
  return readCapacity(short, name);
}

/**
 * Run to its end, through what passes: attentions, aborts, a busy unit; the last as long as the session lives, which the caller's timers bound. While opening, a
 * reset is no news.
 * @returns bytes read @throws DiskError
 */
async function runCommand(session: IscsiSession, command: ScsiCommand, name: string, what: string, phase: "opening" | "open", onCapacity?: () => Promise<void>): Promise<number> {
  for (let nrTries = 0, pauseMs = FIRST_PAUSE_MS; ;) {
    const { status, sense: bytes, nrRead } = await session.command(command), sense = readSense(bytes), how = verdict(status, sense);
    if (how === "good") return nrRead;
    const said = `${name}: the target answers ${what} with ${saidOf(status, sense)}`;
    if (how === "reset" && phase === "open") {
      const why = new DiskError("gone", `${said}: it was reset`);
      session.fail(why);
      throw why;
    }
    if (how !== "retry" && how !== "wait" && how !== "reset" && how !== "capacity") throw new DiskError(how, said);
    if (how === "wait") {
      await new Promise((resolve) => { setTimeout(resolve, pauseMs); });
      pauseMs = Math.min(pauseMs * 2, PAUSE_MAX_MS);
      continue;
    }
    if (++nrTries >= TRIES_MAX) throw new DiskError("io", `${said}, ${TRIES_MAX} times`);
    if (how === "capacity") await onCapacity?.();
  }
}
