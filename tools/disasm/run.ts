/**
 * node tools/disasm/run.ts [--bits 16|32|64] [--at ADDRESS] [--offset N] [--length N] FILE      disassembles raw bytes
 * node tools/disasm/run.ts [--bits ...] [--at ...] --hex "0f 01 d9"                             or bytes given in hex
 */
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { UserError } from "../../src/base/errors.ts";
import { runTool } from "../tool.ts";
import { disassemble } from "../oracle/compare.ts";

function main(): number {
  const { values: v, positionals: [file] } = parseArgs({ allowPositionals: true, options: { bits: { type: "string", default: "64" }, at: { type: "string", default: "0" }, offset: { type: "string", default: "0" }, length: { type: "string" }, hex: { type: "string" } } });
  if (!["16", "32", "64"].includes(v.bits)) throw new UserError(`--bits "${v.bits}" is none of 16, 32, 64`);
  if ((v.hex === undefined) === (file === undefined)) throw new UserError("Give a FILE or --hex, one of the two");
  const digits = v.hex?.replaceAll(/\s|0x|,/g, "") ?? "";
  if (!/^([0-9a-f]{2})*$/i.test(digits)) throw new UserError(`--hex "${v.hex}" is not bytes in hex`);
  const all = file === undefined ? Uint8Array.from(digits.match(/../g) ?? [], (b) => Number.parseInt(b, 16)) : new Uint8Array(readFileSync(file));
  const from = Number(v.offset), bytes = all.subarray(from, v.length === undefined ? undefined : from + Number(v.length));
  for (const l of disassemble(bytes, BigInt(v.at.startsWith("0x") ? v.at : `0x${v.at}`), Number(v.bits))) console.log(`${l.rip.toString(16).padStart(16, "0")}  ${l.bytes.padEnd(32)} ${l.text}`);
  return 0;
}
await runTool(import.meta.filename, main);
