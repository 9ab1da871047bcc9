/** The opcode table: general-purpose, control and system instructions. SDM Vol. 2D, appendix A. */
import { row, type RowOptions } from "./rows.ts";
import * as s from "./semantics.ts";
import type { Semantics } from "./semantics.ts";
import * as c from "./semantics-control.ts";
import * as y from "./semantics-system.ts";
import { FS, GS, VECTOR } from "./state.ts";

const lock: RowOptions = { lock: true }, def64: RowOptions = { size64: "default" }, near: RowOptions = { size64: "always" }, legacy: RowOptions = { mode: 32 }, sys: RowOptions = { flow: "sys" };
const alus: [string, Semantics][] = [["add", s.add], ["or", s.or], ["adc", s.adc], ["sbb", s.sbb], ["and", s.and], ["sub", s.sub], ["xor", s.xor], ["cmp", s.cmp]];
alus.forEach(([name, sem], i) => {
  const o = i * 8, l: RowOptions = { lock: name !== "cmp" };
  row(o, "Eb,Gb", name, sem, l); row(o + 1, "Ev,Gv", name, sem, l); row(o + 2, "Gb,Eb", name, sem); row(o + 3, "Gv,Ev", name, sem); row(o + 4, "Ab,Ib", name, sem); row(o + 5, "Av,Iz", name, sem);
  row(0x80, "Eb,Ib", name, sem, { ext: i, ...l }); row(0x81, "Ev,Iz", name, sem, { ext: i, ...l }); row(0x83, "Ev,Is", name, sem, { ext: i, ...l });
  row(0x82, "Eb,Ib", name, sem, { ext: i, ...l, ...legacy });
});
for (const [seg, push, pop] of [[0, 0x06, 0x07], [1, 0x0e, 0], [2, 0x16, 0x17], [3, 0x1e, 0x1f]] as const) {
  row(push, `s${seg}v`, "push", c.pushSeg, legacy);
  if (pop) row(pop, `s${seg}v`, "pop", c.popSeg, { ...legacy, ...sys });
}
for (const [seg, op] of [[4, 0x1a0], [5, 0x1a8]] as const) { row(op, `s${seg}v`, "push", c.pushSeg, def64); row(op + 1, `s${seg}v`, "pop", c.popSeg, { ...def64, ...sys }); }
row(0x27, "b", "daa", s.daa, legacy); row(0x2f, "b", "das", s.das, legacy); row(0x37, "b", "aaa", s.aaa, legacy); row(0x3f, "b", "aas", s.aas, legacy);
row(0xd4, "Ib", "aam", s.aam, legacy); row(0xd5, "Ib", "aad", s.aad, legacy); row(0xd6, "b", "salc", s.salc, legacy);
row(0x60, "v", "pusha", c.pusha, legacy); row(0x61, "v", "popa", c.popa, legacy); row(0x62, "Gv,M", "bound", c.bound, { ...legacy, mod: "m" });
row(0x63, "Gv,Ez", "movsxd", s.movsx, { mode: 64 }); row(0x63, "Ew,Gw", "arpl", y.arpl, legacy);
row(0x68, "Iz", "push", c.pushImm, def64); row(0x6a, "Is", "push", c.pushImm, def64);
row(0x69, "Gv,Ev,Iz", "imul", s.imul3); row(0x6b, "Gv,Ev,Is", "imul", s.imul3);
for (let r = 0; r < 8; r++) {
  row(0x50 + r, "Zv", "push", c.push, def64); row(0x58 + r, "Zv", "pop", c.pop, def64);
  row(0xb0 + r, "Zb,Ib", "mov", s.mov); row(0xb8 + r, "Zv,Iv", "mov", s.mov); row(0x1c8 + r, "Zv", "bswap", s.bswap);
  row(0x40 + r, "Zv", "inc", s.inc, legacy); row(0x48 + r, "Zv", "dec", s.dec, legacy);
  if (r) row(0x90 + r, "Zv,Av", "xchg", s.xchg);
}
// 90 is XCHG with REX.B, PAUSE with F3, else NOP: the decoder tells
row(0x90, "Zv,Av", "xchg", s.xchg);
const conds = ["o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g"];
conds.forEach((name, i) => {
  row(0x70 + i, "Jb", `j${name}`, c.jcc(i), { flow: "jcc", ...near }); row(0x180 + i, "Jz", `j${name}`, c.jcc(i), { flow: "jcc", ...near });
  row(0x190 + i, "Eb", `set${name}`, s.setcc(i)); row(0x140 + i, "Gv,Ev", `cmov${name}`, s.cmovcc(i));
});
row(0x84, "Eb,Gb", "test", s.test); row(0x85, "Ev,Gv", "test", s.test); row(0xa8, "Ab,Ib", "test", s.test); row(0xa9, "Av,Iz", "test", s.test);
row(0x86, "Eb,Gb", "xchg", s.xchg, lock); row(0x87, "Ev,Gv", "xchg", s.xchg, lock);
row(0x88, "Eb,Gb", "mov", s.mov); row(0x89, "Ev,Gv", "mov", s.mov); row(0x8a, "Gb,Eb", "mov", s.mov); row(0x8b, "Gv,Ev", "mov", s.mov);
row(0xa0, "Ab,Ob", "mov", s.mov); row(0xa1, "Av,Ov", "mov", s.mov); row(0xa2, "Ob,Ab", "mov", s.mov); row(0xa3, "Ov,Av", "mov", s.mov);
row(0xc6, "Eb,Ib", "mov", s.mov, { ext: 0 }); row(0xc7, "Ev,Iz", "mov", s.mov, { ext: 0 });
row(0x8c, "Ev,Sw", "mov", y.movFromSeg); row(0x8e, "Sw,Ew", "mov", y.movToSeg, sys);
row(0x8d, "Gv,M", "lea", s.lea, { mod: "m" }); row(0x8f, "Ev", "pop", c.pop, { ext: 0, ...def64 });
row(0x10d, "Ev", "prefetch", s.nop); row(0x118, "Ev", "prefetch", s.nop); row(0x11e, "Ev", "nop", s.nop); row(0x11f, "Ev", "nop", s.nop);
for (const o of [0x119, 0x11a, 0x11b, 0x11c, 0x11d]) row(o, "Ev", "nop", s.nop);
row(0x98, "v", "cbw", s.cbw); row(0x99, "v", "cwd", s.cwd);
row(0x9a, "Fv", "callf", c.farCall, { ...legacy, ...sys }); row(0xea, "Fv", "jmpf", c.farJump, { ...legacy, ...sys });
row(0x9c, "v", "pushf", y.pushf, def64); row(0x9d, "v", "popf", y.popf, def64); row(0x9e, "b", "sahf", s.sahf); row(0x9f, "b", "lahf", s.lahf);
// String instructions: plain, then repeated
const strings: [number, string, Semantics, number][] = [[0xa4, "movs", c.movs, 1], [0xaa, "stos", c.stos, 2], [0xac, "lods", c.lods, 0], [0x6c, "ins", c.ins, 0], [0x6e, "outs", c.outs, 0]];
for (const [op, name, sem, bulk] of strings) for (const [o, w] of [[op, "b"], [op + 1, op < 0x80 ? "z" : "v"]] as const) {
  for (const pfx of ["F3", "F2"] as const) row(o, w, `rep ${name}`, c.rep(sem, bulk), { flow: "rep", pfx });
  row(o, w, name, sem);
}
for (const [op, name, sem] of [[0xa6, "cmps", c.cmps], [0xae, "scas", c.scas]] as const) for (const [o, w] of [[op, "b"], [op + 1, "v"]] as const) {
  row(o, w, `repe ${name}`, c.repWhile(name, true), { flow: "rep", pfx: "F3" }); row(o, w, `repne ${name}`, c.repWhile(name, false), { flow: "rep", pfx: "F2" });
  row(o, w, name, sem);
}
const shifts: [string, Semantics, number][] = [["rol", s.rol, 0], ["ror", s.ror, 1], ["rcl", s.rcl, 2], ["rcr", s.rcr, 3], ["shl", s.shl, 4], ["shr", s.shr, 5], ["shl", s.shl, 6], ["sar", s.sar, 7]];
for (const [name, sem, e] of shifts) for (const [op, b] of [[0xc0, "Ib"], [0xd0, "1"], [0xd2, "L"]] as const) {
  row(op, `Eb,${b}`, name, sem, { ext: e }); row(op + 1, `Ev,${b}`, name, sem, { ext: e });
}
row(0xc2, "Iw", "ret", c.retImm, { flow: "ret", ...near }); row(0xc3, "v", "ret", c.ret, { flow: "ret", ...near }); row(0xc9, "v", "leave", c.leave, def64);
row(0xc4, "Gv,M", "les", c.loadFar(0), { ...legacy, mod: "m", ...sys }); row(0xc5, "Gv,M", "lds", c.loadFar(3), { ...legacy, mod: "m", ...sys });
row(0x1b2, "Gv,M", "lss", c.loadFar(2), { mod: "m", ...sys }); row(0x1b4, "Gv,M", "lfs", c.loadFar(4), { mod: "m", ...sys }); row(0x1b5, "Gv,M", "lgs", c.loadFar(5), { mod: "m", ...sys });
row(0xc8, "Iw,Ib", "enter", c.enter, { ...def64, ...sys });
row(0xca, "Iw", "retf", c.farRet, sys); row(0xcb, "v", "retf", c.farRet0, sys);
row(0xcc, "b", "int3", c.int(3), sys); row(0xcd, "Ib", "int", c.int(), sys); row(0xce, "b", "into", c.into, { ...legacy, ...sys }); row(0xcf, "v", "iret", c.iret, sys); row(0xf1, "b", "int1", c.int(1), sys);
row(0xd7, "b", "xlat", c.xlat);
([["loopne", c.loop(false)], ["loope", c.loop(true)], ["loop", c.loop(null)], ["jcxz", c.jcxz]] as [string, Semantics][]).forEach(([name, sem], i) => row(0xe0 + i, "Jb", name, sem, { flow: "jcc", ...near }));
row(0xe4, "Ib,b", "in", c.inPort("imm"), sys); row(0xe5, "Ib,z", "in", c.inPort("imm"), sys); row(0xec, "b", "in", c.inPort("dx"), sys); row(0xed, "z", "in", c.inPort("dx"), sys);
row(0xe6, "Ib,b", "out", c.outPort("imm"), sys); row(0xe7, "Ib,z", "out", c.outPort("imm"), sys); row(0xee, "b", "out", c.outPort("dx"), sys); row(0xef, "z", "out", c.outPort("dx"), sys);
row(0xe8, "Jz", "call", c.call, { flow: "call", ...near }); row(0xe9, "Jz", "jmp", c.jmp, { flow: "jmp", ...near }); row(0xeb, "Jb", "jmp", c.jmp, { flow: "jmp", ...near });
row(0xf4, "b", "hlt", y.plain("hlt"), sys); row(0xf5, "b", "cmc", s.cmc); row(0xf8, "b", "clc", s.clc); row(0xf9, "b", "stc", s.stc);
row(0xfa, "b", "cli", y.cli); row(0xfb, "b", "sti", y.sti); row(0xfc, "b", "cld", c.cld); row(0xfd, "b", "std", c.std);
for (const [o, v] of [[0xf6, "b"], [0xf7, "v"]] as const) {
  for (const ext of [0, 1]) row(o, `E${v},I${v === "b" ? "b" : "z"}`, "test", s.test, { ext });
  ([["not", s.not], ["neg", s.neg], ["mul", s.mul], ["imul", s.imul1], ["div", s.div], ["idiv", s.idiv]] as [string, Semantics][]).forEach(([n, sem], i) => row(o, `E${v}`, n, sem, { ext: i + 2, lock: i < 2 }));
}
for (const [o, v] of [[0xfe, "b"], [0xff, "v"]] as const) { row(o, `E${v}`, "inc", s.inc, { ext: 0, lock: true }); row(o, `E${v}`, "dec", s.dec, { ext: 1, lock: true }); }
row(0xff, "Ev", "call", c.callInd, { flow: "callind", ext: 2, ...near }); row(0xff, "Ev", "jmp", c.jmpInd, { flow: "ind", ext: 4, ...near }); row(0xff, "Ev", "push", c.push, { ext: 6, ...def64 });
row(0xff, "Mv", "callf", c.farCallInd, { ext: 3, mod: "m", ...sys }); row(0xff, "Mv", "jmpf", c.farJumpInd, { ext: 5, mod: "m", ...sys });

// Two-byte opcodes
row(0x100, "Ev", "sldt", y.sldt, { ext: 0 }); row(0x100, "Ev", "str", y.str, { ext: 1 }); row(0x100, "Ew", "lldt", y.lldt, { ext: 2, ...sys }); row(0x100, "Ew", "ltr", y.ltr, { ext: 3, ...sys });
row(0x100, "Ew", "verr", y.verr, { ext: 4 }); row(0x100, "Ew", "verw", y.verw, { ext: 5 });
for (const [ext, rm, name] of [[0, 1, "vmcall"], [2, 0, "xgetbv"], [2, 1, "xsetbv"], [3, 1, "vmmcall"], [1, 0, "monitor"], [1, 1, "mwait"]] as const)
  row(0x101, "Eb", name, name === "xgetbv" ? y.quiet(name) : y.plain(name), { ext, rm, mod: "r", pfx: "np", ...sys });
for (const [rm, name] of [[2, "clac"], [3, "stac"]] as const) row(0x101, "Eb", name, y.setAc(name), { ext: 1, rm, mod: "r", pfx: "np" });
row(0x101, "Eb", "serialize", s.serialize, { ext: 5, rm: 0, mod: "r", pfx: "np" });
row(0x101, "Eb", "rdtscp", y.readTsc("rdtscp"), { ext: 7, rm: 1, mod: "r", pfx: "np" });
row(0x101, "Eb", "swapgs", y.swapgs, { ext: 7, rm: 0, mod: "r", pfx: "np", mode: 64 });
row(0x101, "M", "sgdt", y.sgdt, { ext: 0, mod: "m" }); row(0x101, "M", "sidt", y.sidt, { ext: 1, mod: "m" }); row(0x101, "M", "lgdt", y.lgdt, { ext: 2, mod: "m" }); row(0x101, "M", "lidt", y.lidt, { ext: 3, mod: "m" });
row(0x101, "Ev", "smsw", y.smsw, { ext: 4 }); row(0x101, "Ew", "lmsw", y.lmsw, { ext: 6, ...sys }); row(0x101, "Mb", "invlpg", y.invlpg, { ext: 7, mod: "m", ...sys });
row(0x102, "Gv,Ew", "lar", y.lar); row(0x103, "Gv,Ew", "lsl", y.lsl);
row(0x105, "b", "syscall", y.syscall, { flow: "ret" }); row(0x106, "b", "clts", y.plain("clts"), sys); row(0x107, "v", "sysret", y.sysret, { mode: 64, flow: "ret" });
row(0x108, "b", "invd", y.quiet("invd")); row(0x109, "b", "wbinvd", y.quiet("wbinvd")); row(0x10b, "b", "ud2", s.ud, sys); row(0x1b9, "Gv,Ev", "ud1", s.ud, sys); row(0x1ff, "Gv,Ev", "ud0", s.ud, sys);
row(0x120, "Ry,Cy", "mov", y.movFromCr, { size64: "always" }); row(0x122, "Cy,Ry", "mov", y.movToCr, { size64: "always", ...sys });
row(0x121, "Ry,Dy", "mov", y.movFromDr, { size64: "always" }); row(0x123, "Dy,Ry", "mov", y.movToDr, { size64: "always", ...sys });
row(0x130, "b", "wrmsr", y.plain("wrmsr"), sys); row(0x131, "b", "rdtsc", y.readTsc("rdtsc")); row(0x132, "b", "rdmsr", y.quiet("rdmsr")); row(0x133, "b", "rdpmc", y.quiet("rdpmc"));
row(0x134, "b", "sysenter", y.plain("sysenter"), sys); row(0x135, "v", "sysexit", y.withWidth("sysexit"), sys);
row(0x1a2, "b", "cpuid", y.quiet("cpuid")); row(0x1aa, "b", "rsm", s.ud, sys);
row(0x1a3, "Ev,Gv", "bt", s.bt); row(0x1ab, "Ev,Gv", "bts", s.bts, lock); row(0x1b3, "Ev,Gv", "btr", s.btr, lock); row(0x1bb, "Ev,Gv", "btc", s.btc, lock);
([["bt", s.bt], ["bts", s.bts], ["btr", s.btr], ["btc", s.btc]] as [string, Semantics][]).forEach(([n, sem], i) => row(0x1ba, "Ev,Ib", n, sem, { ext: 4 + i, lock: i > 0 }));
row(0x1a4, "Ev,Gv,Ib", "shld", s.shld); row(0x1a5, "Ev,Gv,L", "shld", s.shld); row(0x1ac, "Ev,Gv,Ib", "shrd", s.shrd); row(0x1ad, "Ev,Gv,L", "shrd", s.shrd);
row(0x1af, "Gv,Ev", "imul", s.imul2); row(0x1b0, "Eb,Gb", "cmpxchg", s.cmpxchg, lock); row(0x1b1, "Ev,Gv", "cmpxchg", s.cmpxchg, lock); row(0x1c0, "Eb,Gb", "xadd", s.xadd, lock); row(0x1c1, "Ev,Gv", "xadd", s.xadd, lock);
row(0x1b6, "Gv,Eb", "movzx", s.movzx); row(0x1b7, "Gv,Ew", "movzx", s.movzx); row(0x1be, "Gv,Eb", "movsx", s.movsx); row(0x1bf, "Gv,Ew", "movsx", s.movsx);
row(0x1b8, "Gv,Ev", "popcnt", s.popcnt, { pfx: "F3" }); row(0x1bc, "Gv,Ev", "bsf", s.bsf); row(0x1bd, "Gv,Ev", "bsr", s.bsr);
row(0x1c3, "My,Gy", "movnti", y.movnti, { mod: "m", pfx: "np" });
row(0x1c7, "My", "cmpxchg16b", s.cmpxchg16b, { ext: 1, mod: "m", mode: 64, lock: true }); row(0x1c7, "My", "cmpxchg8b", s.cmpxchg8b, { ext: 1, mod: "m", lock: true });
row(0x1ae, "My", "fxsave", y.image("fxsave", 512, true), { ext: 0, mod: "m", pfx: "np", unit: "x87", ...sys }); row(0x1ae, "My", "fxrstor", y.image("fxrstor", 512, false), { ext: 1, mod: "m", pfx: "np", unit: "x87", ...sys });
row(0x1ae, "Md", "ldmxcsr", y.ldmxcsr, { ext: 2, mod: "m", pfx: "np", unit: "sse" }); row(0x1ae, "Md", "stmxcsr", y.stmxcsr, { ext: 3, mod: "m", pfx: "np", unit: "sse" });
row(0x1ae, "My", "xsave", y.image("xsave", 1, true), { ext: 4, mod: "m", pfx: "np", ...sys }); row(0x1ae, "My", "xrstor", y.image("xrstor", 1, false), { ext: 5, mod: "m", pfx: "np", ...sys });
row(0x1ae, "My", "xsaveopt", y.image("xsaveopt", 1, true), { ext: 6, mod: "m", pfx: "np", ...sys }); row(0x1ae, "Mb", "clflush", s.clflush, { ext: 7, mod: "m", pfx: "np" });
for (const ext of [5, 6, 7]) row(0x1ae, "Ed", "fence", ext === 6 ? s.mfence : s.nop, { ext, mod: "r", pfx: "np" });
for (const [n, s] of [["f", FS], ["g", GS]] as const) {
  row(0x1ae, "Ry", `rd${n}sbase`, y.rdBase(`rd${n}sbase`, s), { ext: s - FS, mod: "r", pfx: "F3", mode: 64 });
  row(0x1ae, "Ry", `wr${n}sbase`, y.wrBase(`wr${n}sbase`, s), { ext: s - FS + 2, mod: "r", pfx: "F3", mode: 64 });
}
row(0x2f0, "Gy,Eb", "crc32", s.crc32, { pfx: "F2" }); row(0x2f1, "Gy,Ev", "crc32", s.crc32, { pfx: "F2" });
row(0x2f0, "Gv,Mv", "movbe", s.movbe, { mod: "m" }); row(0x2f1, "Mv,Gv", "movbeStore", s.movbe, { mod: "m" });

// What the decoder answers where the bytes are no instruction, are too many, or the unit is off
row(0x400, "b", "ud", s.ud, sys); row(0x401, "b", "gp", g => g.trap(VECTOR.GP, 0), sys); row(0x402, "b", "nm", g => g.trap(VECTOR.NM), sys);
// ... and those that a prefix makes of other instructions
row(0x403, "b", "pause", y.pause); row(0x404, "My", "cmpxchg16b", s.lockCmpxchg16b, { mod: "m", mode: 64, lock: true, ...sys });
