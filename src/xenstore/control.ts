/** Commands of XS_CONTROL, as a table: docs/misc/xenstore.txt, "CONTROL". The words of the replies are ours, their form is xenstored's. */
import type { Quota, Store } from "./store.ts";
import { parseNumber, parseStrings, strings, XsRefusal } from "./wire.ts";

const QUOTA_NAMES: Readonly<Record<keyof Quota, readonly [name: string, what: string]>> = {
  nrNodes: ["nodes", "Nodes of a domain"],
  nrWatches: ["watches", "Watches of a domain"],
  nrOutstanding: ["outstanding", "Requests of a domain whose events are not taken yet"],
  memoryBytes: ["memory", "Bytes that a domain takes up"],
  nrTransactions: ["transactions", "Transactions of a domain at once"],
  nrTransactionNodes: ["transaction-nodes", "Nodes that a transaction looks at"],
  nrPermsPerNode: ["node-permissions", "Permissions of a node"],
  nodeBytes: ["node-size", "Bytes of a node"],
};
const QUOTAS = Object.entries(QUOTA_NAMES) as [keyof Quota, readonly [string, string]][];
const row = (name: string, value: number, what: string): string => `${name.padEnd(17)}: ${String(value).padStart(8)} ${what}\n`;

function quota(store: Store, args: readonly string[]): string {
  const [word, name, value] = args;
  if (word === undefined) return `Quota settings:\n${QUOTAS.map(([key, [n, what]]) => row(n, store.quota[key], what)).join("")}`;
  if (word === "set" && args.length === 3) {
    const found = QUOTAS.find(([, [n]]) => n === name), nr = parseNumber(value!, 0x7fffffff);
    if (!found || nr < 1) throw new XsRefusal("EINVAL", "No such quota, or a value of 0");
    store.quota[found[0]] = nr;
    return "OK";
  }
  if (args.length !== 1) throw new XsRefusal("EINVAL", "quota [set NAME VALUE|DOMID]");
  const domid = parseNumber(word, 0xffff), c = store.connectionOf(domid);
  if (!c) throw new XsRefusal("ENOENT", `Domain ${domid} is not connected`);
  const used = { nrNodes: store.tree.nrOwned(domid), nrWatches: c.nrWatches, nrTransactions: c.transactions.size, nrOutstanding: c.account.nrOutstanding, memoryBytes: store.memoryOf(c) };
  return `Domain ${domid}:\n${QUOTAS.map(([key, [n]]) => (key in used ? row(n, used[key as keyof typeof used], "").replace(/ \n$/, "\n") : "")).join("")}`;
}
function check(store: Store): string {
  const flaws = store.tree.flaws();
  for (const flaw of flaws) store.hooks.log?.(`xenstore: ${flaw}`);
  return flaws.length ? `${flaws.join("\n")}\n` : "OK";
}
function print(store: Store, [text]: readonly string[]): string {
  store.hooks.log?.(`xenstore control: ${text}`);
  return "OK";
}

type Command = { readonly args: string; readonly least: number; readonly most: number; readonly run: (store: Store, args: readonly string[]) => string };
const COMMANDS: Readonly<Record<string, Command>> = {
  check: { args: "", least: 0, most: 0, run: check },
  help: { args: "", least: 0, most: 0, run: () => Object.entries(COMMANDS).map(([name, c]) => `${name.padEnd(15)} ${c.args}\n`).join("") },
  print: { args: "<string>", least: 1, most: 1, run: print },
  quota: { args: "[set <name> <val>|<domid>]", least: 0, most: 3, run: quota },
};

/** Do a command of dom0's. @returns the reply's payload @throws XsRefusal */
export function runControl(store: Store, payload: Uint8Array): Uint8Array {
  const [name, ...args] = parseStrings(payload, 1, 16), command = Object.hasOwn(COMMANDS, name!) ? COMMANDS[name!]! : undefined;
  if (!command || args.length < command.least || args.length > command.most) throw new XsRefusal("EINVAL", `No such control command: "${name!.slice(0, 32)}"`);
  return strings(command.run(store, args));
}
