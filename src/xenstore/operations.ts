/** What each packet type does, as a table: docs/misc/xenstore.txt, one row a message. */
import { XENSTORE_PAYLOAD_MAX, XS } from "../abi/io/xs_wire.ts";
import { runControl } from "./control.ts";
import { absolute, absoluteOrSpecial, domainPath, leafOf, parentOf } from "./path.ts";
import { ACCESS, accessOf, parsePerms, type Perms, printPerm } from "./perms.ts";
import type { Connection, Store } from "./store.ts";
import { type Node, type NodeParts, removeTree, sizeOf, Transaction, type View } from "./tree.ts";
import { OK, type Packet, parseNumber, parseStrings, strings, XsRefusal } from "./wire.ts";
import type { Watch } from "./watch.ts";

/** One request, and what it works on. */
export type Call = {
  readonly store: Store;
  readonly c: Connection;
  readonly packet: Packet;
  /** the tree, or the transaction of the packet's tx_id */
  readonly view: View;
  readonly transaction: Transaction | undefined;
  /** tell one watch at once, before the changes */
  readonly fire: (w: Watch<Connection>, path: string) => void;
};
/** A row of OPERATIONS. */
export type Operation = {
  readonly name: string;
  readonly dom0?: true;
  /** tx_id means nothing to this operation */
  readonly transaction?: "ignored";
  /** @returns the reply's payload @throws XsRefusal */
  readonly call: (k: Call, payload: Uint8Array) => Uint8Array;
};

const NO_BYTES = new Uint8Array(0);
const MAX_DOMID = 0x7fef, DOMID_SELF = 0x7ff0;

/** The node, when the client may do `access` to it. @throws EACCES, or ENOENT when the client may know that there is none */
function nodeFor(k: Call, path: string, access: number): Node {
  const node = k.view.get(path);
  if (node && (accessOf(node.perms, k.c) & access) === access) return node;
  if (node) throw new XsRefusal("EACCES", path);
  let known: Node | undefined;
  for (let at = path; !known && at !== "/"; known = k.view.get(at)) at = parentOf(at) ?? "/";
  throw new XsRefusal(known && accessOf(known.perms, k.c) & access ? "ENOENT" : "EACCES", path);
}
/** What would be put has its room in the client's quotas. @throws ENOSPC or ENOMEM */
function checkRoom(k: Call, nodes: Iterable<readonly [string, NodeParts]>): void {
  if (k.c.domid === 0) return;
  let bytes = k.store.memoryOf(k.c);
  for (const [path, node] of nodes) {
    const size = sizeOf(node);
    if (size >= k.store.quota.nodeBytes) throw new XsRefusal("ENOSPC", `${path} would take ${size} bytes`);
    bytes += path.length + size;
  }
  if (bytes > k.store.quota.memoryBytes) throw new XsRefusal("ENOMEM", `Domain ${k.c.domid} would take ${bytes} bytes`);
}
function put(k: Call, path: string, node: NodeParts): void {
  checkRoom(k, [[path, node]]);
  k.view.put(path, node);
}
const changed = (k: Call, path: string, ...readers: Perms[]): void => k.view.changed({ path, exact: false, readers });

/** Make the node and its missing ancestors. A node inherits its parent's permissions; what a guest makes it owns. */
function create(k: Call, path: string, value: Uint8Array): void {
  const missing: string[] = [];
  let parent = path, above: Node | undefined;
  for (; !above; above = k.view.get(parent)) {
    missing.push(parent);
    parent = parentOf(parent)!;
  }
  const [{ read, write }, ...others] = above.perms, domid = k.c.domid || above.perms[0].domid;
  const perms: Perms = [{ domid, read, write }, ...others];
  if (k.c.domid !== 0 && k.view.nrOwned(domid) + missing.length > k.store.quota.nrNodes) throw new XsRefusal("ENOSPC", `Domain ${domid} owns ${k.view.nrOwned(domid)} nodes`);
  const top: NodeParts = { ...above, children: new Set(above.children).add(leafOf(missing.at(-1)!)) };
  const made = missing.map((p, i): [string, NodeParts] => [p, { value: i === 0 ? value : NO_BYTES, perms, children: new Set(i === 0 ? [] : [leafOf(missing[i - 1]!)]) }]);
  // All sizes are checked before the first node is put, so a refusal leaves the tree as it was.
  checkRoom(k, [[parent, top], ...made]);
  k.view.put(parent, top);
  for (const [p, n] of made.reverse()) k.view.put(p, n);
  changed(k, path, perms);
}
/** undefined where there is none but the client may make it. */
function nodeToWrite(k: Call, path: string): Node | undefined {
  try {
    return nodeFor(k, path, ACCESS.write);
  } catch (e) {
    if (e instanceof XsRefusal && e.word === "ENOENT") return undefined;
    throw e;
  }
}

const pathOf = (k: Call, s: string | undefined): string => absolute(s ?? "", k.c.domid);
const one = (payload: Uint8Array): string => parseStrings(payload, 1, 1)[0]!;
const domidOf = (s: string | undefined): number => parseNumber(s ?? "", MAX_DOMID);

function list(k: Call, payload: Uint8Array): Uint8Array {
  const reply = strings(...nodeFor(k, pathOf(k, one(payload)), ACCESS.read).children);
  if (reply.length > XENSTORE_PAYLOAD_MAX) throw new XsRefusal("E2BIG", `${reply.length} bytes of names: use DIRECTORY_PART`);
  return reply;
}
/** "generation|name|...": whole names from a byte offset into the list; an empty name ends it. */
function listPart(k: Call, payload: Uint8Array): Uint8Array {
  const [path, offset] = parseStrings(payload, 2, 2), node = nodeFor(k, pathOf(k, path), ACCESS.read);
  const names = strings(...node.children), from = parseNumber(offset!, Number.MAX_SAFE_INTEGER), generation = strings(String(node.generation));
  if (from >= names.length) return Uint8Array.of(...generation, 0);
  const room = XENSTORE_PAYLOAD_MAX - generation.length - 1;
  let to = names.length;
  if (to - from > room) to = names.lastIndexOf(0, from + room - 1) + 1;
  return Uint8Array.of(...generation, ...names.subarray(from, Math.max(to, from)), ...(to === names.length ? [0] : []));
}
function write(k: Call, payload: Uint8Array): Uint8Array {
  const end = payload.indexOf(0);
  if (end < 0) throw new XsRefusal("EINVAL", "The path has no zero byte");
  const path = pathOf(k, one(payload.subarray(0, end + 1))), value = payload.slice(end + 1), node = nodeToWrite(k, path);
  if (node) {
    put(k, path, { ...node, value });
    changed(k, path, node.perms);
  } else create(k, path, value);
  return OK;
}
function mkdir(k: Call, payload: Uint8Array): Uint8Array {
  const path = pathOf(k, one(payload));
  if (!nodeToWrite(k, path)) create(k, path, NO_BYTES);
  return OK;
}
function rm(k: Call, payload: Uint8Array): Uint8Array {
  const path = pathOf(k, one(payload)), node = nodeToWrite(k, path), parent = parentOf(path);
  if (parent === undefined) throw new XsRefusal("EINVAL", "The root stays");
  if (node) removeTree(k.view, path);
  else if (!k.view.get(parent)) throw new XsRefusal("ENOENT", path);
  return OK;
}
function setPerms(k: Call, payload: Uint8Array): Uint8Array {
  const [name, ...list] = parseStrings(payload, 2, XENSTORE_PAYLOAD_MAX);
  if (k.c.domid !== 0 && list.length > k.store.quota.nrPermsPerNode) throw new XsRefusal("ENOSPC", `${list.length} permissions`);
  const perms = parsePerms(list), path = absoluteOrSpecial(name!, k.c.domid), node = nodeFor(k, path, ACCESS.write | ACCESS.owner);
  if (k.c.domid !== 0 && perms[0].domid !== node.perms[0].domid) throw new XsRefusal("EPERM", "Only dom0 gives a node away");
  put(k, path, { ...node, perms });
  changed(k, path, perms, node.perms);
  return OK;
}

function watch(k: Call, payload: Uint8Array): Uint8Array {
  const { c, store } = k, [given, token, depth] = parseStrings(payload, 2, 3) as [string, string, string?];
  const path = absoluteOrSpecial(given, c.domid), prefix = given.startsWith("/") || given.startsWith("@") ? "" : `${domainPath(c.domid)}/`;
  if (c.domid !== 0 && c.nrWatches >= store.quota.nrWatches) throw new XsRefusal("E2BIG", `Domain ${c.domid} has ${c.nrWatches} watches`);
  const bytes = path.length + token.length;
  if (c.domid !== 0 && store.memoryOf(c) + bytes > store.quota.memoryBytes) throw new XsRefusal("ENOMEM", `Domain ${c.domid} has no room for a watch`);
  const w = store.watches.add({ owner: c, path, token, prefix, depth: depth ? parseNumber(depth, XENSTORE_PAYLOAD_MAX) : undefined });
  if (!w) throw new XsRefusal("EEXIST", given);
  c.nrWatches++;
  c.watchBytes += bytes;
  k.fire(w, path);
  return OK;
}
function unwatch(k: Call, payload: Uint8Array): Uint8Array {
  const [given, token] = parseStrings(payload, 2, 2) as [string, string];
  const path = absoluteOrSpecial(given, k.c.domid);
  if (!k.store.watches.remove(k.c, path, token)) throw new XsRefusal("ENOENT", given);
  k.c.nrWatches--;
  k.c.watchBytes -= path.length + token.length;
  return OK;
}

function transactionStart(k: Call): Uint8Array {
  const { c, store } = k;
  if (k.transaction) throw new XsRefusal("EBUSY", "Transactions do not nest");
  if (c.domid !== 0 && c.transactions.size >= store.quota.nrTransactions) throw new XsRefusal("ENOSPC", `${c.transactions.size} transactions`);
  while (c.nextTransaction === 0 || c.transactions.has(c.nextTransaction)) c.nextTransaction = (c.nextTransaction + 1) >>> 0;
  const id = c.nextTransaction;
  c.nextTransaction = (id + 1) >>> 0;
  c.transactions.set(id, new Transaction(store.tree));
  return strings(String(id));
}
function transactionEnd(k: Call, payload: Uint8Array): Uint8Array {
  const answer = one(payload), { c, store, transaction } = k;
  if (answer !== "T" && answer !== "F") throw new XsRefusal("EINVAL", "Neither T nor F");
  if (!transaction) throw new XsRefusal("ENOENT", "No transaction");
  c.transactions.delete(k.packet.tx_id);
  if (answer === "F") return OK;
  const { domid } = c;
  if (domid !== 0 && transaction.nrOwned(domid) > Math.max(store.quota.nrNodes, store.tree.nrOwned(domid))) throw new XsRefusal("ENOSPC", `Domain ${domid} would own ${transaction.nrOwned(domid)} nodes`);
  if (!transaction.commit()) throw new XsRefusal("EAGAIN", "Another changed what this transaction saw");
  return OK;
}

function introduce(k: Call, payload: Uint8Array): Uint8Array {
  const [domid, gfn, port] = parseStrings(payload, 3, 3);
  const d = domidOf(domid);
  k.store.hooks.introduce?.(d, parseNumber(gfn!, Number.MAX_SAFE_INTEGER), parseNumber(port!, 0xffffffff));
  k.store.introduce(d);
  return OK;
}
const introducedOr = (k: Call, s: string | undefined): number => {
  const domid = domidOf(s);
  if (!k.store.introduced.has(domid)) throw new XsRefusal("ENOENT", `Domain ${domid} is not introduced`);
  return domid;
};
function release(k: Call, payload: Uint8Array): Uint8Array {
  const domid = introducedOr(k, one(payload));
  if (domid === 0) throw new XsRefusal("EINVAL", "dom0 stays");
  k.store.hooks.release?.(domid);
  k.store.release(domid);
  return OK;
}

function isIntroduced(k: Call, payload: Uint8Array): Uint8Array {
  const domid = parseNumber(one(payload), 0xffff);
  return strings(domid === DOMID_SELF || k.store.introduced.has(domid) ? "T" : "F");
}

function resume(k: Call, payload: Uint8Array): Uint8Array {
  const domid = introducedOr(k, one(payload));
  if (domid === 0) throw new XsRefusal("EINVAL", "dom0 does not shut down");
  k.store.hooks.resume?.(domid);
  return OK;
}

/** By XS number. */
export const OPERATIONS: Readonly<Record<number, Operation>> = {
  [XS.CONTROL]: { name: "CONTROL", dom0: true, call: (k, payload) => runControl(k.store, payload) },
  [XS.DIRECTORY]: { name: "DIRECTORY", call: list },
  [XS.DIRECTORY_PART]: { name: "DIRECTORY_PART", call: listPart },
  [XS.READ]: { name: "READ", call: (k, payload) => nodeFor(k, pathOf(k, one(payload)), ACCESS.read).value },
  [XS.WRITE]: { name: "WRITE", call: write },
  [XS.MKDIR]: { name: "MKDIR", call: mkdir },
  [XS.RM]: { name: "RM", call: rm },
  [XS.GET_PERMS]: { name: "GET_PERMS", call: (k, payload) => strings(...nodeFor(k, absoluteOrSpecial(one(payload), k.c.domid), ACCESS.read).perms.map(printPerm)) },
  [XS.SET_PERMS]: { name: "SET_PERMS", call: setPerms },
  [XS.WATCH]: { name: "WATCH", transaction: "ignored", call: watch },
  [XS.UNWATCH]: { name: "UNWATCH", transaction: "ignored", call: unwatch },
  [XS.RESET_WATCHES]: { name: "RESET_WATCHES", call: (k) => { k.store.reset(k.c); return OK; } },
  [XS.TRANSACTION_START]: { name: "TRANSACTION_START", call: transactionStart },
  [XS.TRANSACTION_END]: { name: "TRANSACTION_END", call: transactionEnd },
  [XS.GET_DOMAIN_PATH]: { name: "GET_DOMAIN_PATH", call: (_, payload) => strings(domainPath(parseNumber(one(payload), 0xffff))) },
  [XS.IS_DOMAIN_INTRODUCED]: { name: "IS_DOMAIN_INTRODUCED", dom0: true, call: isIntroduced },
  [XS.INTRODUCE]: { name: "INTRODUCE", dom0: true, call: introduce },
  [XS.RELEASE]: { name: "RELEASE", dom0: true, call: release },
  [XS.RESUME]: { name: "RESUME", dom0: true, call: resume },
  [XS.SET_TARGET]: {
    name: "SET_TARGET", dom0: true,
    call: (k, payload) => {
      const [domid, target] = parseStrings(payload, 2, 2);
      k.store.setTarget(introducedOr(k, domid), introducedOr(k, target));
      return OK;
    },
  },
};
