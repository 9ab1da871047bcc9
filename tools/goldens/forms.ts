/**
 * The instruction forms whose translation is pinned: what real code does most, and what costs most. Each is one instruction, or a comparison with
 * what uses it, as bytes of 64-bit code, an instruction a string; names come from the disassembler. A branch goes over a nop to what follows.
 */
export const FORMS: readonly (readonly string[])[] = [
  // moves
  ["88 c8"], ["88 e0"], ["89 c8"], ["48 89 c8"], ["b8 78 56 34 12"],
  ["8b 41 08"], ["48 8b 41 08"], ["48 8b 04 cb"], ["48 8b 05 00 01 00 00"], ["65 48 8b 04 25 28 00 00 00"],
  ["88 41 08"], ["48 89 41 08"],
  ["0f b6 c1"], ["0f b6 01"], ["48 63 c1"], ["8d 04 08"], ["48 8d 44 8b 10"], ["91"], ["87 01"],
  // arithmetic
  ["00 c8"], ["01 c8"], ["48 01 c8"], ["03 41 08"], ["48 01 41 08"], ["48 83 ec 18"], ["31 c0"], ["48 21 c8"], ["ff c0"], ["48 ff c9"], ["ff 41 08"], ["13 c1"], ["f7 d8"],
  ["c1 e0 04"], ["c1 f8 1f"], ["d3 e0"], ["c1 c0 08"], ["d1 d8"], ["0f a4 c8 04"],
  ["0f af c1"], ["48 f7 e1"], ["f7 f1"], ["48 f7 f1"], ["48 f7 f9"], ["0f a3 c8"], ["48 0f ab 07"], ["0f bc c1"], ["f3 0f b8 c1"],
  // flags that are used
  ["39 c8", "74 02"], ["48 39 c8", "72 02"], ["80 f9 20", "77 02"], ["83 3f 00", "75 02"], ["85 c0", "74 02"], ["ff c9", "75 02"], ["83 e8 01", "72 02"], ["01 c8", "70 02"], ["0f ba e0 05", "72 02"],
  ["39 d8", "0f 44 c1"], ["39 d8", "0f 9c c0"], ["74 02"], ["7f 02"],
  // stack and control
  ["50"], ["58"], ["e8 00 00 00 00"], ["ff d0"], ["c3"], ["ff e0"], ["ff 24 c5 00 10 00 00"], ["e2 02"],
  // shared memory
  ["f0 0f b1 11"], ["f0 48 0f c1 01"],
  // SSE
  ["f2 0f 59 c1", "f2 0f 58 c8"], ["8b 07", "89 0f"],
  ["0f 28 c1"], ["0f 28 01"], ["0f 10 01"], ["0f 11 01"], ["f2 0f 10 01"], ["66 48 0f 6e c0"], ["f2 0f 58 c1"], ["0f 58 c1"], ["66 0f 2e c1", "77 02"], ["f2 0f 2a c0"], ["f2 0f 2c c0"],
  ["66 0f ef c0"], ["66 0f fe c1"], ["66 0f 74 c1"], ["66 0f 70 c1 1b"], ["66 0f d7 c0"],
  // kernels
  ["fa"], ["fb"], ["9c"], ["9d"], ["0f 01 f8"], ["0f 01 cb"], ["0f 05"], ["48 0f 07"], ["f3 48 0f ae c8"], ["0f 31"],
];
