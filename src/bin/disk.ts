/** `domus disk`: makes, checks, copies and changes disk images. */
import { lstatSync, renameSync, rmSync, statSync } from "node:fs";
import { dirname, relative, resolve } from "node:path";
import { UserError } from "../base/errors.ts";
import { unzstd } from "../builder/decompress/zstd.ts";
import { copyDisk } from "../storage/copy.ts";
import { type ByteFile, type Disk, DiskError } from "../storage/disk.ts";
import { NodeStore, openNodeFile } from "../storage/file.node.ts";
import { creatableFormats, createDisk, type CreateDiskOptions, diskFormats, openDisk } from "../storage/open.ts";
import { check, repair } from "../storage/qcow2/check.ts";
import { readHeader } from "../storage/qcow2/header.ts";
import { INCOMPAT } from "../storage/qcow2/layout.ts";
import { Qcow2Disk } from "../storage/qcow2/qcow2.ts";
import { applySnapshot, createSnapshot, deleteSnapshot, readSnapshots } from "../storage/qcow2/snapshots.ts";
import { type Option, optionsHelp, parseArgs, type Parsed, numberOption, wordOption } from "./args.ts";
import { type Ending, endings, printLine } from "./terminal.ts";

const OPTIONS: Readonly<Record<string, Option>> = {
  format: { value: "FORMAT", short: "f", help: "the image's format, where its name does not end in it; it is never guessed from what the image holds" },
  to: { value: "FORMAT", short: "O", help: "convert: the new image's format" },
  backing: { value: "FILE", short: "b", help: "create: the image that the new one is a change to" },
  "backing-format": { value: "FORMAT", short: "F", help: "create, clone: its format" },
  cluster: { value: "SIZE", help: "create, clone, convert: qcow2's cluster, 512 to 2M (default: 64K)" },
  "qcow2-version": { value: "2|3", help: "create, clone, convert (default: 3)" },
  "refcount-bits": { value: "N", help: "create, clone, convert: 1 to 64 (default: 16)" },
  snapshot: { value: "NAME", help: "convert: copy this internal snapshot instead of the disk as it is" },
  repair: { value: "leaks|all", help: "check: give leaked clusters back; all: count wrong refcounts anew too" },
  allow: { value: "FOLDER[:FOLDER]", help: "folders whose files may be backing files, beside an image's own folder" },
  json: { help: "the result as JSON on stdout" },
  quiet: { help: "no progress", short: "q" },
  help: { help: "this text", short: "h" },
};
const HELP = `domus disk create FILE SIZE                 an empty image; SIZE like 512M, 10G, 1T; may be left out with --backing
domus disk clone BASE FILE                  a qcow2 image that holds changes to BASE, which must not change any more
domus disk info FILE                        what an image is
domus disk check FILE                       whether an image is whole
domus disk snapshot list|create|apply|delete FILE [NAME]
                                            internal snapshots of a qcow2 image that nobody uses
domus disk convert FROM TO                  copy into a new image, zeros left out
domus disk resize FILE SIZE                 to SIZE, or by +SIZE

${optionsHelp(OPTIONS)}
Formats: ${diskFormats().join(", ")}. A file named *.qcow2 is qcow2, *.raw or *.img is raw; other names want --format.
Ends with 0 when all is well, 1 when check found errors, 2 when an argument or a file is bad, 3 when check found leaks only, 130 on ^C.
`;
type Call = Parsed & { readonly print: (text: string) => void };
const SUFFIXES: Readonly<Record<string, string>> = { qcow2: "qcow2", raw: "raw", img: "raw", vhd: "vhd", vpc: "vhd" };
const UNITS = "KMGTP";

/** Bytes of a size like "10G", "512M", "1536"; whole sectors. */
export function parseSize(text: string): number {
  const found = /^(\d{1,15})(?:([KMGTP])(?:i?B)?)?$/i.exec(text), bytes = found ? Number(found[1]) * 1024 ** (found[2] ? UNITS.indexOf(found[2].toUpperCase()) + 1 : 0) : Number.NaN;
  if (!Number.isSafeInteger(bytes)) throw new UserError(`"${text}" is not a size; sizes are like 512M, 10G, or a number of bytes`);
  if (bytes % 512 !== 0) throw new UserError(`A size of ${text} bytes is not whole sectors of 512`);
  return bytes;
}
const sizeText = (bytes: number): string => {
  let n = bytes, unit = "";
  for (const u of UNITS) { if (n < 1024) break; n /= 1024; unit = `${u}iB`; }
  return unit ? `${Number(n.toFixed(2))} ${unit}` : `${bytes} bytes`;
};
function formatOf(path: string, parsed: Call, option: string): string {
  const said = parsed.options.get(option) ?? SUFFIXES[/\.([^./]+)$/.exec(path)?.[1]?.toLowerCase() ?? ""];
  if (said === undefined) throw new UserError(`${path} does not end in a format's name; say --${option}, one of ${diskFormats().join(", ")}`);
  return said;
}
const storeOf = (parsed: Call): NodeStore => new NodeStore({ roots: parsed.options.get("allow")?.split(":").filter(Boolean) ?? [] });
const unpack = { unzstd: (frame: Uint8Array, options: { limit: number }) => unzstd(frame, options) };
const open = (path: string, parsed: Call, isReadonly: boolean, format = formatOf(path, parsed, "format")): Promise<Disk> => {
  const snapshot = parsed.options.get("snapshot");
  return openDisk({ path, format, store: storeOf(parsed), isReadonly, ...unpack, ...(snapshot === undefined ? {} : { snapshot }) });
};

/** An image that is being written is not what it is read as. Where it may only be read we cannot ask. */
async function refuseInUse(path: string): Promise<void> {
  try { await (await openNodeFile(path, "write")).close(); } catch (e) {
    if (e instanceof DiskError && e.fault !== "denied" && e.fault !== "readonly") throw e;
  }
}

/** What a new image is to be, of the options. */
function creation(parsed: Call, format: string, sizeBytes: number): CreateDiskOptions {
  const cluster = parsed.options.get("cluster"), version = wordOption(parsed, "qcow2-version", ["2", "3"]), refcountBits = numberOption(parsed, "refcount-bits", 1, 64);
  if (format !== "qcow2" && (cluster ?? version ?? refcountBits) !== undefined) throw new UserError(`Clusters, versions and refcounts are qcow2's; ${format} has none`);
  return {
    format, sizeBytes, ...(cluster ? { clusterBytes: parseSize(cluster) } : {}), ...(version ? { version: version === "2" ? 2 : 3 } : {}),
    ...(refcountBits === undefined ? {} : { refcountBits }),
  };
}
/** Make a file whole under its name or not at all: it is written as NAME.part. `fill` closes the file. */
async function makeWhole(path: string, fill: (file: ByteFile) => Promise<void>): Promise<void> {
  const part = `${path}.part`;
  if (isThere(path)) throw new UserError(`${path} exists; remove it first, or give another name`);
  const file = await openNodeFile(part, "create").catch(async (e) => {
    if (e instanceof DiskError && e.fault === "missing") throw new UserError(`${path} cannot be made: its folder does not exist`);
    if (!(e instanceof DiskError && e.fault === "exists")) throw e;
    // Left by one that was killed: whoever still writes it has it locked.
    const left = await openNodeFile(part, "write");
    await left.truncate(0);
    return left;
  });
  try {
    await fill(file);
    await file.close();
    if (isThere(path)) throw new UserError(`${path} was made by somebody else meanwhile`);
    renameSync(part, path);
  } catch (e) {
    await file.close().catch(() => {});
    rmSync(part, { force: true });
    throw e;
  }
}
const isThere = (path: string): boolean => lstatSync(path, { throwIfNoEntry: false }) !== undefined;

async function create(parsed: Call, [path, size]: readonly string[]): Promise<number> {
  const backing = parsed.options.get("backing"), format = formatOf(path!, parsed, "format");
  if (backing !== undefined) return makeOverlay(parsed, backing, path!, format, size);
  if (size === undefined) throw new UserError("How large? domus disk create FILE SIZE");
  await makeWhole(path!, (file) => createDisk(file, creation(parsed, format, parseSize(size))));
  return 0;
}
/** The backing file is named relative to the new image, so that both may move together. It is opened, to know that it can be. */
async function makeOverlay(parsed: Call, base: string, path: string, format: string, size?: string): Promise<number> {
  await refuseInUse(base);
  const backingFormat = formatOf(base, parsed, "backing-format"), disk = await open(base, parsed, true, backingFormat), sizeBytes = size === undefined ? disk.sizeBytes : parseSize(size);
  await disk.close();
  const named = relative(dirname(resolve(path)), resolve(base));
  await makeWhole(path, (file) => createDisk(file, { ...creation(parsed, format, sizeBytes), backing: { path: named, format: backingFormat } }));
  if (named.startsWith("..")) printLine(`${path} names a file outside its folder: who uses it has to allow ${dirname(resolve(base))}`);
  return 0;
}

type Info = Record<string, unknown> & { path: string; format: string; sizeBytes: number; fileBytes: number; allocatedBytes: number };
async function info(parsed: Call, [path]: readonly string[]): Promise<number> {
  const format = formatOf(path!, parsed, "format");
  await (await openNodeFile(path!, "read")).close();
  const stat = statSync(path!), found: Info = { path: path!, format, sizeBytes: 0, fileBytes: stat.size, allocatedBytes: stat.blocks * 512 };
  if (format === "qcow2") {
    const file = await openNodeFile(path!, "read");
    try {
      const h = await readHeader(file), snapshots = await readSnapshots(file, h);
      Object.assign(found, {
        sizeBytes: h.sizeBytes, version: h.version, clusterBytes: h.clusterBytes, refcountBits: 2 ** h.refcountOrder, compression: h.compression, backing: h.backing,
        isDirty: (h.incompatible & INCOMPAT.DIRTY) !== 0n, isMarkedCorrupt: (h.incompatible & INCOMPAT.CORRUPT) !== 0n,
        snapshots: snapshots.map((s) => ({ id: s.id, name: s.name, date: s.date.toISOString(), sizeBytes: s.sizeBytes, vmStateBytes: s.vmStateBytes })),
      });
    } finally { await file.close(); }
  } else {
    const disk = await open(path!, parsed, true, format);
    found.sizeBytes = disk.sizeBytes;
    await disk.close();
  }
  if (parsed.options.has("json")) { parsed.print(`${JSON.stringify(found)}\n`); return 0; }
  const backing = found["backing"] as { path: string; format: string | null } | null | undefined;
  const snapshots = (found["snapshots"] ?? []) as { id: string; name: string; date: string; sizeBytes: number }[];
  parsed.print(`${found.path}: ${format}, a disk of ${sizeText(found.sizeBytes)} (${found.sizeBytes} bytes) in ${sizeText(found.allocatedBytes)} of storage\n`);
  if (format === "qcow2") {
    const state = `${found["isDirty"] ? ", not closed properly" : ""}${found["isMarkedCorrupt"] ? ", marked corrupt" : ""}`;
    parsed.print(`version ${found["version"]}, clusters of ${sizeText(Number(found["clusterBytes"]))}, refcounts of ${found["refcountBits"]} bits, ${found["compression"]}${state}\n`);
  }
  if (backing) parsed.print(`backing file: ${backing.path} (${backing.format ?? "format not stated"})\n`);
  for (const s of snapshots) parsed.print(`snapshot ${s.id}: ${s.name}, ${s.date}, ${sizeText(s.sizeBytes)}\n`);
  return 0;
}

async function checkImage(parsed: Call, [path]: readonly string[]): Promise<number> {
  const format = formatOf(path!, parsed, "format"), what = wordOption(parsed, "repair", ["leaks", "all"]);
  if (format !== "qcow2") throw new UserError(`${path}: only qcow2 images have anything to check`);
  if (!what) await refuseInUse(path!);
  const file = await openNodeFile(path!, what ? "write" : "read");
  try {
    const found = what ? await repair(file, what) : await check(file);
    if (parsed.options.has("json")) parsed.print(`${JSON.stringify({ path, ...found })}\n`);
    else {
      for (const e of found.errors) parsed.print(`${e}\n`);
      const data = `${found.nrDataClusters} clusters of data, ${found.nrCompressedClusters} of them compressed, in ${found.fileClusters}`;
      const state = found.isDirty ? "; it was not closed properly, its refcounts are counted anew at its next use" : "";
      parsed.print(`${path}: ${found.nrErrors} errors, ${found.nrLeaks} leaked clusters; ${data}${state}\n`);
    }
    return found.nrErrors ? 1 : found.nrLeaks ? 3 : 0;
  } finally { await file.close(); }
}

async function snapshot(parsed: Call, [verb, path, name]: readonly string[]): Promise<number> {
  if (verb === "list") return info(parsed, [path!]);
  if (formatOf(path!, parsed, "format") !== "qcow2") throw new UserError(`${path}: only qcow2 images have snapshots`);
  const act = { create: createSnapshot, apply: applySnapshot, delete: deleteSnapshot }[verb!];
  if (!act) throw new UserError(`"${verb}" is none of list, create, apply, delete`);
  if (name === undefined) throw new UserError(`Which snapshot? domus disk snapshot ${verb} FILE NAME`);
  const disk = await open(path!, parsed, false, "qcow2");
  try {
    if (disk instanceof Qcow2Disk) await act(disk, name);
  } finally { await disk.close(); }
  return 0;
}

async function convert(parsed: Call, [from, to]: readonly string[]): Promise<number> {
  const format = formatOf(to!, parsed, "to");
  if (!creatableFormats().includes(format)) throw new UserError(`Images of format "${format}" cannot be made; ${creatableFormats().join(", ")} can`);
  await refuseInUse(from!);
  const source = await open(from!, parsed, true), { signal } = endings();
  let shown = -1;
  const show = (done: number, all: number): void => {
    const percent = all ? Math.floor((100 * done) / all) : 100;
    if (percent === shown || parsed.options.has("quiet") || !process.stderr.isTTY) return;
    process.stderr.write(`\r${to}: ${shown = percent} %${done >= all ? "\n" : ""}`);
  };
  try {
    await makeWhole(to!, async (file) => {
      await createDisk(file, creation(parsed, format, source.sizeBytes));
      await file.close();
      const target = await openDisk({ path: file.name, format, store: new NodeStore() });
      try {
        await copyDisk(source, target, { isTargetZero: true, signal, onProgress: show, grainBytes: format === "raw" ? 4096 : 65536 });
        await target.flush();
      } finally { await target.close(); }
    });
  } catch (e) {
    if (!signal.aborted) throw e;
    const { exitCode, why } = signal.reason as Ending;
    printLine(`${why}; ${to} was not made`);
    return exitCode;
  } finally { await source.close(); }
  return 0;
}

async function resize(parsed: Call, [path, size]: readonly string[]): Promise<number> {
  const disk = await open(path!, parsed, false), bytes = size!.startsWith("+") ? disk.sizeBytes + parseSize(size!.slice(1)) : parseSize(size!);
  try {
    if (bytes < disk.sizeBytes) throw new UserError(`${path} has ${disk.sizeBytes} bytes; making it smaller would cut data off`);
    await disk.resize(bytes);
  } finally { await disk.close(); }
  return 0;
}

type Verb = readonly [least: number, most: number, act: (parsed: Call, words: readonly string[]) => Promise<number>, usage: string];
const VERBS: Readonly<Record<string, Verb>> = {
  create: [1, 2, create, "FILE SIZE"], info: [1, 1, info, "FILE"], check: [1, 1, checkImage, "FILE"],
  clone: [2, 2, (parsed, [base, path]) => makeOverlay(parsed, base!, path!, formatOf(path!, parsed, "format")), "BASE FILE"],
  snapshot: [2, 3, snapshot, "list|create|apply|delete FILE [NAME]"], convert: [2, 2, convert, "FROM TO"], resize: [2, 2, resize, "FILE SIZE"],
};

/** Without what a terminal would obey: names in an image are whatever its maker wrote. */
const plain = (text: string): string => text.replaceAll(/[\x00-\x09\x0b-\x1f\x7f-\x9f]/g, "?");

/** The command. @param print takes what goes to stdout */
export async function disk(args: string[], print: (text: string) => void = (text) => { process.stdout.write(text); }): Promise<number> {
  const parsed: Call = { ...parseArgs(args, OPTIONS, "disk"), print: (text) => print(plain(text)) }, [verb, ...words] = parsed.words;
  if (parsed.options.has("help")) { parsed.print(HELP); return 0; }
  const row = verb !== undefined && Object.hasOwn(VERBS, verb) ? VERBS[verb] : undefined;
  if (!row) throw new UserError(`${verb === undefined ? "What to do" : `"${verb}" is not known`}: domus disk ${Object.keys(VERBS).join("|")} (domus disk --help says more)`);
  const [least, most, act, usage] = row;
  if (words.length < least || words.length > most) throw new UserError(`${words.length < least ? "Something is missing" : `"${words[most]}" is too much`}: domus disk ${verb} ${usage}`);
  try { return await act(parsed, words); } catch (e) { throw e instanceof DiskError ? new UserError(plain(e.message)) : e; }
}
