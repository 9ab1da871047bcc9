/** What makes a base system somebody's: names, accounts, keys. Told as files to lay over the base system's, so that one base serves many. */
import { UserError } from "../base/errors.ts";
import type { TarEntry } from "../builder/tar.ts";

/** The base system's files that accounts are added to, and the user's first files. */
export type BaseFiles = { readonly passwd: string; readonly shadow: string; readonly group: string; readonly gshadow: string; readonly skel: Readonly<Record<string, Uint8Array>> };
export type Seeds = {
  readonly hostname: string;
  /** "root": no account besides */
  readonly user: string;
  /** crypt(3)'s form; null: no password opens the account */
  readonly passwordHash: string | null;
  /** lines for authorized_keys */
  readonly keys: string;
  /** root's shell on the console without a question */
  readonly autologin: boolean;
  /** sshd's own keys, by file name */
  readonly hostKeys: Readonly<Record<string, Uint8Array>>;
  /** days since 1970, for shadow's last change */
  readonly today: number;
};

const UID = 1000;
/** Groups that Debian's installer puts the first user in, as far as they are of use here. */
const GROUPS = ["adm", "sudo", "systemd-journal"];
/** No password fits it, and yet it is no lock: sshd lets a key in. */
const NO_PASSWORD = "*";

/** @throws UserError unless adduser would take it */
export function checkUser(name: string): string {
  if (!/^[a-z_][a-z0-9_-]{0,31}$/.test(name)) throw new UserError(`Option "--user" wants a name of up to 32 small letters, digits, "_" and "-", not "${name}"`);
  return name;
}
/** @throws UserError unless RFC 1123, 2.1 allows it; one label, since a domain is the network's to give */
export function checkHostname(name: string): string {
  if (!/^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/.test(name)) throw new UserError(`Option "--hostname" wants up to 63 small letters, digits and "-" inside, not "${name}"`);
  return name;
}
/** Public keys, each on a line as sshd(8), AUTHORIZED_KEYS has them. @throws UserError for a private key or another file */
export function checkKeys(text: string, path: string): string {
  if (/PRIVATE KEY/.test(text)) throw new UserError(`Option "--key": ${path} is a private key; give the .pub beside it`);
  const lines = text.split("\n").map((l) => l.trim()).filter((l) => l !== "" && !l.startsWith("#"));
  const odd = lines.find((l) => !/(?:^|\s)(?:ssh-(?:rsa|ed25519|dss)|ecdsa-sha2-\S+|sk-\S+@openssh\.com) [A-Za-z0-9+/]{40,}={0,3}(?:\s|$)/.test(l) || /[\0-\x08\x0b-\x1f]/.test(l));
  if (odd !== undefined || lines.length === 0) throw new UserError(`Option "--key": ${path} has no ssh public key${odd === undefined ? "" : ` in the line "${odd.slice(0, 40)}"`}`);
  return `${lines.join("\n")}\n`;
}

const rows = (text: string): string[][] => text.split("\n").filter((l) => l !== "").map((l) => l.split(":"));
const textOf = (table: readonly (readonly string[])[]): string => `${table.map((r) => r.join(":")).join("\n")}\n`;

/**
 * Add the user and give root the same password.
 * @returns passwd(5), shadow(5), group(5) and gshadow(5)
 * @throws UserError when the base system has the name or the number already
 */
export function addAccounts(base: BaseFiles, seeds: Seeds): Pick<BaseFiles, "passwd" | "shadow" | "group" | "gshadow"> {
  const passwd = rows(base.passwd), shadow = rows(base.shadow), group = rows(base.group), gshadow = rows(base.gshadow), { user } = seeds;
  const hash = seeds.passwordHash ?? NO_PASSWORD, root = shadow.find((r) => r[0] === "root");
  if (!root) throw new UserError("The base system's /etc/shadow has no root; make it again: --update");
  root[1] = hash;
  root[2] = String(seeds.today);
  if (user !== "root") {
    if (passwd.some((r) => r[0] === user) || group.some((r) => r[0] === user)) throw new UserError(`Option "--user": Debian itself has an account or group named "${user}"; take another name`);
    if (passwd.some((r) => r[2] === String(UID)) || group.some((r) => r[2] === String(UID))) throw new UserError(`The base system has the number ${UID} already, which the user is to get; a package given with --include took it`);
    passwd.push([user, "x", String(UID), String(UID), "", `/home/${user}`, "/bin/bash"]);
    shadow.push([user, hash, String(seeds.today), "0", "99999", "7", "", "", ""]);
    for (const table of [group, gshadow]) for (const r of table.filter((x) => GROUPS.includes(x[0]!))) r[3] = [...(r[3] ?? "").split(",").filter((m) => m !== ""), user].join(",");
    group.push([user, "x", String(UID), ""]);
    gshadow.push([user, "!", "", ""]);
  }
  return { passwd: textOf(passwd), shadow: textOf(shadow), group: textOf(group), gshadow: textOf(gshadow) };
}

/** The group's number, as the base system has it. */
function gidOf(group: string, name: string): number {
  const gid = rows(group).find((r) => r[0] === name)?.[2] ?? "";
  if (!/^\d{1,6}$/.test(gid)) throw new UserError(`The base system's /etc/group has no number for "${name}"; make it again: --update`);
  return Number(gid);
}

/** The files to lay over the base system. */
export function seedFiles(base: BaseFiles, seeds: Seeds): TarEntry[] {
  const accounts = addAccounts(base, seeds), shadowGid = gidOf(base.group, "shadow"), { user, hostname } = seeds;
  const file = (path: string, content: string | Uint8Array, more: { mode?: number; uid?: number; gid?: number } = {}): TarEntry =>
    ({ kind: "file", path, bytes: typeof content === "string" ? new TextEncoder().encode(content) : content, ...more });
  const isRoot = user === "root", home = isRoot ? "root" : `home/${user}`, owner = isRoot ? {} : { uid: UID, gid: UID };
  return [
    file("etc/passwd", accounts.passwd), file("etc/shadow", accounts.shadow, { mode: 0o640, gid: shadowGid }),
    file("etc/group", accounts.group), file("etc/gshadow", accounts.gshadow, { mode: 0o640, gid: shadowGid }),
    file("etc/hostname", `${hostname}\n`),
    file("etc/hosts", `127.0.0.1 localhost\n127.0.1.1 ${hostname}\n::1 localhost ip6-localhost ip6-loopback\n`),
    { kind: "symlink", path: "etc/resolv.conf", target: "../run/systemd/resolve/stub-resolv.conf" },
    file("etc/machine-id", ""),      // empty, not absent: the first boot draws one, and does not take itself for an installation (machine-id(5))
    file("etc/locale.conf", "LANG=C.UTF-8\n"), { kind: "symlink", path: "etc/default/locale", target: "../locale.conf" },
    // Younger than /usr: otherwise the first boot makes hardware database, catalogue and linker's cache anew (systemd.unit(5), ConditionNeedsUpdate)
    // memory that the balloon adds beyond the boot's is off line by Debian's default
    file("etc/udev/rules.d/80-memory.rules", 'SUBSYSTEM=="memory", ACTION=="add", ATTR{state}=="offline", ATTR{state}="online"\n'),
    file("etc/.updated", ""), file("var/.updated", ""),
    ...(isRoot ? [] : [
      { kind: "dir", path: home, mode: 0o700, ...owner } as const,
      ...Object.entries(base.skel).map(([name, bytes]) => file(`${home}/${name}`, bytes, owner)),
      file(`etc/sudoers.d/${user}`, `${user} ALL=(ALL) NOPASSWD: ALL\n`, { mode: 0o440 }),
    ]),
    { kind: "dir", path: `${home}/.ssh`, mode: 0o700, ...owner },
    file(`${home}/.ssh/authorized_keys`, seeds.keys, { mode: 0o600, ...owner }),
    ...Object.entries(seeds.hostKeys).map(([name, bytes]) => file(`etc/ssh/${name}`, bytes, { mode: name.endsWith(".pub") ? 0o644 : 0o600 })),
    ...(seeds.autologin ? [
      { kind: "dir", path: "etc/systemd/system/serial-getty@.service.d" } as const,
      file("etc/systemd/system/serial-getty@.service.d/autologin.conf", "[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin root --keep-baud 115200,57600,38400,9600 %I $TERM\n"),
    ] : []),
  ];
}

/** Quote a value for an xl.cfg, where a backslash is an escape in double quotes. */
const quoted = (text: string): string => `"${text.replace(/["\\]/g, "\\$&")}"`;

/** The configuration to run an image by. Paths are the host's, absolute. */
export function imageCfg(image: { name: string; kernel: string; ramdisk: string; disk: string; partition: boolean; mac: string }): string {
  for (const path of [image.kernel, image.ramdisk, image.disk]) {
    if (/[\0-\x1f,]/.test(path)) throw new UserError(`${path}: a disk's path in an xl.cfg can have no comma and no line's end; take another --output`);
  }
  return `name    = ${quoted(image.name)}
type    = "pvh"
kernel  = ${quoted(image.kernel)}
ramdisk = ${quoted(image.ramdisk)}
root    = "/dev/xvda${image.partition ? "1" : ""} ro"
extra   = "console=hvc0"
memory  = 512
disk    = [ ${quoted(`format=raw, vdev=xvda, access=rw, target=${image.disk}`)} ]
vif     = [ "mac=${image.mac}" ]
`;
}
