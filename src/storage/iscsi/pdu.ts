/** iSCSI's PDUs on a connection: RFC 7143 section 11. A basic header of 48 bytes, perhaps more header, data padded to four bytes, a digest behind each. */
import { type ByteConnection, ByteReader } from "../../base/stream.ts";
import { DiskError } from "../disk.ts";
import { crc32c } from "./crc32c.ts";

/** Opcodes, the initiator's and the target's. */
export const OP = { NOP_OUT: 0x00, SCSI_COMMAND: 0x01, TASK_MANAGEMENT: 0x02, LOGIN: 0x03, TEXT: 0x04, DATA_OUT: 0x05, LOGOUT: 0x06,
  NOP_IN: 0x20, SCSI_RESPONSE: 0x21, TASK_MANAGEMENT_RESPONSE: 0x22, LOGIN_RESPONSE: 0x23, TEXT_RESPONSE: 0x24, DATA_IN: 0x25, LOGOUT_RESPONSE: 0x26, R2T: 0x31, ASYNC: 0x32,
  REJECT: 0x3f } as const;
/** Bits of byte 0 and byte 1 that many PDUs share. */
export const IMMEDIATE = 0x40, FINAL = 0x80, CONTINUE = 0x40;
/** Byte offsets in the basic header. Those with a kind of PDU in the name are of that kind only. */
export const BHS = { opcode: 0, flags: 1, response: 2, status: 3, ahsLength: 4, dataLength: 4, lun: 8, itt: 16, ttt: 20, expectedLength: 20, cid: 20, cmdSN: 24, statSN: 24, expStatSN: 28,
  expCmdSN: 28, maxCmdSN: 32, cdb: 32, dataSN: 36, bufferOffset: 40, residual: 44, desiredLength: 44, loginStatus: 36, isid: 8, tsih: 14, asyncEvent: 36, asyncParameter1: 38 } as const;
/** Size of the basic header. */
export const BHS_BYTES = 48;
/** A tag that names no task. */
export const NO_TAG = 0xffffffff;

/** a < b of serial numbers: RFC 1982. */
export const isBefore = (a: number, b: number): boolean => ((a - b) | 0) < 0;

/** A PDU received: its basic header, and the data without padding. */
export type Pdu = { readonly opcode: number; readonly header: DataView; readonly data: Uint8Array };

/** A fresh basic header. */
export function basicHeader(opcode: number, flags: number): DataView<ArrayBuffer> {
  const v = new DataView(new ArrayBuffer(BHS_BYTES));
  v.setUint8(BHS.opcode, opcode);
  v.setUint8(BHS.flags, flags);
  return v;
}

const PAD = new Uint8Array(4);
function digestBytes(crc: number): Uint8Array<ArrayBuffer> {
  const d = new Uint8Array(4);
  new DataView(d.buffer).setUint32(0, crc, true);
  return d;
}

/** Sends and receives PDUs. One `receive` at a time. */
export class PduStream {
  readonly #connection: ByteConnection;
  readonly #reader: ByteReader;
  readonly #name: string;
  /** from the PDU after login's last */
  hasHeaderDigest = false;
  hasDataDigest = false;
  /** longest data we take: what we declared */
  dataBytesMax = 8192;
  constructor(connection: ByteConnection, name: string) {
    this.#connection = connection;
    this.#reader = new ByteReader(connection);
    this.#name = name;
  }
  /** Send; `data` is given away until the target has answered. Settles when there is room for more. */
  send(header: DataView<ArrayBuffer>, data: Uint8Array = PAD.subarray(0, 0)): Promise<void> {
    const bytes = new Uint8Array(header.buffer), parts: Uint8Array[] = [bytes];
    header.setUint32(BHS.dataLength, data.length);          // no additional header: its length, the first byte, is 0
    if (this.hasHeaderDigest) parts.push(digestBytes(crc32c(bytes)));
    if (data.length) {
      const pad = PAD.subarray(0, -data.length & 3);
      parts.push(data, pad);
      if (this.hasDataDigest) parts.push(digestBytes(crc32c(pad, crc32c(data))));
    }
    return this.#connection.write(...parts);
  }
  /** @throws DiskError `io` when it breaks the protocol, `gone` when a digest is wrong: the way, not the target, is at fault, and all may be sent anew */
  async receive(): Promise<Pdu> {
    const head = await this.#reader.exactly(BHS_BYTES), header = new DataView(head.buffer), lengths = header.getUint32(BHS.dataLength);
    const ahsBytes = (lengths >>> 24) * 4, dataBytes = lengths & 0xffffff;
    const ahs = ahsBytes ? await this.#reader.exactly(ahsBytes) : null;
    if (this.hasHeaderDigest) {
      const digest = new DataView((await this.#reader.exactly(4)).buffer).getUint32(0, true), crc = ahs ? crc32c(ahs, crc32c(head)) : crc32c(head);
      if (digest !== crc) throw new DiskError("gone", `${this.#name}: a header came with digest ${digest.toString(16)} instead of ${crc.toString(16)}`);
    }
    const opcode = header.getUint8(BHS.opcode) & 0x3f;
    if (dataBytes > this.dataBytesMax) throw new DiskError("io", `${this.#name}: the target breaks the protocol: a PDU of opcode ${opcode.toString(16)} has ${dataBytes} bytes of data where we take ${this.dataBytesMax}`);
    const padded = await this.#reader.exactly((dataBytes + 3) & ~3);
    if (this.hasDataDigest && dataBytes) {
      const digest = new DataView((await this.#reader.exactly(4)).buffer).getUint32(0, true), crc = crc32c(padded);
      if (digest !== crc) throw new DiskError("gone", `${this.#name}: data came with digest ${digest.toString(16)} instead of ${crc.toString(16)}`);
    }
    return { opcode, header, data: padded.subarray(0, dataBytes) };
  }
  close(graceful = false): void {
    this.#reader.stop();
    this.#connection.close(graceful);
  }
}
