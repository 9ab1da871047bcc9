/** iSCSI login, the initiator's side: RFC 7143 sections 6.3 and 13. Security (none or CHAP, one-way or mutual), then operational parameters. */
import { DiskError } from "../disk.ts";
import { md5 } from "./md5.ts";
import { basicHeader, BHS, CONTINUE, FINAL, IMMEDIATE, OP, type PduStream } from "./pdu.ts";
import { decodeBinary, decodeKeys, encodeBinary, encodeKeys, type Keys } from "./text.ts";

/** CHAP: who we are; `mutualUser` and `mutualSecret` when the target must prove itself too. */
export type IscsiChap = { readonly user: string; readonly secret: string; readonly mutualUser?: string; readonly mutualSecret?: string };
/** CRC32C on headers and data: never, where the target agrees, or not without. */
export type IscsiDigests = "none" | "prefer" | "require";
/** Who logs in, to what. */
export type LoginRequest = {
  readonly initiatorName: string; /** null: a discovery session */ readonly target: string | null; readonly isid: Uint8Array; readonly chap?: IscsiChap | undefined; readonly digests: IscsiDigests;
};
/** What was agreed. Lengths in bytes. */
export type Negotiated = {
  readonly initialR2T: boolean; readonly immediateData: boolean; readonly maxBurst: number; readonly firstBurst: number; /** longest data that the target takes in one PDU */ readonly maxSendBytes: number;
  readonly cmdSN: number; readonly expStatSN: number; readonly maxCmdSN: number; readonly tsih: number;
};
/** The target is somewhere else. */
export class Redirect extends Error {
  readonly address: string;
  constructor(address: string) {
    super(`moved to ${address}`);
    this.address = address;
  }
}

/** What we take in one PDU, and what we would like. */
const RECEIVE_BYTES = 256 << 10, MAX_BURST = 1 << 20, FIRST_BURST = 256 << 10;
const EXCHANGES_MAX = 32, TEXT_BYTES_MAX = 64 << 10, CHALLENGE_BYTES_MAX = 1024;
const STAGE = { security: 0, operational: 1, full: 3 } as const;
/** Values that are said and not answered. */
const DECLARED = new Set(["TargetAlias", "TargetAddress", "TargetPortalGroupTag", "TargetName", "MaxRecvDataSegmentLength", "InitiatorAlias"]);

const STATUS: Record<number, [fault: "denied" | "missing" | "busy" | "unsupported" | "gone" | "io", what: string]> = {
  0x0200: ["io", "the login is at fault"], 0x0201: ["denied", "the user or secret is wrong"], 0x0202: ["denied", "this initiator may not use the target"], 0x0203: ["missing", "there is no such target"],
  0x0204: ["missing", "the target was removed"], 0x0205: ["unsupported", "the target speaks another version"], 0x0206: ["busy", "the target has too many connections"], 0x0207: ["io", "a parameter is missing"],
  0x0208: ["io", "the connection does not belong to the session"], 0x0209: ["unsupported", "the target has no such session type"], 0x020a: ["gone", "the session does not exist"],
  0x0300: ["gone", "the target has an error"], 0x0301: ["gone", "the target's service is not available"], 0x0302: ["gone", "the target is out of resources"],
};

/** Log in. The stream has its digests when it returns. @throws DiskError; Redirect */
export async function login(stream: PduStream, request: LoginRequest, name: string): Promise<Negotiated> {
  const l = new Login(stream, request, name);
  return l.run();
}

class Login {
  readonly #stream: PduStream;
  readonly #request: LoginRequest;
  readonly #name: string;
  #stage: 0 | 1 = STAGE.security;
  #cmdSN = 1;
  #expStatSN = 0;
  #maxCmdSN = 1;
  #tsih = 0;
  #nrExchanges = 0;
  readonly #found = new Map<string, string>();
  constructor(stream: PduStream, request: LoginRequest, name: string) {
    this.#stream = stream;
    this.#request = request;
    this.#name = name;
  }
  #lie(what: string): DiskError {
    return new DiskError("io", `${this.#name}: the target breaks the protocol: ${what}`);
  }

  /** Send keys, collect the answer's. @param next the stage to go to, null to stay @returns whether the target went */
  async #exchange(keys: Keys, next: 1 | 3 | null): Promise<{ keys: Keys; went: boolean }> {
    let text = "", bytes = encodeKeys(keys), went = false;
    for (let more = true, goal = next; more; goal = null) {          // what asks for the rest of an answer asks for nothing else
      if (++this.#nrExchanges > EXCHANGES_MAX) throw this.#lie(`the login has no end after ${EXCHANGES_MAX} exchanges`);
      const h = basicHeader(OP.LOGIN | IMMEDIATE, (goal === null ? 0 : FINAL | goal) | (this.#stage << 2));
      new Uint8Array(h.buffer).set(this.#request.isid, BHS.isid);
      // TSIH stays 0: a new session, or one in place of an older with the same ISID, whose tasks the target then ends.
      h.setUint32(BHS.cmdSN, this.#cmdSN);
      h.setUint32(BHS.expStatSN, this.#expStatSN);
      await this.#stream.send(h, bytes);
      const { opcode, header, data } = await this.#stream.receive();
      if (opcode !== OP.LOGIN_RESPONSE) throw this.#lie(`it answers a login with opcode ${opcode.toString(16)}`);
      const status = header.getUint16(BHS.loginStatus), flags = header.getUint8(BHS.flags);
      text += new TextDecoder().decode(data);
      if (text.length > TEXT_BYTES_MAX) throw this.#lie(`its login text is longer than ${TEXT_BYTES_MAX} bytes`);
      if (status >> 8 === 1) {
        const to = decodeKeys(data, this.#name).find(([k]) => k === "TargetAddress")?.[1];
        if (!to) throw this.#lie("it redirects without an address");
        throw new Redirect(to);
      }
      if (status !== 0) {
        const [fault, what] = STATUS[status] ?? ["io", "the target refuses"];
        throw new DiskError(fault, `${this.#name}: login refused with status ${status.toString(16).padStart(4, "0")}: ${what}`);
      }
      if (header.getUint8(3) !== 0) throw new DiskError("unsupported", `${this.#name}: the target speaks iSCSI version ${header.getUint8(3)}`);
      this.#expStatSN = (header.getUint32(BHS.statSN) + 1) >>> 0;
      this.#maxCmdSN = header.getUint32(BHS.maxCmdSN);
      more = (flags & CONTINUE) !== 0;
      went = (flags & FINAL) !== 0;
      if (more && went) throw this.#lie("a login answer goes on and ends at once");
      if (((flags >> 2) & 3) !== this.#stage) throw this.#lie(`it answers in stage ${(flags >> 2) & 3} where ${this.#stage} is`);
      if (went) {
        if (goal === null || (flags & 3) !== goal) throw this.#lie(`it goes to stage ${flags & 3} unasked`);
        this.#tsih = header.getUint16(BHS.tsih);
      }
      bytes = new Uint8Array(0);
    }
    const said = decodeKeys(new TextEncoder().encode(text), this.#name);
    for (const [k, v] of said) this.#found.set(k, v);
    return { keys: said, went };
  }

  async run(): Promise<Negotiated> {
    const { initiatorName, target, chap, digests } = this.#request;
    const who: Keys = [["InitiatorName", initiatorName], ["SessionType", target === null ? "Discovery" : "Normal"], ...(target === null ? [] : [["TargetName", target]] as Keys)];
    await this.#security(who, chap);
    this.#stage = STAGE.operational;
    const list = digests === "none" ? "None" : digests === "prefer" ? "CRC32C,None" : "CRC32C";
    const offers: Keys = [["HeaderDigest", list], ["DataDigest", list], ["MaxRecvDataSegmentLength", `${RECEIVE_BYTES}`], ["DefaultTime2Wait", "2"], ["DefaultTime2Retain", "0"], ["ErrorRecoveryLevel", "0"]];
    if (target !== null) {
      offers.push(["InitialR2T", "No"], ["ImmediateData", "Yes"], ["MaxBurstLength", `${MAX_BURST}`], ["FirstBurstLength", `${FIRST_BURST}`], ["MaxOutstandingR2T", "4"], ["MaxConnections", "1"],
        ["DataPDUInOrder", "Yes"], ["DataSequenceInOrder", "Yes"]);
    }
    this.#stream.dataBytesMax = RECEIVE_BYTES;
    const ours = new Set(offers.map(([k]) => k));
    let answers = offers, went = false;
    while (!went) {
      const answer = await this.#exchange(answers, STAGE.full);
      went = answer.went;
      answers = answer.keys.filter(([k]) => !ours.has(k) && !DECLARED.has(k)).map(([k, v]) => [k, this.#replyTo(k, v)]);
      for (const [k] of answers) ours.add(k);
    }
    return this.#agreed(digests);
  }
  /** What we say to a key that the target began with. */
  #replyTo(key: string, value: string): string {
    switch (key) {
      case "MaxBurstLength": case "FirstBurstLength": case "MaxOutstandingR2T": case "MaxConnections": case "DefaultTime2Wait": case "InitialR2T": case "ImmediateData": return value;
      case "DataPDUInOrder": case "DataSequenceInOrder": return "Yes";
      case "IFMarker": case "OFMarker": return "No";
      case "ErrorRecoveryLevel": case "DefaultTime2Retain": return "0";
      case "iSCSIProtocolLevel": return "1";
      default: return "NotUnderstood";
    }
  }
  #number(key: string, fallback: number, least: number, most: number): number {
    const text = this.#found.get(key);
    if (text === undefined || text === "Irrelevant" || text === "NotUnderstood") return fallback;
    const n = /^0x/i.test(text) ? Number(text) : /^\d+$/.test(text) ? Number(text) : Number.NaN;
    if (!(n >= least && n <= most)) throw this.#lie(`${key} is "${text.slice(0, 40)}"`);
    return n;
  }
  #agreed(digests: IscsiDigests): Negotiated {
    const digest = (key: string): boolean => {
      const v = this.#found.get(key) ?? "None";
      if (v !== "None" && (v !== "CRC32C" || digests === "none")) throw this.#lie(`${key} is "${v.slice(0, 40)}"`);
      if (v === "None" && digests === "require") throw new DiskError("unsupported", `${this.#name}: the target has no ${key}, which was required`);
      return v === "CRC32C";
    };
    this.#stream.hasHeaderDigest = digest("HeaderDigest");
    this.#stream.hasDataDigest = digest("DataDigest");
    const maxBurst = Math.min(this.#number("MaxBurstLength", 262144, 512, 2 ** 24 - 1), MAX_BURST);
    for (const key of ["DataPDUInOrder", "DataSequenceInOrder"]) if ((this.#found.get(key) ?? "Yes") === "No") throw this.#lie(`${key} is "No" where we said "Yes"`);
    if (this.#number("ErrorRecoveryLevel", 0, 0, 2) !== 0) throw this.#lie("ErrorRecoveryLevel is not 0 where we said 0");
    return {
      initialR2T: (this.#found.get("InitialR2T") ?? "Yes") !== "No", immediateData: (this.#found.get("ImmediateData") ?? "Yes") === "Yes", maxBurst,
      firstBurst: Math.min(this.#number("FirstBurstLength", 65536, 512, 2 ** 24 - 1), maxBurst, FIRST_BURST), maxSendBytes: this.#number("MaxRecvDataSegmentLength", 8192, 512, 2 ** 24 - 1),
      cmdSN: this.#cmdSN, expStatSN: this.#expStatSN, maxCmdSN: this.#maxCmdSN, tsih: this.#tsih,
    };
  }

  async #security(who: Keys, chap: IscsiChap | undefined): Promise<void> {
    // With nothing to prove, both steps can be one: go to the next stage at once.
    const first = await this.#exchange([...who, ["AuthMethod", chap ? "CHAP" : "None"]], chap ? null : STAGE.operational);
    const method = this.#found.get("AuthMethod") ?? "None";
    if (!chap) {
      if (method !== "None") throw new DiskError("denied", `${this.#name}: the target wants ${method.slice(0, 40)}, and no user was given`);
      return this.#leave(first.went);
    }
    if (method !== "CHAP") throw new DiskError("denied", `${this.#name}: the target does not take CHAP ("${method.slice(0, 40)}")`);
    await this.#exchange([["CHAP_A", "5"]], null);
    const algorithm = this.#found.get("CHAP_A"), id = this.#number("CHAP_I", -1, 0, 255), challenge = decodeBinary(this.#found.get("CHAP_C") ?? "", CHALLENGE_BYTES_MAX);
    if (algorithm !== "5") throw new DiskError("unsupported", `${this.#name}: the target wants CHAP with algorithm "${algorithm?.slice(0, 40)}"; MD5 is 5`);
    if (id < 0 || !challenge?.length) throw this.#lie("its CHAP challenge is missing or too long");
    const keys: Keys = [["CHAP_N", chap.user], ["CHAP_R", encodeBinary(chapResponse(id, chap.secret, challenge))]];
    if (chap.mutualSecret === undefined) {
      return this.#leave((await this.#exchange(keys, STAGE.operational)).went);
    }
    const ourId = crypto.getRandomValues(new Uint8Array(1))[0]!, ours = crypto.getRandomValues(new Uint8Array(16));
    // Only what is said from here on is an answer to our challenge.
    this.#found.delete("CHAP_N");
    this.#found.delete("CHAP_R");
    const last = await this.#exchange([...keys, ["CHAP_I", `${ourId}`], ["CHAP_C", encodeBinary(ours)]], STAGE.operational);
    const said = decodeBinary(this.#found.get("CHAP_R") ?? "", 16), want = chapResponse(ourId, chap.mutualSecret, ours);
    if (!said || said.length !== 16 || said.reduce((x, b, i) => x | (b ^ want[i]!), 0) !== 0) throw new DiskError("denied", `${this.#name}: the target does not know the secret of its own name`);
    if (chap.mutualUser !== undefined && this.#found.get("CHAP_N") !== chap.mutualUser) throw new DiskError("denied", `${this.#name}: the target calls itself "${this.#found.get("CHAP_N")?.slice(0, 80)}" instead of "${chap.mutualUser}"`);
    await this.#leave(last.went);
  }
  async #leave(went: boolean): Promise<void> {
    if (!went && !(await this.#exchange([], STAGE.operational)).went) throw this.#lie("it stays in the security stage with nothing left to say");
  }
}

/** RFC 1994 section 4.1: MD5 of identifier, secret, challenge. */
export const chapResponse = (id: number, secret: string, challenge: Uint8Array): Uint8Array<ArrayBuffer> => md5(Uint8Array.of(id, ...new TextEncoder().encode(secret), ...challenge));
