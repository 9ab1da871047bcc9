/** The command as its user meets it: bad input of every kind ends with a precise line and the right code, before anything is started. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { tinyKernel } from "./tiny-kernel.ts";

const domus = fileURLToPath(new URL("../bin/domus", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "domus-cli-"));
after(() => rmSync(folder, { recursive: true, force: true }));

type Ran = { code: number | null; out: string; err: string };
function run(args: string[], input = ""): Promise<Ran> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [domus, ...args], { cwd: folder, stdio: ["pipe", "pipe", "pipe"] });
    const ran: Ran = { code: null, out: "", err: "" };
    child.stdout.on("data", (b) => { ran.out += b; });
    child.stderr.on("data", (b) => { ran.err += b; });
    child.on("error", reject);
    child.on("close", (code) => resolve({ ...ran, code }));
    child.stdin.end(input);
  });
}
const file = (name: string, content: string | Uint8Array): string => { writeFileSync(join(folder, name), content); return name; };
const cfg = (name: string, rest: string): string => file(`${name}.cfg`, `name = "${name}"\ntype = "pvh"\nmemory = 64\n${rest}`);

/** An ELF64 header with one PT_LOAD of a page and no notes. */
function elf(machine: number, bytes = 0x2000): Uint8Array {
  const image = new Uint8Array(bytes), dv = new DataView(image.buffer);
  image.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  dv.setUint16(16, 2, true); dv.setUint16(18, machine, true); dv.setUint32(20, 1, true);
  dv.setBigUint64(24, 0x100000n, true); dv.setBigUint64(32, 64n, true);
  dv.setUint16(52, 64, true); dv.setUint16(54, 56, true); dv.setUint16(56, 1, true);
  dv.setUint32(64, 1, true); dv.setUint32(68, 5, true); dv.setBigUint64(72, 0x1000n, true);
  dv.setBigUint64(80, 0x100000n, true); dv.setBigUint64(88, 0x100000n, true); dv.setBigUint64(96, 0x1000n, true); dv.setBigUint64(104, 0x1000n, true);
  return image;
}

async function refuses(args: string[], message: RegExp, lines = 1): Promise<void> {
  const { code, out, err } = await run(args);
  const told = `domus ${args.join(" ")}: code ${code}\n${err}`;
  assert.equal(code, 2, told);
  assert.equal(out, "", told);
  assert.match(err, message, told);
  assert.doesNotMatch(err, /^\s+at .*:\d+:\d+/m, told);
  assert.equal(err.trimEnd().split("\n").length, lines, told);
  assert.match(err, /^domus: /, told);
}

test("a wrong command line is answered with a line and code 2", async () => {
  file("k", elf(62));
  const good = cfg("good", 'kernel = "k"');
  await Promise.all([
    refuses(["rum"], /Unknown command "rum"; did you mean "run"\?/),
    refuses(["run"], /Nothing to run/),
    refuses(["run", "--engin", "x", good], /Unknown option "--engin"; did you mean "--engine"\?/),
    refuses(["run", "--engine", "magic", good], /"--engine" is one of auto, interpreter, translator, not "magic"/),
    refuses(["run", "--pcpus", "0", good], /"--pcpus" wants a whole number from 1 to 32, not "0"/),
    refuses(["run", "--pcpus"], /"--pcpus" wants N/),
    refuses(["run", "--strict=1", good], /"--strict" takes no value/),
    refuses(["run", "--symbols", "k", good], /"--symbols" names functions of a profile; give "--profile" too/),
    refuses(["run", "--share", "nowhere", good], /"--share": nowhere does not exist; make the folder/),
    refuses(["run", "--share", "a b=.", good], /"--share": "a b" is no tag: .*; write --share \[TAG=\]FOLDER\[,readonly\]/),
    refuses(["run", "--share", `x=${good}`, good], /"--share": .* is not a folder; share the folder it is in/),
    refuses(["start", "--share", "."], /"--share": Debian's cloud kernel cannot mount it, for it has no 9p; give "--generic" too/),
    refuses(["start", "x"], /takes options only/),
    refuses(["start", "--memory", "many"], /"--memory" wants a whole number/),
  ]);
});

test("a bad configuration is refused at its line and column", async () => {
  mkdirSync(join(folder, "sub"), { recursive: true });
  await Promise.all([
    refuses(["run", "missing.cfg"], /configuration: missing\.cfg does not exist/),
    refuses(["run", "sub"], /configuration: sub is a folder/),
    refuses(["run", file("elf.cfg", elf(62))], /configuration: elf\.cfg is not text/),
    refuses(["run", file("quote.cfg", 'name = "a\n')], /quote\.cfg:1:8: The string that opens here is not closed/),
    refuses(["run", cfg("m0", 'kernel = "k"\nmemory = 0')], /m0\.cfg:5:10: memory: A domain needs at least 1 MiB/),
    refuses(["run", cfg("m1", 'kernel = "k"\nmemory = 1e9')], /m1\.cfg:5:10: memory: "1e9" is not a number/),
    refuses(["run", cfg("m2", 'kernel = "k"\nmemory = "many"')], /m2\.cfg:5:10: memory: "many" is not a number/),
    refuses(["run", cfg("m3", 'kernel = "k"\nmemory = 1000000000')], /m3\.cfg:5:10: memory: 1000000000 MiB are more/),
    refuses(["run", cfg("m4", 'kernel = "k"'), "memory=0"], /command line:1:8: memory: /),
    refuses(["run", cfg("nokernel", "")], /nokernel\.cfg: No kernel is set/),
    refuses(["run", "--strict", cfg("strict", 'kernel = "k"\nmemroy = 1')], /strict\.cfg:5:1: Unknown key "memroy"; did you mean "memory"\?/),
  ]);
});

test("a bad image is refused before anything starts", async () => {
  file("empty", ""); file("text", "hello, I am not a kernel\n".repeat(100)); file("arm", elf(183)); file("nonote", elf(62)); file("cut", elf(62).subarray(0, 0x1800));
  file("pe", Uint8Array.of(0x4d, 0x5a, ...new Uint8Array(4000))); file("half", elf(62).subarray(0, 40));
  file("secret", "x");
  const kernels: [string, RegExp][] = [["empty", /empty/], ["text", /./], ["arm", /./], ["nonote", /note|PVH/], ["cut", /./], ["pe", /./], ["half", /./], ["absent", /absent does not exist/], ["sub", /folder/]];
  mkdirSync(join(folder, "sub"), { recursive: true });
  await Promise.all(kernels.map(([name, message]) => refuses(["run", cfg(`k-${name}`, `kernel = "${name}"`)], message)));
  await refuses(["run", cfg("noramdisk", 'kernel = "nonote"\nramdisk = "absent"')], /noramdisk\.cfg:5:11: ramdisk: absent does not exist/);
  file("halts", tinyKernel([0xfa, 0xf4])); file("big", new Uint8Array(80 << 20));
  await refuses(["run", cfg("bigramdisk", 'kernel = "halts"\nramdisk = "big"')], /bigramdisk: big: the ramdisk of 80 MiB does not fit/);
  await refuses(["run", cfg("one", 'kernel = "halts"'), file("other.cfg", 'name = "one"; type = "pvh"; kernel = "halts"; memory = 16')], /Two domains are named "one"/);
  await refuses(["run", cfg("share", 'kernel = "halts"\np9 = [ "tag=a,security_model=none,path=absent" ]')], /share\.cfg:5:8: p9: absent does not exist; make the folder, or name another/);
  await refuses(["run", "--share", ".", "--share", "sub", cfg("shares", 'kernel = "halts"')], /"--share": shares has a folder with the tag "share" already; write --share OTHER=sub/);
  await refuses(["run", "--engine", "guess", cfg("engine", 'kernel = "halts"')], /engine.*is one of auto, interpreter, translator/);
  await refuses(["run", "--trace", "everything", cfg("trace", 'kernel = "halts"')], /"everything" is no class/);
  if (process.getuid?.() !== 0) {
    chmodSync(join(folder, "secret"), 0);
    await refuses(["run", cfg("unreadable", 'kernel = "secret"')], /secret may not be read/);
  }
});

test("small guests end with the codes that scripts rely on, their console on stdout and the rest on stderr", async () => {
  file("halts", tinyKernel([0xfa, 0xf4])); file("faults", tinyKernel([0x0f, 0x0b])); file("spins", tinyKernel([0xfa, 0xeb, 0xfe]));
  const [halts, faults, both] = [await run(["run", cfg("halts", 'kernel = "halts"'), "--json"]), await run(["run", cfg("faults", 'kernel = "faults"\nwarned = 1'), "--quiet"]),
    await run(["run", cfg("a", 'kernel = "halts"'), cfg("b", 'kernel = "faults"'), "--pcpus=1"])];
  assert.deepEqual([halts.code, halts.out], [0, ""], halts.err);
  const report = JSON.parse(halts.err);
  assert.deepEqual([report.ends, report.pcpus], [["poweroff"], 1]);
  assert.equal(report.domains[0].name, "halts");
  assert.deepEqual([faults.code, faults.out], [3, ""], faults.err);
  assert.match(faults.err, /^domus: faults crashed: Triple fault at 0x100000 \(vCPU 0\)\n/);
  assert.equal(both.code, 3, both.err);
  const child = spawn(process.execPath, [domus, "run", cfg("spins", 'kernel = "spins"')], { cwd: folder, stdio: ["pipe", "ignore", "pipe"] });
  let err = "";
  child.stderr.on("data", (b) => { err += b; });
  setTimeout(() => child.kill("SIGINT"), 2500);
  assert.equal(await new Promise((resolve) => child.on("close", resolve)), 130, err);
  assert.match(err, /^domus: interrupted; the domain is destroyed\n$/);
});

test("the command takes the place of its launcher, with the flags that it has by way of Node", async () => {
  file("spins", tinyKernel([0xfa, 0xeb, 0xfe]));
  const child = spawn(domus, ["run", cfg("spins", 'kernel = "spins"')], { cwd: folder, stdio: ["pipe", "ignore", "pipe"] }), closed = new Promise((resolve) => child.on("close", resolve));
  const words = (): string[] => readFileSync(`/proc/${child.pid}/cmdline`, "utf8").split("\0");
  const { V8_FLAGS, START_FLAGS } = await import(new URL("../bin/fit-node.mjs", import.meta.url).href) as { V8_FLAGS: readonly string[]; START_FLAGS: readonly string[] };
  while (!words().some((w) => /\/domus\.node\.[jt]s$/.test(w))) await new Promise((resolve) => setTimeout(resolve, 20));
  // what was built sets the others itself
  assert.deepEqual(words().filter((w) => w.startsWith("--")), words().some((w) => w.endsWith("/domus.node.js")) ? START_FLAGS : V8_FLAGS);
  child.kill("SIGTERM");
  await closed;
});

test("--profile tells where the time went, as text or as JSON", async () => {
  file("loops", tinyKernel([0xb9, 0x40, 0x4b, 0x4c, 0x00, 0x49, 0x75, 0xfd, 0xfa, 0xf4]));       // mov ecx, 5000000; dec ecx; jnz; cli; hlt
  file("map", "0000000000100000 T count_down\n0000000000200000 D other\n");
  const loops = cfg("loops", 'kernel = "loops"');
  const [text, json, named] = [await run(["run", loops, "--profile", "--pcpus=1"]), await run(["run", loops, "--profile=p.json", "--quiet"]),
    await run(["run", loops, "--profile", "--symbols=map", "--json", "--quiet"])];
  assert.deepEqual([text.code, text.out], [0, ""], text.err);
  assert.match(text.err, /^profile\n {2}pCPU 0 .* s in guests .*\n\nloops: [\d.]+ s, [\d,]+ samples; kernel 100\.0 %, user 0\.0 %, interrupts off 100\.0 %\n/);
  for (const line of [/ 100\.0 % +[\d,]+ +100\.0 % +kernel +0x100000$/m, /^ {2}the kernel carries no symbols; --symbols FILE names its functions$/m, /^ {2}exits .*halt 1/m, /^ {2}hypercalls +none$/m,
    /^ {2}exceptions +none$/m, /^ {2}interrupts +none$/m, /^engine$/m, /^ {2}counters +stubs \d+/m, /\bwalks \d+/]) assert.match(text.err, line);
  assert.deepEqual([json.code, json.out, json.err], [0, "", ""]);
  const profile = JSON.parse(readFileSync(join(folder, "p.json"), "utf8"));
  assert.ok(profile.domains[0].samples > 1000, `${profile.domains[0].samples} samples`);
  assert.deepEqual(profile.domains[0].exits.halt, 1);
  assert.equal(named.code, 0, named.err);
  assert.equal(JSON.parse(named.err).profile.domains[0].places[0].name, "count_down");
  await refuses(["run", loops, "--profile", "--symbols", "absent"], /symbols: absent does not exist/);
  await refuses(["run", loops, "--profile", "--symbols", "loops"], /symbols: loops: no System\.map; its lines look like/);
  await refuses(["run", loops, "--profile=none/here.txt"], /The profile cannot be written to none\/here\.txt: /);
});

test("help and version go to stdout", async () => {
  for (const args of [["help"], ["--help"], ["run", "--help"], ["start", "--help"], ["version"]]) {
    const { code, out, err } = await run(args);
    assert.equal(code, 0);
    assert.match(out, /domus/);
    assert.equal(err, "");
  }
});
