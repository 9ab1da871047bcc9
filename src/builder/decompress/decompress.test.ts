import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { UserError } from "../../base/errors.ts";
import { large, small } from "../golden/plain.ts";
import { compressionOf, decompress } from "./decompress.ts";

// golden/make.sh made these with the formats' own tools.
const folder = new URL("../golden/", import.meta.url);
const PACKED = readdirSync(folder).filter((name) => /\.(gz|bz2|xz|lzma|lz4|lzo|zst)$/.test(name));
const read = (name: string): Uint8Array => new Uint8Array(readFileSync(new URL(name, folder)));
const unpack = (b: Uint8Array, name: string, limit?: number): Uint8Array => {
  const compression = compressionOf(b);
  if (compression === undefined) throw new UserError("no magic");
  return decompress(compression, b, { name, ...(limit === undefined ? {} : { limit }) });
};
/** What hostile input may do: give some bytes, or a UserError. */
const survives = (b: Uint8Array, name: string, of: string): Uint8Array | null => {
  try {
    return unpack(b, name, 1 << 20);
  } catch (e) {
    assert.ok(e instanceof UserError, `${of}: ${e instanceof Error ? e.stack : e}`);
    return null;
  }
};

for (const name of PACKED)
  test(`${name} unpacks to what was packed`, () => assert.deepEqual(unpack(read(name), name), name.startsWith("small") ? small() : large()));

for (const name of PACKED.filter((n) => n.startsWith("small")))
  test(`${name} cut off at any length is refused`, () => {
    const b = read(name);
    for (let n = 0; n < b.length; n++) {
      const got = survives(b.subarray(0, n), name, `cut at ${n}`);
      // members, frames and LZ4's blocks carry no count: a cut between two of them leaves a whole, shorter file
      if (got !== null) assert.ok(got.length < 2500 && /members|frames|lz4/.test(name), `cut at ${n} gives ${got.length} bytes`);
    }
  });

for (const name of PACKED.filter((n) => n.startsWith("small")))
  test(`${name} with flipped bits gives a UserError or, where nothing is checked, some bytes`, () => {
    const whole = read(name);
    let x = 12345;
    const random = (n: number): number => { x ^= x << 13; x ^= x >>> 17; x ^= x << 5; return (x >>> 0) % n; };
    for (let round = 0; round < 400; round++) {
      const b = whole.slice();
      for (let flips = 1 + random(3); flips > 0; flips--) { const at = random(b.length); b[at] = (b[at] as number) ^ 1 << random(8); }
      survives(b, name, `round ${round}`);
    }
  });

test("output beyond the limit is refused", () => {
  for (const name of PACKED) assert.throws(() => unpack(read(name), name, 1000), { name: "UserError", message: /more than 1000 bytes/ }, name);
});

test("bytes behind the end are refused", () => {
  for (const name of PACKED) assert.throws(() => unpack(Uint8Array.of(...read(name), 1, 2, 3, 4, 5), name), UserError, name);
});
