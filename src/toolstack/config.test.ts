import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { UserError } from "../base/errors.ts";
import { checkConfig, type DomainConfig, dropImages, fromXl } from "./config.ts";
import { parseXlCfg } from "./xlcfg.ts";

const base = 'name="a"; type="pvh"; kernel="k"; memory=64\n';
const load = (text: string, strict = false) => fromXl(parseXlCfg(text, "f"), "f", { strict });

test("each key has xl's meaning", () => {
  const { domain, warnings } = load(`${base}ramdisk="r"\ncmdline="quiet x=1"\nmaxmem=128\nvcpus=1\nuuid="01234567-89AB-cdef-0123-456789abcdef"
on_poweroff="preserve"\non_reboot="destroy"\non_crash="restart"`);
  assert.deepEqual(warnings, []);
  assert.equal(domain.kernel.path, "k");
  assert.equal(domain.ramdisk?.path, "r");
  assert.deepEqual(domain.config, { name: "a", type: "pvh", cmdline: "quiet x=1", memoryMiB: 64, maxmemMiB: 128, vcpus: 1, maxvcpus: 1, vifs: [], channels: [],
    uuid: "01234567-89AB-cdef-0123-456789abcdef", onPoweroff: "preserve", onReboot: "destroy", onCrash: "restart" });
  const { config } = load(base).domain;
  assert.deepEqual([config.onPoweroff, config.onReboot, config.onCrash], ["destroy", "restart", "destroy"]);
});

test("root and extra make a command line unless cmdline is given (xl_parse.c parse_cmdline)", () => {
  const cmdline = (rest: string) => load(base + rest).domain.config.cmdline;
  assert.equal(cmdline('root="/dev/xvda1 ro"; extra="quiet"'), "root=/dev/xvda1 ro quiet");
  assert.equal(cmdline('root="/dev/xvda1"'), "root=/dev/xvda1");
  assert.equal(cmdline('extra="quiet"'), "quiet");
  assert.equal(cmdline(""), "");
  const { domain, warnings } = load(`${base}root="x"; cmdline="y"`);
  assert.equal(domain.config.cmdline, "y");
  assert.match(warnings[0]!, /ignored in favour of cmdline/);
});

test("numbers may stand in quotes, as xl allows", () => {
  assert.equal(load('name="a"; type="pvh"; kernel="k"; memory="0x40"').domain.config.memoryMiB, 64);
});

test("keys not built yet and unknown keys warn by name; unknown ones are errors when strict", () => {
  const { warnings } = load(`${base}vfb=["x"]\npci=[]\nmemroy=3\nzzzzzz=1`);
  assert.deepEqual(warnings, ['f:2:1: "vfb" (xl.cfg "Devices") is not built yet and is ignored', 'f:4:1: Unknown key "memroy"; did you mean "memory"?', 'f:5:1: Unknown key "zzzzzz"']);
  assert.throws(() => load(`${base}memroy=3`, true), { name: "UserError", message: 'f:2:1: Unknown key "memroy"; did you mean "memory"?' });
});

test("a bad value is refused at its place", () => {
  const faults: [string, RegExp][] = [
    ['type="pvh"; kernel="k"', /^f: No name is set/],
    ['name="a"; kernel="k"', /^f: No type is set, which means "pv"/],
    ['name="a"; type="hvm"; kernel="k"', /^f:1:16: type: "hvm" is not built yet/],
    ['name="a"; type="x"; kernel="k"', /^f:1:16: type: "x" is not one of pv, pvh, hvm/],
    ['name="a"; type="pvh"', /^f: No kernel is set/],
    ['name=""; type="pvh"; kernel="k"', /^f:1:6: name: A domain needs a name/],
    ['name="a/b"; type="pvh"; kernel="k"', /^f:1:6: name: A name has no slash/],
    ['name=["a"]; type="pvh"; kernel="k"', /^f:1:6: name: Expected a string, found a list/],
    [`${base}memory=0`, /^f:2:8: memory: A domain needs at least 1 MiB/],
    [`${base}memory=1000000000`, /^f:2:8: memory: 1000000000 MiB are more than a machine can hold/],
    [`${base}memory="many"`, /^f:2:8: memory: "many" is not a number/],
    [`${base}memory="-1"`, /^f:2:8: memory: "-1" is not a number/],
    [`${base}memory=[1]`, /^f:2:8: memory: Expected a number, found a list/],
    [`${base}maxmem=32`, /^f:2:8: maxmem: 32 MiB are less than memory's 64/],
    [`${base}vcpus=0`, /^f:2:7: vcpus: A domain needs at least one vCPU/],
    [`${base}uuid="x"`, /^f:2:6: uuid: "x" is not a UUID/],
    [`${base}on_crash="explode"`, /^f:2:10: on_crash: "explode" is not one of/],
    [`${base}extra="${"x".repeat(3000)}"`, /^f:2:7: extra: The command line is longer than/],
    [`${base}kernel="a\\0"`, /^f:2:10: Only/],
  ];
  for (const [text, message] of faults) assert.throws(() => load(text), { name: "UserError", message });
});

test("the library refuses the same faults by field", () => {
  const good: DomainConfig = { name: "a", kernel: new Uint8Array(4), memoryMiB: 64 };
  assert.equal(checkConfig(good).onReboot, "restart");
  assert.match(checkConfig(good).uuid, /^[0-9a-f-]{36}$/);
  const bad: [Partial<DomainConfig>, RegExp][] = [[{ name: "" }, /^name: /], [{ kernel: new Uint8Array(0) }, /^kernel: /], [{ memoryMiB: 0 }, /^memory: /],
    [{ memoryMiB: 1e9 }, /^memory: /], [{ memoryMiB: Number.NaN }, /^memory: /], [{ maxmemMiB: 32 }, /^maxmem: /], [{ vcpus: 0 }, /^vcpus: /],
    [{ cmdline: "a\0" }, /^cmdline: /], [{ uuid: "1" }, /^uuid: /], [{ onCrash: "x" as "destroy" }, /^onCrash: /]];
  for (const [change, message] of bad) assert.throws(() => checkConfig({ ...good, ...change }), { name: "UserError", message });
});

test("whatever the values are, a configuration is taken or refused in words", () => {
  const value = fc.oneof(fc.nat().map(String), fc.constantFrom('""', '"pvh"', '"many"', "[]", '["x", 1]', "0", '"0x10"', '"destroy"', "99999999999999999999"), fc.string().map((s) => JSON.stringify(s).replace(/\\u..../g, "?")));
  const key = fc.constantFrom("name", "type", "kernel", "ramdisk", "memory", "maxmem", "vcpus", "uuid", "extra", "cmdline", "root", "on_crash", "builder", "disk", "__proto__", "constructor");
  fc.assert(fc.property(fc.array(fc.tuple(key, value), { maxLength: 8 }), (pairs) => {
    try {
      const { config } = load(pairs.map(([k, v]) => `${k} = ${v}`).join("\n")).domain;
      assert.ok(config.name && Number.isSafeInteger(config.memoryMiB) && config.memoryMiB! > 0);
    } catch (e) { assert.ok(e instanceof UserError, String(e)); }
  }), { numRuns: 2000, seed: 20261123 });
});

test("images are let go of at once, but for bytes that are part of something larger", () => {
  const kernel = new Uint8Array(1 << 16), ramdisk = new Uint8Array(64).subarray(8, 40);
  dropImages(checkConfig({ name: "a", kernel, ramdisk, memoryMiB: 64 }));
  assert.deepEqual([kernel.length, ramdisk.length], [0, 32]);
});
