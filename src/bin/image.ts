/** `domus image`: disks with a Debian on them, made from Debian's packages. */
import { existsSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { homedir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { UserError } from "../base/errors.ts";
import { type Option, optionsHelp, type Parsed, parseArgs } from "./args.ts";
import { baseArchive, cfgName, choosePrivilege, drawPassword, FILES, type ImageStamp, makeImage, readStamp, removeImage, sizeText, type Steps, usedBytes } from "./image-build.ts";
import { type Base, baseKey, type ImageChoice, imageKey, PACKAGES } from "./image-recipe.ts";
import { checkHostname, checkKeys, checkUser } from "./image-seed.ts";
import { debianSources, parseSources, type Source, sourcesText } from "./image-sources.ts";
import { makeFolders } from "./paths.ts";
import { needPrograms, Programs } from "./programs.ts";
import { readWhole } from "./run.ts";
import { tableText } from "./table.ts";
import { type Ending, endings, printLine } from "./terminal.ts";

const OPTIONS: Readonly<Record<string, Option>> = {
  name: { value: "NAME", help: 'what the image is called (default: "debian")' },
  output: { value: "DIR", help: "the image's folder (default: var/images/NAME)" },
  suite: { value: "SUITE", help: "Debian's release, as bookworm (default: the one in this computer's apt sources)" },
  mirror: { value: "URI", help: "the archive to fetch from, in place of this computer's apt sources" },
  include: { value: "PKG,...", help: "more packages" },
  size: { value: "SIZE", help: "the disk's size, as 4G or 900M (default: 4G); the file is sparse" },
  partition: { help: "one partition in an MBR, xvda1; otherwise the file system is the whole disk, xvda" },
  hostname: { value: "NAME", help: "the guest's name (default: the image's)" },
  user: { value: "NAME", help: 'the account to log in by, which may sudo (default: "user")' },
  password: { value: "WORD", help: "its password and root's, - to read a line from stdin (default: drawn and printed once; none when a key is given)" },
  key: { value: "FILE", help: "an ssh public key that may log in (default: ~/.ssh/id_*.pub, else a pair made beside the image)" },
  autologin: { help: "root's shell on the console, no questions asked" },
  update: { help: "make the base system anew, from the packages of today" },
  force: { help: "replace an image that was made with other options, or was used" },
  json: { help: "print what there is as JSON, on stdout" },
  quiet: { help: "no progress", short: "q" },
  help: { help: "this text", short: "h" },
};
const HELP = `domus image build debian [options]     make a bootable disk from Debian's packages
domus image list                       the images in var/images
domus image rm NAME [NAME...]          remove images
domus image rm --bases                 remove the base systems that images are made from

An image is a folder: ${FILES.disk}, ${FILES.kernel} and ${FILES.ramdisk}, and NAME.cfg to run it by: domus run var/images/debian/debian.cfg. The base system is kept: an
image of the same packages takes seconds. With the same options there is nothing to do, and nothing is done. It needs mmdebstrap, and root or user namespaces.

${optionsHelp(OPTIONS)}
Ends with 0 when the image is there, 2 when it cannot be made as asked, 130 on ^C; nothing half made is left.
`;
const VAR = fileURLToPath(new URL("../../var/images", import.meta.url));
/** Where base systems are kept, in the folder of images: no image's name begins with a dot. */
const BASES = ".bases";
const MIN_SIZE = 2 ** 29, MAX_SIZE = 2 ** 40;

/** "4G", "900M" or "4GiB" in bytes. */
export function parseSize(text: string): number {
  const [, digits, unit] = /^(\d{1,7})([MG])(?:i?B)?$/i.exec(text) ?? [], bytes = Number(digits) * (unit?.toUpperCase() === "G" ? 2 ** 30 : 2 ** 20);
  if (!(bytes >= MIN_SIZE && bytes <= MAX_SIZE)) throw new UserError(`Option "--size" wants a size from 512M to 1024G, not "${text}"`);
  return bytes;
}
/** An image's name: a file's, and short enough for a domain's. */
export function checkName(name: string): string {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/.test(name)) throw new UserError(`An image's name has up to 63 letters, digits, ".", "_" and "-", and begins with one of the first two; not "${name}"`);
  return name;
}
/** Package names of `--include`. */
export function parseInclude(text: string | undefined): string[] {
  const names = text?.split(/[,\s]+/).filter((n) => n !== "") ?? [], odd = names.find((n) => !/^[a-z0-9][a-z0-9+.-]+$/.test(n));
  if (odd !== undefined) throw new UserError(`Option "--include" wants Debian package names, not "${odd}"`);
  return names;
}

/** The host's apt sources. */
function hostSources(root = "/etc/apt"): Source[] {
  const folder = join(root, "sources.list.d"), files = existsSync(folder) ? readdirSync(folder).filter((f) => /^[\w.-]+\.(?:list|sources)$/.test(f)).sort().map((f) => join(folder, f)) : [];
  return [join(root, "sources.list"), ...files].filter((f) => existsSync(f)).flatMap((f) => parseSources(new TextDecoder().decode(readWhole(f, "apt sources", 1 << 20)), f));
}
/** What the base system is to be made of. */
function baseOf({ options }: Parsed): Base {
  const mirror = options.get("mirror"), wanted = options.get("suite"), epoch = process.env["SOURCE_DATE_EPOCH"];
  if (wanted !== undefined && !/^[a-z]{1,32}$/.test(wanted)) throw new UserError(`Option "--suite" wants a release's name, as bookworm, not "${wanted}"`);
  if (mirror !== undefined && !/^(?:https?|file):\/\/[^\s[\]]+$/.test(mirror)) throw new UserError(`Option "--mirror" wants an archive's URI, not "${mirror}"`);
  if (mirror !== undefined && wanted === undefined) throw new UserError('Option "--mirror" wants "--suite" too');
  const { suite, sources } = mirror === undefined ? debianSources(hostSources(), wanted) : { suite: wanted!, sources: [{ uris: [mirror], suites: [wanted!], components: ["main"] }] };
  return { suite, sources: sourcesText(sources), packages: [...PACKAGES, ...parseInclude(options.get("include"))], ...(epoch === undefined ? {} : { sourceDateEpoch: epoch }) };
}
/** Keys that may log in: those of the option, or the user's own; null when there are none. */
function publicKeys(option: string | undefined): string | null {
  const folder = join(homedir(), ".ssh"), own = existsSync(folder) ? readdirSync(folder).filter((f) => /^id_\w+\.pub$/.test(f)).sort().map((f) => join(folder, f)) : [];
  const paths = option === undefined ? own : [option];
  return paths.length ? paths.map((p) => checkKeys(new TextDecoder().decode(readWhole(p, "key", 1 << 16)), p)).join("") : null;
}
function givenPassword(option: string | undefined): string | undefined {
  const password = option === "-" ? readFileSync(0, "utf8").split(/\r?\n/)[0] : option;
  if (password !== undefined && !/^[^\0-\x1f\x7f]{1,256}$/.test(password)) throw new UserError('Option "--password" wants up to 256 characters on one line');
  return password;
}

/** Progress on stderr: a line for each step; on a terminal the running step's line is rewritten. */
function stepLines(quiet: boolean): Steps {
  let text = "", said = "", begun = 0;
  const tty = process.stderr.isTTY === true && !quiet, write = (s: string) => { if (!quiet) process.stderr.write(s); };
  return {
    step: (what) => { text = what; begun = performance.now(); if (tty) write(text); },
    note: (what) => {
      const phase = what.replace(/,.*/, "");
      if (tty) write(`\r\x1b[K${text}: ${what}`);
      else if (phase !== said) write(`${text}: ${phase}\n`);
      said = phase;
    },
    done: (note = "") => { write(`${tty ? "\r\x1b[K" : ""}${text}${note ? `: ${note}` : ""} (${((performance.now() - begun) / 1000).toFixed(1)} s)\n`); said = ""; },
  };
}

async function build(parsed: Parsed): Promise<number> {
  const { options, words } = parsed, quiet = options.has("quiet");
  if (words.length !== 1 || words[0] !== "debian") throw new UserError(`domus image build makes "debian"${words.length ? `, not "${words.join(" ")}"` : ""}: domus image build debian [options]`);
  const output = options.get("output"), name = checkName(options.get("name") ?? (output === undefined ? "debian" : basename(resolve(output)))), place = output === undefined ? join(VAR, name) : resolve(output);
  const base = baseOf(parsed), keys = publicKeys(options.get("key")), given = givenPassword(options.get("password"));
  const hostname = options.get("hostname");
  const choice: ImageChoice = {
    base: baseKey(base), sizeBytes: parseSize(options.get("size") ?? "4G"), partition: options.has("partition"), autologin: options.has("autologin"), keys,
    hostname: hostname === undefined ? name.toLowerCase().replace(/[^a-z0-9-]/g, "-").replace(/-+$/, "") : checkHostname(hostname), user: checkUser(options.get("user") ?? "user"), password: given ?? null,
  };
  const key = imageKey(choice), there = readStamp(place);
  if (there && there.key === key && !options.has("force") && !options.has("update")) return told(place, there, options.has("json"), null, true);
  if (existsSync(place) && readdirSync(place).length && !options.has("force")) {
    throw new UserError(there ? `${place} has an image ${there.key === key ? "already" : "with other options"}; --force replaces it, --name makes another` : `${place} is not empty and has no image; take another --output, or --force where it is an image that was not finished`);
  }
  needPrograms({ mmdebstrap: "mmdebstrap", tar: "tar", mke2fs: "e2fsprogs", openssl: "openssl", "ssh-keygen": "openssh-client" });
  const controller = endings(), programs = new Programs(controller.signal), steps = stepLines(quiet);
  try {
    const privilege = await choosePrivilege(programs);
    makeFolders(dirname(place));
    const { path } = await baseArchive(join(VAR, BASES), base, options.has("update"), privilege, programs, steps);
    // One without a way in is of no use: a key that was made is in the image's folder, a drawn password is for the console.
    const drawn = given === undefined && options.get("key") === undefined ? drawPassword() : null;
    const stamp = await makeImage(place, name, base.suite, { ...choice, password: given ?? drawn }, key, path, privilege, programs, steps);
    return told(place, stamp, options.has("json"), drawn, false);
  } catch (e) {
    if (!controller.signal.aborted) throw e;
    const ending = controller.signal.reason as Ending;
    printLine(`${ending.why}; nothing half made is left`);
    return ending.exitCode;
  }
}

/** Tell what there is and how to use it. */
function told(place: string, stamp: ImageStamp, asJson: boolean, drawn: string | null, wasThere: boolean): number {
  const at = (f: string): string => join(place, f), key = stamp.keyFile === null ? null : at(stamp.keyFile);
  const report = { ...stamp, keyFile: key, disk: at(FILES.disk), kernel: at(FILES.kernel), ramdisk: at(FILES.ramdisk), config: at(cfgName(stamp.name)), usedBytes: usedBytes(at(FILES.disk)), wasThere, ...(drawn === null ? {} : { password: drawn }) };
  process.stdout.write(asJson ? `${JSON.stringify(report)}\n` : `${[
    `${stamp.name}: Debian ${stamp.suite}, Linux ${stamp.kernelRelease}, in ${place}${wasThere ? " (it was there already)" : ""}`,
    ...(drawn === null ? [] : [`password of ${stamp.user}${stamp.user === "root" ? "" : " and root"}: ${drawn}   (said only now)`]),
    `run it:  domus run ${report.config}`, `log in:  ssh ${key === null ? "" : `-i ${key} `}${stamp.user}@ADDRESS`,
  ].join("\n")}\n`);
  return 0;
}

const listed = (): { place: string; stamp: ImageStamp }[] => (existsSync(VAR) ? readdirSync(VAR).sort() : []).flatMap((f) => {
  const place = join(VAR, f), stamp = f.startsWith(".") ? null : readStamp(place);
  return stamp ? [{ place, stamp }] : [];
});

function list(parsed: Parsed): number {
  if (parsed.words.length) throw new UserError(`domus image list takes options only, not "${parsed.words[0]}"`);
  const images = listed().map(({ place, stamp }) => ({ ...stamp, folder: place, usedBytes: usedBytes(join(place, FILES.disk)) }));
  if (parsed.options.has("json")) { process.stdout.write(`${JSON.stringify(images)}\n`); return 0; }
  const rows = [["NAME", "SUITE", "SIZE", "USED", "KERNEL", "USER", "BUILT"], ...images.map((i) => [basename(i.folder), i.suite, sizeText(i.sizeBytes), sizeText(i.usedBytes), i.kernelRelease, i.user, i.built.slice(0, 10)])];
  process.stdout.write(images.length ? tableText(rows) : "no images; domus image build debian makes one\n");
  return 0;
}

function rm(parsed: Parsed): number {
  if (parsed.options.has("bases")) rmSync(join(VAR, BASES), { recursive: true, force: true });
  else if (parsed.words.length === 0) throw new UserError("domus image rm wants names (domus image list tells them), or --bases");
  const wanted = parsed.words.map((word) => ({ word, place: join(VAR, checkName(word)) })), missing = wanted.find(({ place }) => !readStamp(place));
  if (missing) throw new UserError(`There is no image "${missing.word}" in ${VAR}; domus image list tells what there is`);
  for (const { place } of wanted) removeImage(place);
  return 0;
}

const JSON_HELP = { json: OPTIONS["json"]!, help: OPTIONS["help"]! };
const VERBS: Readonly<Record<string, { options: Readonly<Record<string, Option>>; run(parsed: Parsed): number | Promise<number> }>> = {
  build: { options: OPTIONS, run: build },
  list: { options: JSON_HELP, run: list },
  rm: { options: { bases: { help: "the base systems too" }, help: OPTIONS["help"]! }, run: rm },
};

/** The command. */
export async function image(args: string[]): Promise<number> {
  const [word, ...rest] = args;
  if (word === undefined || word === "--help" || word === "-h" || word === "help") { process.stdout.write(HELP); return word === undefined ? 2 : 0; }
  const verb = Object.hasOwn(VERBS, word) ? VERBS[word]! : undefined;
  if (!verb) throw new UserError(`domus image has the verbs ${Object.keys(VERBS).join(", ")}, not "${word}"`);
  const parsed = parseArgs(rest, verb.options, `image ${word}`);
  if (parsed.options.has("help")) { process.stdout.write(HELP); return 0; }
  return verb.run(parsed);
}
