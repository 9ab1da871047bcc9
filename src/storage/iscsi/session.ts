/** An iSCSI session of one connection past its login: RFC 7143. Commands go out in the window that the target opens; data, statuses and pings come in. */
import { DiskError } from "../disk.ts";
import { asDiskError } from "../peer.ts";
import type { Negotiated } from "./login.ts";
import { basicHeader, BHS, FINAL, IMMEDIATE, isBefore, NO_TAG, OP, type Pdu, type PduStream } from "./pdu.ts";

/** One SCSI command. `read` is filled, `write` sent; at most one of them. */
export type ScsiCommand = { readonly lun: number; readonly cdb: Uint8Array; readonly read?: Uint8Array | undefined; readonly write?: Uint8Array | undefined };
/** How it ended. `nrRead`: bytes of `read` that were filled, from its start. */
export type ScsiResult = { readonly status: number; readonly sense: Uint8Array; readonly nrRead: number };
/** `keepaliveMs`: after so long without a word from the target it is asked for one; after twice as long it is given up. */
export type SessionOptions = { keepaliveMs: number };

const FLAG_READ = 0x40, FLAG_WRITE = 0x20, ATTR_SIMPLE = 1, DATA_IN_STATUS = 1;
const ASYNC = { scsi: 0, logout: 1, dropConnection: 2, dropSession: 3, negotiate: 4 } as const;
const LOGOUT_WAIT_MS = 2000;

type Task = { readonly command: ScsiCommand; readonly resolve: (r: ScsiResult) => void; readonly reject: (why: DiskError) => void; nrRead: number; dataSN: number; r2tSN: number };

/** LUN structure, RFC 7143 section 11.2.1.7 and SAM: peripheral addressing below 256, flat above. */
export function putLun(header: DataView, lun: number): void {
  header.setUint16(BHS.lun, lun < 256 ? lun : 0x4000 | lun);
}

/** A session. It ends by `close`, by `fail`, or by itself, then `onLost` is told why. */
export class IscsiSession {
  readonly negotiated: Negotiated;
  onLost: ((why: DiskError) => void) | null = null;
  readonly #stream: PduStream;
  readonly #name: string;
  readonly #tasks = new Map<number, Task>();
  #queue: Task[] = [];
  #itt = 1;
  #cmdSN: number;
  #maxCmdSN: number;
  #expStatSN: number;
  #failure: DiskError | null = null;
  #isLeaving = false;
  #onLogout: (() => void) | null = null;
  #nrReceived = 0;
  #keepalive: ReturnType<typeof setTimeout> | undefined;
  #leaveTimer: ReturnType<typeof setTimeout> | undefined;

  constructor(stream: PduStream, negotiated: Negotiated, name: string, options: SessionOptions) {
    this.#stream = stream;
    this.#name = name;
    this.negotiated = negotiated;
    this.#cmdSN = negotiated.cmdSN;
    this.#maxCmdSN = negotiated.maxCmdSN;
    this.#expStatSN = negotiated.expStatSN;
    this.#receive().catch((e: unknown) => this.fail(asDiskError(e, name)));
    this.#watch(options.keepaliveMs, false);
  }
  #lie(what: string): DiskError {
    return new DiskError("io", `${this.#name}: the target breaks the protocol: ${what}`);
  }

  /** @throws DiskError `gone` when the session is lost first, `io` when the target lies */
  command(command: ScsiCommand): Promise<ScsiResult> {
    if (this.#failure || this.#isLeaving) return Promise.reject(new DiskError("gone", `${this.#name}: the session is over`, { cause: this.#failure }));
    const { promise, resolve, reject } = Promise.withResolvers<ScsiResult>();
    this.#queue.push({ command, resolve, reject, nrRead: 0, dataSN: 0, r2tSN: 0 });
    this.#pump();
    return promise;
  }
  fail(why: DiskError): void {
    if (this.#failure) return;
    this.#failure = why;
    clearTimeout(this.#keepalive);
    clearTimeout(this.#leaveTimer);
    this.#stream.close();
    const tasks = [...this.#tasks.values(), ...this.#queue];
    this.#tasks.clear();
    this.#queue = [];
    for (const t of tasks) t.reject(why);
    this.#onLogout?.();
    this.onLost?.(why);
  }
  /** Log out, wait a little for the target's word, and let go. */
  async close(): Promise<void> {
    if (this.#failure) return;
    const answered = new Promise<void>((resolve) => { this.#onLogout = resolve; });
    this.#sendLogout();
    const timer = setTimeout(() => this.#onLogout?.(), LOGOUT_WAIT_MS);
    await answered;
    clearTimeout(timer);
    this.fail(new DiskError("closed", `${this.#name} is closed`));
  }

  // Out

  #send(header: DataView<ArrayBuffer>, data?: Uint8Array): void {
    header.setUint32(BHS.expStatSN, this.#expStatSN);
    this.#stream.send(header, data).catch((e: unknown) => this.fail(asDiskError(e, this.#name)));
  }
  #newTag(): number {
    do this.#itt = (this.#itt + 1) >>> 0; while (this.#itt === NO_TAG || this.#tasks.has(this.#itt));
    return this.#itt;
  }
  /** Send what the window has room for. */
  #pump(): void {
    while (this.#queue.length && !this.#failure && !isBefore(this.#maxCmdSN, this.#cmdSN)) {
      const task = this.#queue.shift()!, { command } = task, itt = this.#newTag(), n = this.negotiated, write = command.write;
      this.#tasks.set(itt, task);
      const lengthBytes = (write ?? command.read)?.length ?? 0;
      const unsolicited = write && (n.immediateData || !n.initialR2T) ? Math.min(write.length, n.firstBurst) : 0, immediate = n.immediateData ? Math.min(unsolicited, n.maxSendBytes) : 0;
      const hasMore = write !== undefined && !n.initialR2T && immediate < unsolicited;
      const h = basicHeader(OP.SCSI_COMMAND, (hasMore ? 0 : FINAL) | (command.read ? FLAG_READ : 0) | (write ? FLAG_WRITE : 0) | ATTR_SIMPLE);
      putLun(h, command.lun);
      h.setUint32(BHS.itt, itt);
      h.setUint32(BHS.expectedLength, lengthBytes);
      h.setUint32(BHS.cmdSN, this.#cmdSN);
      new Uint8Array(h.buffer).set(command.cdb, BHS.cdb);
      this.#cmdSN = (this.#cmdSN + 1) >>> 0;
      this.#send(h, write?.subarray(0, immediate));
      if (hasMore) this.#sendData(itt, NO_TAG, task, immediate, unsolicited);
    }
  }
  /** Data-Out PDUs for [from, to) of a task's data. */
  #sendData(itt: number, ttt: number, task: Task, from: number, to: number): void {
    for (let at = from, dataSN = 0; at < to && !this.#failure; dataSN++) {
      const n = Math.min(to - at, this.negotiated.maxSendBytes), h = basicHeader(OP.DATA_OUT, at + n === to ? FINAL : 0);
      putLun(h, task.command.lun);
      h.setUint32(BHS.itt, itt);
      h.setUint32(BHS.ttt, ttt);
      h.setUint32(BHS.dataSN, dataSN);
      h.setUint32(BHS.bufferOffset, at);
      this.#send(h, task.command.write!.subarray(at, at + n));
      at += n;
    }
  }
  #sendNop(itt: number, ttt: number, lun?: DataView): void {
    const h = basicHeader(OP.NOP_OUT | IMMEDIATE, FINAL);
    if (lun) h.setBigUint64(BHS.lun, lun.getBigUint64(BHS.lun));
    h.setUint32(BHS.itt, itt);
    h.setUint32(BHS.ttt, ttt);
    h.setUint32(BHS.cmdSN, this.#cmdSN);
    this.#send(h);
  }
  #sendLogout(): void {
    this.#isLeaving = true;
    const h = basicHeader(OP.LOGOUT | IMMEDIATE, FINAL);
    h.setUint32(BHS.itt, this.#newTag());
    h.setUint32(BHS.cmdSN, this.#cmdSN);
    this.#send(h);
  }
  /** Ask a silent target for a word; give up one that stays silent. */
  #watch(keepaliveMs: number, wasAsked: boolean): void {
    const before = this.#nrReceived;
    this.#keepalive = setTimeout(() => {
      const isSilent = this.#nrReceived === before;
      if (isSilent && wasAsked) return this.fail(new DiskError("gone", `${this.#name}: the target does not answer a ping in ${keepaliveMs} ms`));
      if (isSilent) this.#sendNop(this.#newTag(), NO_TAG);
      this.#watch(keepaliveMs, isSilent);
    }, keepaliveMs);
  }

  // In

  async #receive(): Promise<void> {
    for (;;) {
      const pdu = await this.#stream.receive();
      if (this.#failure) return;
      this.#nrReceived++;
      this.#take(pdu);
      this.#pump();
    }
  }
  #status(h: DataView): void {
    const statSN = h.getUint32(BHS.statSN);
    if (statSN !== this.#expStatSN) throw this.#lie(`status number ${statSN} comes where ${this.#expStatSN} is due`);
    this.#expStatSN = (statSN + 1) >>> 0;
  }
  #task(h: DataView): [itt: number, task: Task] {
    const itt = h.getUint32(BHS.itt), task = this.#tasks.get(itt);
    if (!task) throw this.#lie(`it speaks of task ${itt}, which was not sent or has ended`);
    return [itt, task];
  }
  #end(itt: number, task: Task, result: ScsiResult): void {
    this.#tasks.delete(itt);
    task.resolve(result);
    if (this.#isLeaving && this.#tasks.size === 0) this.#left();
  }
  #take({ opcode, header: h, data }: Pdu): void {
    const max = h.getUint32(BHS.maxCmdSN), exp = h.getUint32(BHS.expCmdSN);
    if (!isBefore(max, (exp - 1) >>> 0) && isBefore(this.#maxCmdSN, max)) this.#maxCmdSN = max;
    switch (opcode) {
      case OP.SCSI_RESPONSE: {
        this.#status(h);
        const [itt, task] = this.#task(h), response = h.getUint8(BHS.response), n = data.length >= 2 ? (data[0]! << 8) | data[1]! : 0;
        if (n > data.length - 2 && n > 0) throw this.#lie(`it says ${n} bytes of sense in ${data.length} bytes of data`);
        if (response !== 0) {
          this.#tasks.delete(itt);
          task.reject(new DiskError("io", `${this.#name}: the target failed at a command, response ${response.toString(16)}`));
        } else this.#end(itt, task, { status: h.getUint8(BHS.status), sense: data.slice(2, 2 + n), nrRead: task.nrRead });
        return;
      }
      case OP.DATA_IN: {
        const hasStatus = (h.getUint8(BHS.flags) & DATA_IN_STATUS) !== 0;
        if (hasStatus) this.#status(h);
        const [itt, task] = this.#task(h), at = h.getUint32(BHS.bufferOffset), dataSN = h.getUint32(BHS.dataSN), into = task.command.read;
        if (!into) throw this.#lie("it sends data for a command that reads none");
        if (dataSN !== task.dataSN) throw this.#lie(`data PDU ${dataSN} comes where ${task.dataSN} is due`);
        if (at !== task.nrRead || at + data.length > into.length) throw this.#lie(`it sends ${data.length} bytes at ${at} of ${into.length} where ${task.nrRead} is due`);
        task.dataSN++;
        into.set(data, at);
        task.nrRead += data.length;
        if (hasStatus) this.#end(itt, task, { status: h.getUint8(BHS.status), sense: new Uint8Array(0), nrRead: task.nrRead });
        return;
      }
      case OP.R2T: {
        const [itt, task] = this.#task(h), from = h.getUint32(BHS.bufferOffset), n = h.getUint32(BHS.desiredLength), write = task.command.write, r2tSN = h.getUint32(BHS.dataSN);
        if (!write) throw this.#lie("it asks for the data of a command that writes none");
        if (r2tSN !== task.r2tSN) throw this.#lie(`it asks for data in turn ${r2tSN} where ${task.r2tSN} is due`);
        if (n === 0 || n > this.negotiated.maxBurst || from + n > write.length) throw this.#lie(`it asks for ${n} bytes at ${from} of a write of ${write.length}, where bursts are up to ${this.negotiated.maxBurst}`);
        task.r2tSN++;
        this.#sendData(itt, h.getUint32(BHS.ttt), task, from, from + n);
        return;
      }
      case OP.NOP_IN: {
        if (h.getUint32(BHS.itt) !== NO_TAG) this.#status(h);
        if (h.getUint32(BHS.ttt) !== NO_TAG) this.#sendNop(NO_TAG, h.getUint32(BHS.ttt), h);
        return;
      }
      case OP.LOGOUT_RESPONSE: {
        this.#status(h);
        if (!this.#isLeaving) throw this.#lie("it answers a logout that was not sent");
        this.#onLogout?.();
        return;
      }
      case OP.ASYNC: {
        this.#status(h);
        const event = h.getUint8(BHS.asyncEvent);
        if (event === ASYNC.dropConnection || event === ASYNC.dropSession) throw new DiskError("gone", `${this.#name}: the target drops the session`);
        if (event === ASYNC.logout || event === ASYNC.negotiate) this.#leave(h.getUint16(BHS.asyncParameter1 + 4));
        return;
      }
      case OP.REJECT: {
        const reason = h.getUint8(BHS.response);
        throw new DiskError(reason === 2 ? "gone" : "io", `${this.#name}: the target rejects a PDU of opcode ${((data[0] ?? 0) & 0x3f).toString(16)}, reason ${reason}`);
      }
      default: throw this.#lie(`opcode ${opcode.toString(16)} is none that was asked for`);
    }
  }
  /** The target wants us to go: finish what is under way, log out; what waits goes to the next session. */
  #leave(withinSeconds: number): void {
    if (this.#isLeaving) return;
    this.#isLeaving = true;
    for (const t of this.#queue.splice(0)) t.reject(new DiskError("gone", `${this.#name}: the target asked us to log out`));
    this.#leaveTimer = setTimeout(() => this.fail(new DiskError("gone", `${this.#name}: the target asked us to log out`)), withinSeconds * 1000);
    if (this.#tasks.size === 0) this.#left();
  }
  #left(): void {
    if (this.#onLogout) return;
    this.#onLogout = () => { this.#onLogout = null; this.fail(new DiskError("gone", `${this.#name}: the target asked us to log out`)); };
    this.#sendLogout();
  }
}
