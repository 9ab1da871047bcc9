/**
 * node tools/setup/run.mjs tools/fuzz/qcow2.ts [--seed N] [--seconds 60] [--images N]
 * Damages small qcow2 images, opens them and asks random things of them: whatever they hold, the answer is data or a DiskError, soon and in little memory.
 * A failure prints the seed of its image; --seed S --images 1 plays it again.
 */
import { parseArgs } from "node:util";
import { UserError } from "../../src/base/errors.ts";
import { type Disk, DiskError } from "../../src/storage/disk.ts";
import { FaultyFile, seededRandom } from "../../src/storage/file_faulty.ts";
import { MemoryFile } from "../../src/storage/file_memory.ts";
import { check, repair } from "../../src/storage/qcow2/check.ts";
import { createQcow2 } from "../../src/storage/qcow2/create.ts";
import { openQcow2 } from "../../src/storage/qcow2/qcow2.ts";
import { applySnapshot, createSnapshot, deleteSnapshot, readSnapshots } from "../../src/storage/qcow2/snapshots.ts";
import { RawDisk } from "../../src/storage/raw.ts";
import { runTool } from "../tool.ts";

/** An operation of the file's that is larger, or more of them for one image, is a runaway. */
const MAX_BYTES = 40 << 20, MAX_OPERATIONS = 200_000;

/** A small image with data, zeros, discarded clusters and a snapshot; then damage. */
async function damaged(random: () => number): Promise<MemoryFile> {
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)]!, file = new MemoryFile("fuzz.qcow2"), sizeBytes = pick([64, 700, 3000]) * 512;
  await createQcow2(file, { sizeBytes, clusterBytes: pick([512, 512, 1024, 4096]), ...(random() < 0.3 ? { version: 2 } : { refcountBits: pick([16, 16, 4, 8, 64]) }), ...(random() < 0.3 ? { backing: { path: "base", format: "raw" } } : {}) });
  const disk = await openQcow2(file, { openBacking: base });
  const fill = async () => { for (let i = 0; i < 6; i++) { const n = 1 + Math.floor(random() * 20), at = Math.floor(random() * (sizeBytes / 512 - n)); await disk.write(at * 512, new Uint8Array(n * 512).fill(i + 1)); } };
  await fill();
  if (random() < 0.5) await createSnapshot(disk, "one");
  await disk.writeZeros(0, 20 * 512);
  await fill();
  await disk.close();
  const bytes = file.bytes(), view = new DataView(bytes.buffer), clusters = file.sizeBytes / disk.header.clusterBytes;
  for (let n = 1 + Math.floor(random() ** 2 * 12); n > 0; n--) {
    const r = random(), at = r < 0.4 ? Math.floor(random() * 112) : Math.floor(random() * bytes.length), word = Math.floor(random() * (bytes.length / 8)) * 8;
    if (r < 0.5) bytes[at] = pick([0, 1, 2, 0x7f, 0x80, 0xff, bytes[at]! ^ (1 << Math.floor(random() * 8))]);
    // A table's entry made to lead somewhere else in the file, or out of it.
    else if (r < 0.9) { if (view.getUint32(word + 4) || r < 0.6) view.setBigUint64(word, BigInt(Math.floor(random() * clusters * 1.1) * disk.header.clusterBytes) | (random() < 0.6 ? 1n << 63n : 0n) | (random() < 0.1 ? 1n << 62n : 0n)); }
    else if (r < 0.95) view.setBigUint64(word, pick([0n, 1n << 63n, 0xffffffffffffffffn, 0x7fffffffffffffffn]));
    else return new MemoryFile("fuzz.qcow2", bytes.slice(0, Math.floor(random() * bytes.length)));
  }
  return new MemoryFile("fuzz.qcow2", bytes);
}
const base = async (): Promise<Disk> => new RawDisk(new MemoryFile("base", new Uint8Array(100 * 512).fill(0xbb)), true);

/** Ask things of one damaged image. @returns how many requests were refused @throws what is not a DiskError, and runaways */
export async function fuzzOne(seed: number): Promise<number> {
  const random = seededRandom(seed), file = await damaged(random), startBytes = file.sizeBytes;
  let nrOperations = 0, nrRefused = 0;
  const watched = new FaultyFile(file, { fault: (kind, at, lengthBytes) => {
    if (++nrOperations > MAX_OPERATIONS || lengthBytes > MAX_BYTES) throw new Error(`A runaway: ${kind} of ${lengthBytes} bytes at ${at} is operation ${nrOperations}`);
    return null;
  }, delay: async () => { for (let k = random() * 4; k > 1; k--) await null; } });
  const ask = async (act: () => Promise<unknown>): Promise<void> => {
    try { await act(); } catch (e) { if (!(e instanceof DiskError)) throw e; nrRefused++; }
  };
  await ask(() => check(watched));
  await ask(async () => {
    const disk = await openQcow2(watched, { isReadonly: random() < 0.3, openBacking: base, cacheBytes: 0 }), limit = Math.min(disk.sizeBytes, 4 << 20) / 512;
    // Two at a time: requests meet changes that others of the same table have begun.
    await Promise.all([0, 1].map(async (lane) => {
      for (let i = 0; i < 14 && limit > 0; i++) {
        const n = 1 + Math.floor(random() * Math.min(limit, 40)), at = Math.floor(random() * (limit - n)) * 512, r = random();
        await ask(() => r < 0.3 ? disk.read(at, new Uint8Array(n * 512)) : r < 0.65 ? disk.write(at, new Uint8Array(n * 512).fill(i + lane)) : r < 0.75 ? disk.writeZeros(at, n * 512) : r < 0.85 ? disk.discard(at, n * 512) : r < 0.95 ? disk.flush() : disk.resize(disk.sizeBytes + 512 * 1000));
      }
    }));
    if (!disk.isReadonly && disk.sizeBytes < 1 << 26) {
      await ask(() => createSnapshot(disk, "two"));
      await ask(() => applySnapshot(disk, "one"));
      await ask(() => deleteSnapshot(disk, "one"));
    }
    await ask(() => readSnapshots(watched, disk.metadata.header));
    await disk.close();
  });
  await ask(() => repair(watched, random() < 0.5 ? "leaks" : "all"));
  if (file.usedBytes > startBytes + (64 << 20)) throw new Error(`A runaway: the file takes ${file.usedBytes} bytes`);
  return nrRefused;
}

async function main(): Promise<number> {
  const { values } = parseArgs({ options: { seed: { type: "string", default: String(Date.now() % 1e9) }, seconds: { type: "string", default: "60" }, images: { type: "string" } } });
  const number = (name: string, v: string): number => { const n = Number(v); if (!Number.isFinite(n) || n < 0) throw new UserError(`--${name} "${v}" is not a number`); return n; };
  const first = number("seed", values.seed), end = performance.now() + number("seconds", values.seconds) * 1000, most = values.images === undefined ? Number.POSITIVE_INFINITY : number("images", values.images);
  let nr = 0, nrRefused = 0;
  for (; nr < most && performance.now() < end; nr++) {
    try { nrRefused += await fuzzOne(first + nr); } catch (e) {
      console.log(`seed ${first + nr}: ${e instanceof Error ? e.stack : e}`);
      return 1;
    }
  }
  console.log(`seeds ${first} to ${first + nr - 1}: ${nr} images, ${nrRefused} requests refused, nothing else`);
  return 0;
}

if (process.argv[1] === import.meta.filename) await runTool(import.meta.filename, main);
