/** The initiator against a small scripted target that can lie, stall, ping, ask to leave and say anything. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { type ByteConnection, type Connect, connectionPair } from "../../base/stream.ts";
import { DiskError } from "../disk.ts";
import { FixtureDisk, mutated, random, randomBytes, sameBytes } from "../fixture.ts";
import { discoverIscsi, type IscsiOptions, openIscsi } from "./client.ts";
import { basicHeader, BHS, FINAL, NO_TAG, OP, type Pdu, PduStream } from "./pdu.ts";
import { readBlockLimits, readCapacity, readIdentity, readLuns, readSense, verdict } from "./scsi.ts";
import { encodeKeys, type Keys } from "./text.ts";

const TARGET = "iqn.2026-01.org.example:t";
type Answer = (t: Target, pdu: Pdu) => boolean | Promise<boolean>;

/** One connection's target: a disk behind unit 0. `first` sees each PDU of the full feature phase; true: it was answered. */
class Target {
  readonly stream: PduStream;
  readonly connection: ByteConnection;
  readonly disk: FixtureDisk;
  readonly heard: number[] = [];
  readonly first: Answer;
  readonly keys: Keys;
  statSN = 1;
  expCmdSN = 1;
  /** commands it takes at once */
  readonly window = 4;
  #write: { itt: number; bytes: Uint8Array; at: number; offset: number } | null = null;
  constructor(connection: ByteConnection, disk: FixtureDisk, first: Answer = () => false, keys: Keys = []) {
    this.connection = connection;
    this.stream = new PduStream(connection, "initiator");
    this.stream.dataBytesMax = 1 << 20;
    this.disk = disk;
    this.first = first;
    this.keys = keys;
    this.run().catch(() => connection.close());
  }
  /** A PDU with status number and window. */
  answer(opcode: number, flags: number, itt: number, fill: (h: DataView<ArrayBuffer>) => void = () => {}, data?: Uint8Array, takesStatus = true): void {
    const h = basicHeader(opcode, flags);
    h.setUint32(BHS.itt, itt);
    h.setUint32(BHS.ttt, NO_TAG);
    h.setUint32(BHS.statSN, this.statSN);
    if (takesStatus) this.statSN++;
    h.setUint32(BHS.expCmdSN, this.expCmdSN);
    h.setUint32(BHS.maxCmdSN, this.expCmdSN + this.window - 1);
    fill(h);
    this.stream.send(h, data).catch(() => {});
  }
  done(itt: number, status = 0, sense?: number[]): void {
    const data = sense ? Uint8Array.of(0, 18, 0x70, 0, sense[0]!, 0, 0, 0, 0, 10, 0, 0, 0, 0, sense[1]!, sense[2]!, 0, 0, 0, 0) : undefined;
    this.answer(OP.SCSI_RESPONSE, FINAL, itt, (h) => { h.setUint32(BHS.ttt, 0); h.setUint8(BHS.status, status); }, data);
  }
  dataIn(itt: number, bytes: Uint8Array): void {
    this.answer(OP.DATA_IN, FINAL | 1, itt, (h) => { h.setUint32(BHS.dataSN, 0); h.setUint32(BHS.bufferOffset, 0); }, bytes);
  }
  async run(): Promise<void> {
    for (;;) {
      const pdu = await this.stream.receive(), { opcode, header: h, data } = pdu, itt = h.getUint32(BHS.itt);
      if (opcode === OP.LOGIN) {
        const flags = h.getUint8(BHS.flags), isLast = (flags & 0x8c) === 0x84, keys: Keys = isLast ? this.keys : [["AuthMethod", "None"]];
        this.answer(OP.LOGIN_RESPONSE, flags, itt, (r) => { new Uint8Array(r.buffer).set(new Uint8Array(h.buffer, BHS.isid, 6), BHS.isid); r.setUint32(BHS.ttt, 0); r.setUint16(BHS.loginStatus, 0); r.setUint16(BHS.tsih, isLast ? 1 : 0); }, encodeKeys(keys));
        const digest = (key: string): boolean => isLast && this.keys.some(([k, v]) => k === key && v === "CRC32C");
        this.stream.hasHeaderDigest = digest("HeaderDigest");
        this.stream.hasDataDigest = digest("DataDigest");
        continue;
      }
      this.heard.push(opcode);
      if (opcode === OP.SCSI_COMMAND) this.expCmdSN++;
      if (await this.first(this, pdu)) continue;
      if (opcode === OP.NOP_OUT) { if (itt !== NO_TAG) this.answer(OP.NOP_IN, FINAL, itt); }
      else if (opcode === OP.LOGOUT) this.answer(OP.LOGOUT_RESPONSE, FINAL, itt);
      else if (opcode === OP.DATA_OUT) await this.dataOut(itt, h, data);
      else if (opcode === OP.SCSI_COMMAND) await this.command(itt, h, data);
    }
  }
  async dataOut(itt: number, h: DataView, data: Uint8Array): Promise<void> {
    const w = this.#write!;
    w.bytes.set(data, h.getUint32(BHS.bufferOffset));
    if (!(h.getUint8(BHS.flags) & FINAL)) return;
    await this.disk.write(w.offset, w.bytes);
    this.done(itt);
  }
  async command(itt: number, h: DataView, data: Uint8Array): Promise<void> {
    const op = h.getUint8(BHS.cdb), offset = h.getUint32(BHS.cdb + 2) * 512, n = h.getUint16(BHS.cdb + 7) * 512;
    if (op === 0x00) this.done(itt);
    else if (op === 0x12 && h.getUint8(BHS.cdb + 1) === 0) this.dataIn(itt, new Uint8Array(36));
    else if (op === 0x25) {
      const bytes = new Uint8Array(8), v = new DataView(bytes.buffer);
      v.setUint32(0, this.disk.sizeBytes / 512 - 1);
      v.setUint32(4, 512);
      this.dataIn(itt, bytes);
    } else if (op === 0x28) {
      const bytes = new Uint8Array(n);
      await this.disk.read(offset, bytes);
      this.dataIn(itt, bytes);
    } else if (op === 0x2a) {
      this.#write = { itt, bytes: new Uint8Array(n), at: data.length, offset };
      this.#write.bytes.set(data);
      if (data.length < n) this.answer(OP.R2T, FINAL, itt, (r) => { r.setUint32(BHS.ttt, 5); r.setUint32(BHS.dataSN, 0); r.setUint32(BHS.bufferOffset, data.length); r.setUint32(BHS.desiredLength, n - data.length); }, undefined, false);
      else { await this.disk.write(offset, this.#write.bytes); this.done(itt); }
    } else if (op === 0x35) { await this.disk.flush(); this.done(itt); }
    else this.done(itt, 2, [5, 0x20, 0]);
  }
}

const all: Target[] = [];
after(() => { for (const t of all) t.connection.close(); });
/** A host of such targets, and options to reach it. */
function host(first: Answer = () => false, keys: Keys = [], disk = new FixtureDisk(65536)) {
  const targets: Target[] = [];
  const connect: Connect = () => {
    const [a, b] = connectionPair("target", "initiator");
    const t = new Target(a, disk, first, keys);
    targets.push(t);
    all.push(t);
    return Promise.resolve(b);
  };
  const options: IscsiOptions = { connect, portal: { host: "t", port: 1 }, target: TARGET, lun: 0, initiatorName: "iqn.2026-01.org.example:i", retryMs: 1, retryMaxMs: 2, giveUpMs: 2000 };
  return { options, targets, disk };
}
const isScsi = (p: Pdu, op: number): boolean => p.opcode === OP.SCSI_COMMAND && p.header.getUint8(BHS.cdb) === op;
const fault = (name: string, about: RegExp) => (e: unknown): boolean => {
  assert.ok(e instanceof DiskError, String(e));
  assert.deepEqual([e.fault, about.test(e.message)], [name, true], e.message);
  return true;
};
/** An answer for the first `times` commands of a kind. */
const once = (op: number, act: (t: Target, itt: number) => void, times = 1): Answer => {
  let n = 0;
  return (t, p) => {
    if (!isScsi(p, op) || n++ >= times) return false;
    act(t, p.header.getUint32(BHS.itt));
    return true;
  };
};

test("a disk behind the scripted target is read and written, immediate and on R2T, with and without digests", async () => {
  for (const keys of [[], [["HeaderDigest", "CRC32C"], ["DataDigest", "CRC32C"]], [["ImmediateData", "No"]]] as Keys[]) {
    const { options, disk: behind } = host(undefined, keys), disk = await openIscsi({ ...options, digests: "prefer" }), bytes = randomBytes(random(1), 16384), got = new Uint8Array(16384);
    await disk.write(512, bytes);
    await disk.flush();
    await disk.read(512, got);
    sameBytes(got, bytes);
    sameBytes(behind.stable.slice(512, 16896), bytes);
    await disk.writeZeros(1024, 512);                       // WRITE SAME is refused: zeros are written
    assert.equal(disk.shape.canZero, false);
    sameBytes(behind.cache.slice(1024, 1536), new Uint8Array(512));
    await disk.close();
  }
});

test("no more commands are sent than the target's window allows", async () => {
  const held: number[] = [];
  let most = 0;
  const { options } = host((t, p) => {
    if (!isScsi(p, 0x28)) return false;
    held.push(p.header.getUint32(BHS.itt));
    t.expCmdSN--;                                           // taken, not yet done: the window does not move
    most = Math.max(most, held.length);
    setTimeout(() => {
      for (const itt of held.splice(0)) { t.expCmdSN++; t.dataIn(itt, new Uint8Array(512)); }
    }, 2);
    return true;
  });
  const disk = await openIscsi(options);
  await Promise.all(Array.from({ length: 20 }, (_, i) => disk.read(i * 512, new Uint8Array(512))));
  assert.ok(most > 1 && most <= 4, `${most} at once`);
  await disk.close();
});

test("attentions, aborts and a busy unit are waited out; a medium's error is the request's", async () => {
  const { options } = host(once(0x28, (t, itt) => t.done(itt, ...([[8], [2, [6, 0x3f, 0x0e]], [2, [11, 0, 0]], [2, [2, 4, 1]]] as [number, number[]?][])[t.heard.length % 4]!), 4)), disk = await openIscsi(options);
  await disk.read(0, new Uint8Array(512));
  assert.equal(disk.nrReconnects, 0);
  await disk.close();
  for (const [sense, name] of [[[3, 0x11, 0], "io"], [[7, 0x27, 7], "nospace"], [[7, 0x27, 0], "readonly"]] as const) {
    const h = host(once(0x2a, (t, itt) => t.done(itt, 2, [...sense]))), d = await openIscsi(h.options);
    await assert.rejects(d.write(0, new Uint8Array(512)), fault(name, /a write of 512 bytes at 0 with/));
    await d.close();
  }
});

test("a unit that was reset lost its cache: what was not flushed is written anew", async () => {
  const behind = new FixtureDisk(65536), bytes = randomBytes(random(2), 512);
  let isReset = false;
  const { options } = host((t, p) => {
    if (!isReset || !isScsi(p, 0x35)) return false;
    isReset = false;
    behind.crash();
    t.done(p.header.getUint32(BHS.itt), 2, [6, 0x29, 0]);
    return true;
  }, [], behind), disk = await openIscsi(options);
  await disk.write(0, bytes);
  isReset = true;
  await disk.flush();
  sameBytes(behind.stable.slice(0, 512), bytes);
  assert.equal(disk.nrReconnects, 1);
  await disk.close();
});

test("a capacity that has changed is asked for, and told", async () => {
  const behind = new FixtureDisk(65536), { options } = host(once(0x28, (t, itt) => { behind.cache = new Uint8Array(131072); behind.stable = new Uint8Array(131072); t.done(itt, 2, [6, 0x2a, 9]); }), [], behind), disk = await openIscsi(options);
  let told = 0;
  disk.onResize = () => { told = disk.sizeBytes; };
  await disk.read(0, new Uint8Array(512));
  assert.equal(told, 131072);
  await disk.close();
});

test("a target's ping is answered, and a target that answers none is given up", async () => {
  const { options, targets } = host(), disk = await openIscsi(options);
  targets[0]!.answer(OP.NOP_IN, FINAL, NO_TAG, (h) => h.setUint32(BHS.ttt, 77), undefined, false);
  await disk.read(0, new Uint8Array(512));
  assert.ok(targets[0]!.heard.includes(OP.NOP_OUT));
  await disk.close();
  const silent = host((t, p) => t === silent.targets[0] && (p.opcode === OP.NOP_OUT || isScsi(p, 0x28))), d = await openIscsi({ ...silent.options, keepaliveMs: 10 });
  await d.read(0, new Uint8Array(512));
  assert.equal(d.nrReconnects, 1);
  await d.close();
});

test("asked to log out, the initiator does, and goes on in another session", async () => {
  const h = host((t, p) => {
    if (t !== h.targets[0] || !isScsi(p, 0x28)) return false;
    t.answer(OP.ASYNC, FINAL, NO_TAG, (a) => { a.setUint8(BHS.asyncEvent, 1); a.setUint16(42, 3); });
    return false;
  }), disk = await openIscsi(h.options);
  await Promise.all([disk.read(0, new Uint8Array(512)), disk.read(512, new Uint8Array(512))]);
  await disk.read(1024, new Uint8Array(512));
  assert.ok(h.targets[0]!.heard.includes(OP.LOGOUT));
  assert.equal(h.targets.length, 2);
  await disk.close();
});

test("a wrong digest is the way's fault: the request is sent again on another connection", async () => {
  const h = host((t, p) => {
    if (t !== h.targets[0] || !isScsi(p, 0x28)) return false;
    t.stream.hasDataDigest = false;
    t.dataIn(p.header.getUint32(BHS.itt), new Uint8Array(512).fill(1));
    void t.connection.write(new Uint8Array(4));
    return true;
  }, [["DataDigest", "CRC32C"]]), disk = await openIscsi({ ...h.options, digests: "prefer" }), got = new Uint8Array(512).fill(9);
  await disk.read(0, got);
  assert.deepEqual([got[0], disk.nrReconnects], [0, 1]);
  await disk.close();
});

test("each lie of a target is named in the request's error", async () => {
  const lies: [RegExp, (t: Target, itt: number) => void][] = [
    [/status number 99 comes where/, (t, itt) => { t.statSN = 99; t.done(itt); }],
    [/task 12345, which was not sent/, (t) => t.done(12345)],
    [/sends 1024 bytes at 0 of 512/, (t, itt) => t.dataIn(itt, new Uint8Array(1024))],
    [/with 0 bytes/, (t, itt) => t.done(itt)],
    [/data PDU 3 comes where 0 is due/, (t, itt) => t.answer(OP.DATA_IN, FINAL, itt, (h) => h.setUint32(BHS.dataSN, 3), new Uint8Array(512), false)],
    [/data of a command that writes none/, (t, itt) => t.answer(OP.R2T, FINAL, itt, () => {}, undefined, false)],
    [/opcode 3b is none/, (t, itt) => t.answer(0x3b, FINAL, itt)],
    [/has 16777215 bytes of data where we take/, (t) => { const b = new Uint8Array(48); b[0] = OP.DATA_IN; b.fill(255, 5, 8); void t.connection.write(b); }],
    [/65535 bytes of sense/, (t, itt) => t.answer(OP.SCSI_RESPONSE, FINAL, itt, () => {}, Uint8Array.of(255, 255, 0, 0))],
    [/rejects a PDU of opcode 1, reason 9/, (t) => t.answer(OP.REJECT, FINAL, NO_TAG, (h) => h.setUint8(BHS.response, 9), new Uint8Array(48).fill(1))],
  ];
  for (const [about, act] of lies) {
    const { options } = host(once(0x28, act)), disk = await openIscsi(options);
    await assert.rejects(disk.read(0, new Uint8Array(512)), fault("io", about));
    await disk.read(0, new Uint8Array(512));                // and the next one goes on
    await disk.close();
  }
  const writes: [RegExp, (t: Target, itt: number) => void][] = [
    [/asks for 4294967295 bytes at 0/, (t, itt) => t.answer(OP.R2T, FINAL, itt, (h) => { h.setUint32(BHS.bufferOffset, 0); h.setUint32(BHS.desiredLength, 0xffffffff); h.setUint32(BHS.dataSN, 0); }, undefined, false)],
    [/in turn 1 where 0/, (t, itt) => t.answer(OP.R2T, FINAL, itt, (h) => h.setUint32(BHS.dataSN, 1), undefined, false)],
  ];
  for (const [about, act] of writes) {
    const { options } = host(once(0x2a, act)), disk = await openIscsi(options);
    await assert.rejects(disk.write(0, new Uint8Array(512)), fault("io", about));
    await disk.close().catch(() => {});
  }
});

test("a target that stalls in login or in a command is given up after the time that was set", async () => {
  const never: Connect = () => Promise.resolve(connectionPair()[0]);
  await assert.rejects(openIscsi({ ...host().options, connect: never, connectTimeoutMs: 20 }), fault("gone", /did not finish the login in 20 ms/));
  await assert.rejects(discoverIscsi({ ...host().options, connect: never, connectTimeoutMs: 20 }), fault("gone", /did not finish/));
  const { options } = host((_t, p) => isScsi(p, 0x28)), disk = await openIscsi({ ...options, requestTimeoutMs: 20, giveUpMs: 60 });
  await assert.rejects(disk.read(0, new Uint8Array(512)), fault("gone", /given up after 60 ms.*no answer to a read of 512 bytes at 0 in 20 ms/));
  await disk.close();
});

/** Answer a connection's PDUs one after the other with what `script` makes of them. */
function scripted(...script: ((h: DataView) => [h: DataView<ArrayBuffer>, data?: Uint8Array])[]): ByteConnection {
  const [a, b] = connectionPair("target", "initiator"), stream = new PduStream(a, "initiator");
  void (async () => { for (const make of script) await stream.send(...make((await stream.receive()).header)); })().catch(() => {});
  return b;
}
const loginAnswer = (keys: Keys, fill: (r: DataView, h: DataView) => void = () => {}) => (h: DataView): [DataView<ArrayBuffer>, Uint8Array] => {
  const r = basicHeader(OP.LOGIN_RESPONSE, h.getUint8(BHS.flags));
  r.setUint32(BHS.maxCmdSN, 10);
  fill(r, h);
  return [r, encodeKeys(keys)];
};

test("a redirect is followed, but not for ever", async () => {
  const h = host(), asked: unknown[] = [], moved = loginAnswer([["TargetAddress", "[::7]:99,1"]], (r) => r.setUint16(BHS.loginStatus, 0x0101));
  const connect = (times: number): Connect => (to, ms) => { asked.push(to); return asked.length <= times ? Promise.resolve(scripted(moved)) : h.options.connect(to, ms); };
  const disk = await openIscsi({ ...h.options, connect: connect(1) });
  assert.deepEqual(asked, [{ host: "t", port: 1 }, { host: "::7", port: 99 }]);
  await disk.close();
  asked.length = 0;
  await assert.rejects(openIscsi({ ...h.options, connect: connect(99) }), fault("io", /redirects to "\[::7\]:99,1", the 4th time/));
  await assert.rejects(openIscsi({ ...h.options, connect: () => Promise.resolve(scripted(loginAnswer([["TargetAddress", "a b"]], (r) => r.setUint16(BHS.loginStatus, 0x0102)))) }), fault("io", /which is no address/));
});

test("answers that come in several PDUs are put together: a login's, and a list of targets cut inside a name", async () => {
  const list = encodeKeys([["TargetName", "iqn.2026-01.org.example:a"], ["TargetAddress", "10.0.0.1:3260,1"], ["TargetAddress", "[::1]:3260,1"], ["TargetName", "iqn.2026-01.org.example:b"]]);
  const text = (flags: number, ttt: number, data: Uint8Array) => (): [DataView<ArrayBuffer>, Uint8Array] => { const r = basicHeader(OP.TEXT_RESPONSE, flags); r.setUint32(BHS.ttt, ttt); return [r, data]; };
  const portal = scripted(
    loginAnswer([["AuthMethod", "None"]]),
    (h) => { const r = basicHeader(OP.LOGIN_RESPONSE, (h.getUint8(BHS.flags) & 0x0c) | 0x40); return [r, encodeKeys([["HeaderDigest", "None"]]).subarray(0, 8)]; },
    (h) => { assert.equal(h.getUint8(BHS.flags) & FINAL, 0); return [basicHeader(OP.LOGIN_RESPONSE, 0x04), encodeKeys([["HeaderDigest", "None"], ["OddKey", "1"]]).subarray(8)]; },
    loginAnswer([["OddKey2", "1"]]),
    text(0x40, 5, list.subarray(0, 20)), text(FINAL, NO_TAG, list.subarray(20)));
  assert.deepEqual(await discoverIscsi({ ...host().options, connect: () => Promise.resolve(portal) }),
    [{ name: "iqn.2026-01.org.example:a", addresses: ["10.0.0.1:3260", "[::1]:3260"] }, { name: "iqn.2026-01.org.example:b", addresses: [] }]);
});

test("each refusal of a login is the fault that it is, and each lie in one is named", async () => {
  const refused = (status: number) => openIscsi({ ...host().options, connect: () => Promise.resolve(scripted(loginAnswer([], (r) => r.setUint16(BHS.loginStatus, status)))) });
  for (const [status, name] of [[0x0201, "denied"], [0x0203, "missing"], [0x0206, "busy"], [0x0205, "unsupported"], [0x0301, "gone"], [0x02ff, "io"]] as const) {
    await assert.rejects(refused(status), fault(name, new RegExp(`status ${status.toString(16).padStart(4, "0")}`)));
  }
  const lies: [RegExp, Keys, ((r: DataView, h: DataView) => void)?][] = [
    [/MaxBurstLength is "9"/, [["MaxBurstLength", "9"]]], [/MaxRecvDataSegmentLength is "1e9"/, [["MaxRecvDataSegmentLength", "1e9"]]], [/HeaderDigest is "CRC32C"/, [["HeaderDigest", "CRC32C"]]],
    [/DataPDUInOrder is "No"/, [["DataPDUInOrder", "No"]]], [/ErrorRecoveryLevel is not 0/, [["ErrorRecoveryLevel", "2"]]], [/goes to stage 2 unasked/, [], (r) => r.setUint8(BHS.flags, 0x86)],
    [/answers in stage 0/, [], (r) => r.setUint8(BHS.flags, 0x83)], [/answers a login with opcode 25/, [], (r) => r.setUint8(0, OP.DATA_IN)], [/goes on and ends at once/, [], (r) => r.setUint8(BHS.flags, 0xc7)],
    [/is no key and value/, [["", "x"]]],
  ];
  for (const [about, keys, fill] of lies) {
    await assert.rejects(openIscsi({ ...host().options, connect: () => Promise.resolve(scripted(loginAnswer([["AuthMethod", "None"]]), loginAnswer(keys, fill))) }), fault("io", about));
  }
  const wants = (...keys: Keys[]) => openIscsi({ ...host().options, chap: { user: "u", secret: "s" }, connect: () => Promise.resolve(scripted(...keys.map((k) => loginAnswer(k)))) });
  await assert.rejects(wants([["AuthMethod", "None"]]), fault("denied", /does not take CHAP/));
  await assert.rejects(wants([["AuthMethod", "CHAP"]], [["CHAP_A", "7"], ["CHAP_I", "1"], ["CHAP_C", "0x00"]]), fault("unsupported", /algorithm "7"/));
  await assert.rejects(wants([["AuthMethod", "CHAP"]], [["CHAP_A", "5"], ["CHAP_I", "256"], ["CHAP_C", "0x00"]]), fault("io", /CHAP_I is "256"/));
  await assert.rejects(wants([["AuthMethod", "CHAP"]], [["CHAP_A", "5"], ["CHAP_I", "1"], ["CHAP_C", `0x${"00".repeat(2000)}`]]), fault("io", /challenge is missing or too long/));
});

/** The bytes a good target says until a read is answered, to spoil. */
async function recorded(): Promise<Uint8Array> {
  const said: Uint8Array[] = [], h = host(), connect: Connect = async (to, ms) => {
    const c = await h.options.connect(to, ms), read = c.read.bind(c);
    return { ...c, read: async () => { const b = await read(); if (b) said.push(b); return b; } };
  };
  const disk = await openIscsi({ ...h.options, connect });
  await disk.read(0, new Uint8Array(512));
  const bytes = Uint8Array.from(said.flatMap((b) => [...b]));
  await disk.close();
  return bytes;
}

test("a target that says anything never crashes or hangs the initiator", async () => {
  const good = await recorded();
  for (let seed = 0; seed < 240; seed++) {
    const next = random(seed), bytes = seed % 8 === 0 ? randomBytes(next, next(400)) : mutated(good, next);
    const connect: Connect = () => {
      const [a, b] = connectionPair("parrot", "initiator");
      void (async () => { try { while (await a.read()); } catch { /* gone */ } })();
      void a.write(bytes).catch(() => {});
      if (seed % 2) a.close();
      return Promise.resolve(b);
    };
    const patience = { connectTimeoutMs: 15, requestTimeoutMs: 5, giveUpMs: 10, retryMs: 1, keepaliveMs: 1000 };
    try {
      const disk = await openIscsi({ ...host().options, ...patience, connect });
      await disk.read(0, new Uint8Array(512));
    } catch (e) {
      assert.ok(e instanceof DiskError, `seed ${seed}: ${e instanceof Error ? e.stack : e}`);
    }
    if (seed % 4 === 0) await discoverIscsi({ ...host().options, ...patience, connect }).catch((e) => assert.ok(e instanceof DiskError, `seed ${seed}: ${e}`));
  }
});

test("SCSI's answers are read whatever their bytes and length", () => {
  for (let seed = 0; seed < 2000; seed++) {
    const next = random(seed), bytes = randomBytes(next, next(80));
    verdict(bytes[0] ?? 2, readSense(bytes));
    readBlockLimits(bytes);
    readIdentity(bytes);
    readLuns(bytes);
    if (bytes.length >= 8) try { readCapacity(bytes, "x"); } catch (e) { assert.ok(e instanceof DiskError); }
  }
});
