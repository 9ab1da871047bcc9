/**
 * DOMUS_GUEST: what a guest that goes on without having suspended itself relies on beyond memory and registers: what the hypervisor keeps for it (guest_state.ts), its folder of the store
 * and its watches. The body: length of a JSON text (u32), the text, and the pages of Xen's that it maps, 4096 bytes each.
 */
import { EVTCHN_FIFO_MAX_QUEUES } from "../abi/event_channel.ts";
import { concat } from "../base/bytes.ts";
import { GUEST_PARAMS, type GuestState, NR_RUNSTATES, NR_TIMERS, type Place, type PortState, type VcpuState } from "../hypervisor/guest_state.ts";
import { FIFO_PAGES, MAX_GRANT_FRAMES, MAX_VCPUS } from "../hypervisor/objects.ts";
import { Checked, type Raw, rawOf } from "./checked.ts";

/** A node below the guest's folder: bytes as characters of the same number. */
export type GuestNode = { readonly path: string; readonly value: string; readonly perms: readonly string[] };
/** As the guest set it, path and token. */
export type GuestWatch = { readonly path: string; readonly token: string; readonly depth: number | null };
export type Guest = {
  readonly state: GuestState;
  /** its ports of the store's ring and the console's */
  readonly storePort: number; readonly consolePort: number;
  readonly nodes: readonly GuestNode[]; readonly watches: readonly GuestWatch[];
  /** the clock on the wall when it stood still, in ms since 1970 */
  readonly wallMs: number;
};
/** One that stands still; the clock is read with its registers, when it goes. */
export type StoppedGuest = Omit<Guest, "wallMs">;
const LIMIT = { gfn: 2 ** 30, port: 2 ** 17 - 1, nodes: 4096, path: 3072, value: 4096, perms: 32, watches: 4096, u32: 2 ** 32 - 1, ns: Number.MAX_SAFE_INTEGER } as const;
const PAGE = 4096, VIRQS = 23, PRIORITIES = EVTCHN_FIFO_MAX_QUEUES - 1;

const hex = (x: bigint): string => BigInt.asUintN(64, x).toString(16);
/** The record's body. */
export function encodeGuest({ state, ...rest }: Guest): Uint8Array {
  const { pages, params, vcpus, tscAtZero, ...plain } = state;
  const text = new TextEncoder().encode(JSON.stringify({
    ...rest, ...plain, tscAtZero: hex(tscAtZero), params: params.map(([, value]) => hex(value)), vcpus: vcpus.map((v) => ({ ...v, runstateArea: hex(v.runstateArea), timeArea: hex(v.timeArea) })),
  })), length = new DataView(new ArrayBuffer(4));
  length.setUint32(0, text.length, true);
  return concat([new Uint8Array(length.buffer), text, pages]);
}

/** @throws StreamError */
export function parseGuest(body: Uint8Array, name: string): Guest {
  const c = new Checked(name), length = body.length < 4 ? -1 : new DataView(body.buffer, body.byteOffset).getUint32(0, true);
  if (length < 0 || length > body.length - 4) c.fail("no text");
  const o = c.json(body.subarray(4, 4 + length)), pages = body.slice(4 + length), n = c.number.bind(c);
  const gfn = (x: unknown): number => n("gfn", { gfn: x }, 0, LIMIT.gfn - 1), gfnOrNull = (x: unknown): number | null => (x === null ? null : gfn(x));
  const place = (key: string, of: Raw): Place | null => c.orNull(key, of, () => { const p = rawOf(of[key]); return { gfn: gfn(p["gfn"]), offset: n("offset", p, 0, PAGE - 1) }; });
  const vcpu = (x: unknown): VcpuState => {
    const v = rawOf(x), flag = (key: string): boolean => c.flag(key, v);
    return {
      isUp: flag("isUp"), isBlocked: flag("isBlocked"), isPolling: flag("isPolling"), pollPort: n("pollPort", v, 0, LIMIT.u32), upcallVector: n("upcallVector", v, 0, 255),
      info: place("info", v), runstateArea: c.word("runstateArea", v), timeArea: c.word("timeArea", v), timers: c.numbers("timers", v, NR_TIMERS, 0, LIMIT.ns), periodicPeriod: n("periodicPeriod", v, 0, LIMIT.ns),
      runstateNs: c.numbers("runstateNs", v, NR_RUNSTATES, 0, LIMIT.ns), fifo: place("fifo", v), fifoTails: c.numbers("fifoTails", v, EVTCHN_FIFO_MAX_QUEUES, 0, LIMIT.port),
      inShadow: flag("inShadow"), isAfterSti: flag("isAfterSti"), isNmiMasked: flag("isNmiMasked"), isNmiPending: flag("isNmiPending"),
    };
  };
  const port = (x: unknown): PortState => {
    const p = rawOf(x);
    return {
      port: n("port", p, 1, LIMIT.port), state: n("state", p, 0, 5), priority: n("priority", p, 0, PRIORITIES), pending: n("pending", p, 0, 1), lastPriority: n("lastPriority", p, 0, PRIORITIES),
      notifyVcpu: n("notifyVcpu", p, 0, MAX_VCPUS - 1), lastVcpu: n("lastVcpu", p, 0, MAX_VCPUS - 1), remoteDomid: n("remoteDomid", p, 0, 0), virq: n("virq", p, 0, VIRQS),
    };
  };
  const params = c.list("params", o, GUEST_PARAMS.length, (value) => c.word("param", { param: value }));
  if (params.length !== GUEST_PARAMS.length) c.fail(`${params.length} parameters`);
  const state: GuestState = {
    tscAtZero: BigInt.asIntN(64, c.word("tscAtZero", o)), sharedInfoGfn: gfnOrNull(o["sharedInfoGfn"]), callbackVector: n("callbackVector", o, 0, 255), vmAssist: n("vmAssist", o, 0, LIMIT.u32), presetCode: n("presetCode", o, 0, 256),
    params: GUEST_PARAMS.map((index, i) => [index, params[i]!] as const), isFifo: c.flag("isFifo", o), fifoPages: c.list("fifoPages", o, FIFO_PAGES, gfn), ports: c.list("ports", o, LIMIT.port, port),
    grantGfns: c.list("grantGfns", o, MAX_GRANT_FRAMES, gfnOrNull), vcpus: c.list("vcpus", o, MAX_VCPUS, vcpu), pages,
  };
  if (pages.length !== (1 + state.grantGfns.length) * PAGE) c.fail(`${pages.length} bytes of pages`);
  return {
    state, storePort: n("storePort", o, 1, LIMIT.port), consolePort: n("consolePort", o, 1, LIMIT.port), wallMs: n("wallMs", o, 0, LIMIT.ns),
    nodes: c.list("nodes", o, LIMIT.nodes, (x) => {
      const node = rawOf(x), path = c.text("path", node, LIMIT.path), value = c.text("value", node, LIMIT.value), perms = c.list("perms", node, LIMIT.perms, (p) => c.text("perm", { perm: p }, 8));
      if (!isNodePath(path) || /[^\0-\xff]/.test(value) || !perms.every((p) => /^[nrwb]\d{1,5}$/.test(p)) || perms.length === 0) c.fail(`a node "${path.slice(0, 64)}", which no guest has`);
      return { path, value, perms };
    }),
    watches: c.list("watches", o, LIMIT.watches, (x) => {
      const w = rawOf(x);
      return { path: c.text("path", w, LIMIT.path), token: c.text("token", w, LIMIT.path), depth: c.orNull("depth", w, () => n("depth", w, 0, LIMIT.path)) };
    }),
  };
}
/** A path below the folder; "" is the folder. */
const isNodePath = (path: string): boolean => path === "" || (/^[\w@:.-]+(?:\/[\w@:.-]+)*$/.test(path));
