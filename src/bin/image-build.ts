/**
 * From Debian's archive to a disk: mmdebstrap makes a base system as a tar archive, which is kept; an image is that archive unpacked, the seeds laid over it, and
 * mke2fs told to fill a file system with the tree. Owners are kept without root too, in a user namespace or by fakeroot.
 */
import { randomBytes, randomInt } from "node:crypto";
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { userInfo } from "node:os";
import { join } from "node:path";
import { UserError } from "../base/errors.ts";
import { mbr, PARTITION_AT } from "../builder/mbr.ts";
import { tar } from "../builder/tar.ts";
import { type Base, BaseProgress, baseKey, type ImageChoice, LABEL, mmdebstrapArgs } from "./image-recipe.ts";
import { type BaseFiles, imageCfg, seedFiles } from "./image-seed.ts";
import { makeFolders } from "./paths.ts";
import { findProgram, type Programs } from "./programs.ts";

/** How this user comes to be root inside: mmdebstrap's mode, and what to put before a command that must see owners as they are. */
export type Privilege = { readonly mode: "root" | "unshare" | "fakechroot"; readonly before: readonly string[] };
/** Words about what is under way: `step` begins one, `note` says how far it is, `done` ends it. */
export type Steps = { step(what: string): void; note(text: string): void; done(text?: string): void };
/** What is written beside an image, and read when it is asked for again. */
export type ImageStamp = {
  readonly key: string; readonly name: string; readonly suite: string; readonly kernelRelease: string; readonly nrPackages: number; readonly built: string;
  readonly sizeBytes: number; readonly hostname: string; readonly user: string; readonly mac: string; readonly keyFile: string | null;
};
/** An image's files, by their names in its folder. */
export const FILES = { disk: "disk.img", kernel: "vmlinuz", ramdisk: "initrd.img", stamp: "image.json", key: "id_ed25519" } as const;
export const cfgName = (name: string): string => `${name}.cfg`;

/** Files of a base system that are looked at in plain: kernel and initrd to boot from, accounts to add to, package names to count. */
const FROM_BASE = ["./etc/passwd", "./etc/shadow", "./etc/group", "./etc/gshadow", "./etc/skel", "./var/lib/dpkg/status", "./boot"];

/** Choose by what the system allows. @throws UserError naming the packages that would allow it */
export async function choosePrivilege(programs: Programs): Promise<Privilege> {
  if (process.getuid?.() === 0) return { mode: "root", before: [] };
  const namespace = ["unshare", "--map-root-user", "--map-auto", "--"];
  if (findProgram("newuidmap") && findProgram("unshare") && (await programs.run(namespace[0]!, [...namespace.slice(1), "true"])).code === 0) return { mode: "unshare", before: namespace };
  if (findProgram("fakechroot") && findProgram("fakeroot")) return { mode: "fakechroot", before: ["fakeroot", "--"] };
  const user = userInfo().username;
  throw new UserError(`Making an image needs root, or what stands in for it: apt-get install uidmap (and lines for ${user} in /etc/subuid and /etc/subgid: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ${user}), or apt-get install fakechroot fakeroot`);
}

/** How the host's apt reaches archives, as options for another apt. */
export async function aptOptions(programs: Programs): Promise<string[]> {
  if (!findProgram("apt-config")) return [];
  const { out } = await programs.run("apt-config", ["dump"]);
  return out.split("\n").filter((l) => /^Acquire::(?:https?::(?:Proxy|Timeout|CaInfo|Verify-|Dl-Limit)|Retries|Check-Valid-Until|Check-Date|ForceIPv)\S* "[^"]+";$/.test(l)).map((l) => l.replace(/;$/, ""));
}

/**
 * The base system's archive: the one that is kept, or a new one.
 * @param folder where archives are kept, `base-KEY.tar`
 */
export async function baseArchive(folder: string, base: Base, again: boolean, privilege: Privilege, programs: Programs, steps: Steps): Promise<{ path: string; key: string }> {
  const key = baseKey(base), path = join(folder, `base-${key}.tar`), work = `${path}.${process.pid}.new`, partial = join(work, "base.tar");
  const sources = join(work, "debian.sources");      // its name stands in the base system
  if (existsSync(path) && !again) return { path, key };
  makeFolders(work);
  steps.step(`Make a base system of Debian ${base.suite}`);
  const progress = new BaseProgress();
  try {
    writeFileSync(sources, base.sources, { mode: 0o644 });
    await programs.must("Making the base system", "mmdebstrap", mmdebstrapArgs(base, privilege.mode, await aptOptions(programs), sources, partial), {
      line: (text) => { const said = progress.line(text); if (said) steps.note(said); },
    });
    renameSync(partial, path);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  steps.done(`${progress.nrPackages} packages, ${(statSync(path).size / 2 ** 20).toFixed(0)} MiB`);
  return { path, key };
}

/** A crypt(3) hash, "$6$...". */
export const hashPassword = async (programs: Programs, password: string): Promise<string> =>
  (await programs.must("Hashing the password", "openssl", ["passwd", "-6", "-stdin"], { input: `${password}\n` })).trim();

/** A password to type: of letters and digits that are not mistaken for each other; 78 bits. */
export const drawPassword = (): string => Array.from({ length: 16 }, () => "abcdefghjkmnpqrstuvwxyz23456789"[randomInt(31)]).join("");

/** Make a key pair without a passphrase. @returns the file's folder holds `name` and `name.pub` */
async function makeKey(programs: Programs, path: string, type: string, comment: string): Promise<void> {
  await programs.must("Making an ssh key", "ssh-keygen", ["-q", "-t", type, "-N", "", "-C", comment, "-f", path]);
}

function readBase(folder: string): { files: BaseFiles; kernel: string; ramdisk: string; release: string; nrPackages: number } {
  const text = (name: string): string => readFileSync(join(folder, name), "utf8"), skel = join(folder, "etc/skel");
  const release = readdirSync(join(folder, "boot")).flatMap((f) => /^vmlinuz-(.+)$/.exec(f)?.[1] ?? []).sort((a, b) => a.localeCompare(b, "en", { numeric: true })).at(-1);
  if (!release || !existsSync(join(folder, `boot/initrd.img-${release}`))) throw new UserError("The base system has no kernel with an initrd in /boot; make it again: --update");
  return {
    files: {
      passwd: text("etc/passwd"), shadow: text("etc/shadow"), group: text("etc/group"), gshadow: text("etc/gshadow"),
      skel: Object.fromEntries(readdirSync(skel, { withFileTypes: true }).filter((f) => f.isFile()).map((f) => [f.name, readFileSync(join(skel, f.name))])),
    },
    kernel: join(folder, `boot/vmlinuz-${release}`), ramdisk: join(folder, `boot/initrd.img-${release}`), release,
    nrPackages: text("var/lib/dpkg/status").match(/^Status: install ok installed$/gm)?.length ?? 0,
  };
}

/**
 * $1 base archive, $2 seeds, $3 the tree to be, $4 image, $5 its size in KiB, $6 extended options. Device nodes are left out: a namespace may not make them, and
 * the kernel's devtmpfs has them. The tree goes away where its owners' rights are, whatever happens. Under fakeroot mke2fs fails at a file with capabilities, so
 * there are none: of the packages here only ping has one, and does without by the recipe's sysctl.
 */
const fill = (mode: Privilege["mode"]): string => `set -e
clean() { rm -rf "$3"; }
trap 'clean "$@"' EXIT
trap 'exit 130' INT TERM HUP
mkdir "$3"
tar -x -f "$1" -C "$3" --numeric-owner --same-owner -p${mode === "fakechroot" ? "" : " --xattrs '--xattrs-include=*'"} '--exclude=./dev/?*' '--exclude=./run/?*'
tar -x -f "$2" -C "$3" --numeric-owner --same-owner -p
mke2fs -q -F -t ext4 -b 4096 -m 1 -L ${LABEL} -E "$6" -d "$3" "$4" "$5"k
`;

/**
 * Make an image in a folder of its own, which is put in place when it is whole.
 * @param place the folder to be
 */
export async function makeImage(place: string, name: string, suite: string, choice: ImageChoice, key: string, basePath: string, privilege: Privilege, programs: Programs, steps: Steps): Promise<ImageStamp> {
  const work = `${place}.${process.pid}.new`, at = (file: string): string => join(work, file), from = at("from-base");
  // Journal and inode tables come on top of the files; mke2fs would say "Could not allocate block".
  const wantedBytes = statSync(basePath).size * 1.1 + 2 ** 26;
  if (choice.sizeBytes < wantedBytes) throw new UserError(`Option "--size": what is to be on the disk takes ${sizeText(wantedBytes)}, more than ${sizeText(choice.sizeBytes)}`);
  steps.step("Lay accounts and keys over it");
  try {
    makeFolders(from, 0o700);
    await programs.must("Reading the base system", "tar", ["-x", "-f", basePath, "-C", from, "--no-same-owner", "--no-same-permissions", ...FROM_BASE]);
    const base = readBase(from), epoch = process.env["SOURCE_DATE_EPOCH"], now = epoch !== undefined && /^\d{1,11}$/.test(epoch) ? Number(epoch) : Math.floor(Date.now() / 1000);
    let keys = choice.keys;
    if (keys === null) {
      await makeKey(programs, at(FILES.key), "ed25519", `${choice.user}@${choice.hostname}`);
      keys = readFileSync(at(`${FILES.key}.pub`), "utf8");
    }
    const hostKeys: Record<string, Uint8Array> = {};
    for (const type of ["ed25519", "ecdsa"]) {
      const file = `ssh_host_${type}_key`;
      await makeKey(programs, at(file), type, `root@${choice.hostname}`);
      for (const f of [file, `${file}.pub`]) { hostKeys[f] = readFileSync(at(f)); rmSync(at(f)); }
    }
    const passwordHash = choice.password === null ? null : await hashPassword(programs, choice.password);
    const seeds = seedFiles(base.files, { hostname: choice.hostname, user: choice.user, passwordHash, keys, autologin: choice.autologin, hostKeys, today: Math.floor(now / 86400) });
    writeFileSync(at("seeds.tar"), tar(seeds, now), { mode: 0o600 });
    steps.done();

    steps.step(`Fill a disk of ${sizeText(choice.sizeBytes)}`);
    const begin = choice.partition ? PARTITION_AT : 0;
    writeFileSync(at(FILES.disk), choice.partition ? mbr(choice.sizeBytes, randomBytes(4).readUInt32LE()) : "", { mode: 0o600 });
    truncateSync(at(FILES.disk), choice.sizeBytes);
    const extended = ["root_owner=0:0", "assume_storage_prezeroed=1", ...(begin ? [`offset=${begin}`] : [])].join(",");
    await programs.must("Filling the disk", privilege.before[0] ?? "sh", [...privilege.before.slice(1), ...(privilege.before.length ? ["sh"] : []), "-c", fill(privilege.mode), "sh",
      basePath, at("seeds.tar"), at("tree"), at(FILES.disk), String((choice.sizeBytes - begin) / 1024), extended]);
    renameSync(base.kernel, at(FILES.kernel));
    renameSync(base.ramdisk, at(FILES.ramdisk));
    rmSync(from, { recursive: true });
    rmSync(at("seeds.tar"));
    const stamp: ImageStamp = {
      key, name, suite, kernelRelease: base.release, nrPackages: base.nrPackages, built: new Date(now * 1000).toISOString(), sizeBytes: choice.sizeBytes, hostname: choice.hostname, user: choice.user,
      mac: `00:16:3e:${[...randomBytes(3)].map((b, i) => (i ? b : b & 0x7f).toString(16).padStart(2, "0")).join(":")}`, keyFile: choice.keys === null ? FILES.key : null,
    };
    writeFileSync(at(cfgName(name)), imageCfg({ name, kernel: join(place, FILES.kernel), ramdisk: join(place, FILES.ramdisk), disk: join(place, FILES.disk), partition: choice.partition, mac: stamp.mac }));
    writeFileSync(at(FILES.stamp), `${JSON.stringify(stamp, null, 1)}\n`);
    removeImage(place);
    renameSync(work, place);
    steps.done(`${stamp.nrPackages} packages, ${sizeText(usedBytes(join(place, FILES.disk)))} used`);
    return stamp;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** The stamp of the image in a folder; null where there is none, or half of one. */
export function readStamp(folder: string): ImageStamp | null {
  try {
    const stamp = JSON.parse(readFileSync(join(folder, FILES.stamp), "utf8")) as ImageStamp;
    const whole = typeof stamp.key === "string" && typeof stamp.name === "string" && [FILES.disk, FILES.kernel, FILES.ramdisk, cfgName(stamp.name)].every((f) => existsSync(join(folder, f)));
    return whole ? stamp : null;
  } catch { return null; }
}

/** Remove an image's files and its folder. What somebody put beside an image is theirs. @throws UserError when there is such a thing, and nothing is removed then */
export function removeImage(folder: string): void {
  if (!existsSync(folder)) return;
  const name = readStamp(folder)?.name, ours = new Set<string>([...Object.values(FILES), `${FILES.key}.pub`, ...(name === undefined ? [] : [cfgName(name)])]);
  const others = readdirSync(folder).filter((f) => !ours.has(f));
  if (others.length) throw new UserError(`${folder} has files besides an image's (${others.slice(0, 3).join(", ")}${others.length > 3 ? " ..." : ""}); move them away`);
  rmSync(folder, { recursive: true });
}

/** What a sparse file takes on the disk. */
export const usedBytes = (path: string): number => statSync(path).blocks * 512;
/** A size for people. */
export const sizeText = (bytes: number): string => (bytes >= 2 ** 30 && bytes % 2 ** 30 === 0 ? `${bytes / 2 ** 30} GiB` : `${Math.round(bytes / 2 ** 20)} MiB`);
