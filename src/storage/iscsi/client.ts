/** A disk over iSCSI: `openIscsi` logs in and gives a `Disk` that outlives its sessions (peer.ts); `discoverIscsi` asks a portal for its targets. */
import { UserError } from "../../base/errors.ts";
import { addressName, type Connect } from "../../base/stream.ts";
import { DiskError } from "../disk.ts";
import { asDiskError, PeerDisk, type PeerPatience } from "../peer.ts";
import { IscsiLink } from "./lun.ts";
import { type IscsiChap, type IscsiDigests, login, type Negotiated, Redirect } from "./login.ts";
import { basicHeader, BHS, CONTINUE, FINAL, IMMEDIATE, NO_TAG, OP, PduStream } from "./pdu.ts";
import { IscsiSession } from "./session.ts";
import { decodeKeys, encodeKeys } from "./text.ts";
import { type IscsiPortal, isIscsiName, parseIscsiUri, parsePortal } from "./uri.ts";

/** Who logs in, and how. */
export type IscsiLogin = {
  connect: Connect; portal: IscsiPortal;
  /** iqn, eui or naa name of this host */
  initiatorName: string;
  chap?: IscsiChap; /** "none" when left out */ digests?: IscsiDigests;
};
export type IscsiOptions = IscsiLogin & PeerPatience & { target: string; lun: number; /** ask a silent target for a word after this */ keepaliveMs?: number };
/** What a portal has: its targets, each with the addresses it is reached at. */
export type IscsiTarget = { readonly name: string; readonly addresses: readonly string[] };

const REDIRECTS_MAX = 3, TEXT_BYTES_MAX = 1 << 20, KEEPALIVE_MS = 5000;

function checkLogin(o: IscsiLogin, target: string | null): void {
  if (!isIscsiName(o.initiatorName)) throw new UserError(`"${o.initiatorName}" is no iSCSI name for this host; write iqn.YEAR-MONTH.DOMAIN:NAME`);
  if (target !== null && !isIscsiName(target)) throw new UserError(`"${target}" is no iSCSI name of a target`);
  if (o.chap?.mutualSecret !== undefined && o.chap.mutualSecret === o.chap.secret) throw new UserError("CHAP: the target's secret must be another than this host's");
}
/** A fresh ISID of the random kind: RFC 7143 section 11.12.5. */
function makeIsid(): Uint8Array<ArrayBuffer> {
  const isid = crypto.getRandomValues(new Uint8Array(6));
  isid[0] = 0x80;
  return isid;
}

/** Connect and log in, following redirects; all of `work` in `timeoutMs`. The stream is closed when it fails. */
async function withLogin<T>(o: IscsiLogin, target: string | null, isid: Uint8Array, name: string, timeoutMs: number, work: (stream: PduStream, agreed: Negotiated) => Promise<T>): Promise<T> {
  const until = performance.now() + timeoutMs;
  let portal = o.portal;
  for (let nrRedirects = 0; ; nrRedirects++) {
    let stream: PduStream | null = null, timedOut = false, timer: ReturnType<typeof setTimeout> | undefined;
    try {
      stream = new PduStream(await o.connect(portal, Math.max(1, until - performance.now())), name);
      const s = stream;
      timer = setTimeout(() => { timedOut = true; s.close(); }, Math.max(1, until - performance.now()));
      return await work(stream, await login(stream, { initiatorName: o.initiatorName, target, isid, chap: o.chap, digests: o.digests ?? "none" }, name));
    } catch (e) {
      stream?.close();
      if (timedOut) throw new DiskError("gone", `${name}: the target did not finish the login in ${timeoutMs} ms`);
      if (!(e instanceof Redirect)) throw asDiskError(e, name);
      const next = parsePortal(e.address.replace(/,\d+$/, ""));
      if (!next || nrRedirects >= REDIRECTS_MAX) throw new DiskError("io", `${name}: the target redirects to "${e.address.slice(0, 100)}"${next ? `, the ${nrRedirects + 1}th time` : ", which is no address"}`);
      portal = next;
    } finally {
      clearTimeout(timer);
    }
  }
}

/**
 * A disk on an iSCSI target. @param at a URI (its user and secret are CHAP's), or null when `options` names portal, target and unit
 * @throws DiskError `gone`, `missing`, `denied`, `busy`, `unsupported`, `io`; UserError of a bad name or URI
 */
export async function openIscsi(options: IscsiOptions): Promise<PeerDisk> {
  checkLogin(options, options.target);
  if (!Number.isInteger(options.lun) || options.lun < 0 || options.lun > 16383) throw new UserError(`${options.lun} is no unit number; they go from 0 to 16383`);
  // One ISID for all sessions of this disk: a new session takes the place of the one that was lost, and the target ends its tasks.
  const isid = makeIsid(), name = `iscsi://${addressName(options.portal)}/${options.target}/${options.lun}`;
  return PeerDisk.open(name, "iscsi", (timeoutMs) => withLogin(options, options.target, isid, name, timeoutMs, async (stream, agreed) => {
    const session = new IscsiSession(stream, agreed, name, { keepaliveMs: options.keepaliveMs ?? KEEPALIVE_MS });
    try { return await IscsiLink.open(session, options.lun, name); } catch (e) {
      session.fail(asDiskError(e, name));
      throw e;
    }
  }), options);
}
/** The same by URI: iscsi://[user[%password]@]host[:port]/target/lun. */
export async function openIscsiUri(uri: string, options: Omit<IscsiOptions, "portal" | "target" | "lun">): Promise<PeerDisk> {
  const a = parseIscsiUri(uri);
  return openIscsi({ ...options, portal: a.portal, target: a.target, lun: a.lun, ...(a.user === undefined ? {} : { chap: { ...options.chap, user: a.user, secret: a.secret ?? "" } }) });
}

/** SendTargets: RFC 7143 appendix C. @throws DiskError */
export async function discoverIscsi(options: IscsiLogin & { connectTimeoutMs?: number }): Promise<IscsiTarget[]> {
  checkLogin(options, null);
  const name = `iscsi://${addressName(options.portal)}`;
  return withLogin(options, null, makeIsid(), name, options.connectTimeoutMs ?? 10_000, async (stream, agreed) => {
    const found: { name: string; addresses: string[] }[] = [], pieces: Uint8Array[] = [];
    let { cmdSN, expStatSN } = agreed, ttt = NO_TAG, nrBytes = 0;
    for (let isFirst = true, more = true; more; isFirst = false) {
      const h = basicHeader(OP.TEXT, FINAL);
      h.setUint32(BHS.itt, 1);
      h.setUint32(BHS.ttt, ttt);
      h.setUint32(BHS.cmdSN, cmdSN);
      h.setUint32(BHS.expStatSN, expStatSN);
      cmdSN = (cmdSN + 1) >>> 0;
      await stream.send(h, isFirst ? encodeKeys([["SendTargets", "All"]]) : undefined);
      const { opcode, header, data } = await stream.receive(), flags = header.getUint8(BHS.flags);
      if (opcode !== OP.TEXT_RESPONSE) throw new DiskError("io", `${name}: the portal answers SendTargets with opcode ${opcode.toString(16)}`);
      expStatSN = (header.getUint32(BHS.statSN) + 1) >>> 0;
      ttt = header.getUint32(BHS.ttt);
      pieces.push(data);
      if ((nrBytes += data.length + 64) > TEXT_BYTES_MAX) throw new DiskError("io", `${name}: the portal's list of targets is longer than ${TEXT_BYTES_MAX} bytes`);
      more = !(flags & FINAL) || (flags & CONTINUE) !== 0;
      if (more && ttt === NO_TAG) throw new DiskError("io", `${name}: the portal's list of targets goes on without a tag`);
    }
    const text = new Uint8Array(await new Blob(pieces as Uint8Array<ArrayBuffer>[]).arrayBuffer());
    for (const [key, value] of decodeKeys(text, name)) {
      if (key === "TargetName") found.push({ name: value, addresses: [] });
      else if (key === "TargetAddress") found.at(-1)?.addresses.push(value.replace(/,\d+$/, ""));
    }
    const bye = basicHeader(OP.LOGOUT | IMMEDIATE, FINAL);
    bye.setUint32(BHS.itt, 2);
    bye.setUint32(BHS.cmdSN, cmdSN);
    bye.setUint32(BHS.expStatSN, expStatSN);
    await stream.send(bye);
    stream.close(true);
    return found;
  });
}
