/**
 * What build.mjs puts in place of each program and thread: loads the code of that name, with the bytecode that V8 made of it when it ran before. Node's own cache (NODE_COMPILE_CACHE) is written when
 * a file has just been compiled, and knows none of the functions that V8 compiles when they are called first, which is most of them: 0.1 s of a boot in each thread. Here the bytecode is kept when
 * the program ends, by who runs it: a few times, as no two runs call the same. What cannot be read or written costs time, and nothing else.
 */
"use strict";
const { closeSync, mkdirSync, openSync, readFileSync, renameSync, rmSync, writeFileSync, writeSync } = require("node:fs"), { basename, join } = require("node:path"), { createRequire } = require("node:module"), { isMainThread, threadId } = require("node:worker_threads"), { cachedDataVersionTag, setFlagsFromString } = require("node:v8"), vm = require("node:vm");

const folder = join(__dirname, "code"), name = basename(__filename, ".js"), { flags, needs } = JSON.parse(readFileSync(join(__dirname, "about.json"), "utf8"));
// V8's flags are a process's: threads find them set. With them V8 takes nothing any more of what Node has compiled of its own modules (fit-node.mjs)
if (isMainThread && !flags.every((flag) => process.execArgv.includes(flag))) {
  const needed = [name, process.argv[2]].flatMap((word) => (Object.hasOwn(needs, word) ? needs[word] : []));
  for (const need of needed) require(need);
  // globals whose modules are read when they are first asked for; who has threads runs a machine
  if (needed.includes("node:worker_threads")) for (const lazy of ["crypto", "performance", "ReadableStream", "WritableStream", "TransformStream"]) void globalThis[lazy];
  for (const flag of flags) setFlagsFromString(flag);
  process.execArgv.push(...flags);        // for programs that this one starts
}
/** How often a file's bytecode is kept, and where: V8 takes none that was made by other flags. */
const TIMES = 8, keptIn = join(__dirname, `bytecode-${cachedDataVersionTag()}`);
/** Before V8's own data, which is there twice, as V8 itself does not see what is damaged: how often it was kept (u32). */
const HEADER = 8;
const modules = new Map(), unsettled = [], requireOther = createRequire(join(folder, "any.js"));

/** @returns {{ times: number, bytes?: Buffer }} */
function kept(file) {
  try {
    const all = readFileSync(file), middle = (all.length + HEADER) / 2, bytes = all.subarray(HEADER, middle);
    if (bytes.length > 0 && bytes.equals(all.subarray(middle))) return { times: all.readUInt32LE(0), bytes };
  } catch { /* none yet */ }
  return { times: 0 };
}
function load(name) {
  const known = modules.get(name);
  if (known) return known.exports;
  const module = { exports: {} }, filename = join(folder, name), keptAs = join(keptIn, name), { times, bytes } = kept(keptAs);
  modules.set(name, module);
  const script = new vm.Script(`(function (exports, require, module, __filename) {${readFileSync(filename, "utf8")}\n})`, { filename, cachedData: bytes, importModuleDynamically: vm.constants.USE_MAIN_CONTEXT_DEFAULT_LOADER });
  if (!bytes || script.cachedDataRejected) unsettled.push({ script, keptAs, times: 0, length: 0 });
  else if (times < TIMES) unsettled.push({ script, keptAs, times, length: bytes.length });
  script.runInThisContext()(module.exports, (other) => (other.startsWith("./") ? load(other.slice(2)) : requireOther(other)), module, filename);
  return module.exports;
}
function keep() {
  for (const { script, keptAs, times, length } of unsettled.splice(0)) {
    const next = `${keptAs}.${process.pid}.${threadId}`;
    try {
      const bytes = script.createCachedData(), header = Buffer.alloc(HEADER);
      header.writeUInt32LE(times + 1, 0);
      if (bytes.length < length) {        // V8 drops what was not called for long
        const fd = openSync(keptAs, "r+");
        try { writeSync(fd, header, 0, HEADER, 0); } finally { closeSync(fd); }
        continue;
      }
      mkdirSync(keptIn, { recursive: true });
      writeFileSync(next, Buffer.concat([header, bytes, bytes])); renameSync(next, keptAs);
    } catch { try { rmSync(next, { force: true }); } catch { /* as above */ } }
  }
}
// a thread is ended by who made it, and says before when it has nothing left to do
process.once(isMainThread ? "exit" : "domus:done", keep);
load(`${name}.js`);
