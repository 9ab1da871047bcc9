/** Asks the C compiler, over Xen's own headers, for the offsets, sizes and values of all that src/abi declares. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MODULES, type ModuleNames } from "./c-names.ts";

export type Golden = {
  structs: Record<string, { sizeof: number; fields: Record<string, [at: number, size: number]> }>;
  /** "NAME" or "TABLE.key", in decimal */
  constants: Record<string, string>;
};
type Declared = { structs: Map<string, string[]>; constants: Map<string, unknown> };

/** What a module exports, sorted into structs with their fields and constants by name. */
export function declared(exports: Record<string, unknown>, names: ModuleNames): Declared {
  const structs: Declared["structs"] = new Map(), constants: Declared["constants"] = new Map();
  for (const [name, value] of Object.entries(exports)) {
    if (names.ours?.includes(name)) continue;
    if (typeof value !== "object" || value === null) constants.set(name, value);
    else if ("sizeof" in value) structs.set(name, Object.keys(value).filter((k) => k !== "sizeof"));
    else for (const [key, member] of Object.entries(value)) constants.set(`${name}.${key}`, member);
  }
  return { structs, constants };
}

const snake = (pascal: string): string => pascal.replace(/(?!^)([A-Z])/g, "_$1").toLowerCase();
const cType = (names: ModuleNames, name: string): string => names.types?.[name] ?? `struct ${snake(name)}`;
function cConstant(module: string, names: ModuleNames, name: string): string {
  const given = names.constants?.[name];
  if (given !== undefined) return given;
  if (module === "errno") return `XEN_${name}`;
  const dot = name.indexOf(".");
  if (dot < 0) return name;
  const table = name.slice(0, dot);
  return (names.constants?.[table] ?? `${table}_`) + name.slice(dot + 1);
}

/** Lines of C that print what the module declares, one tab-separated fact a line. */
function cProgram(module: string, names: ModuleNames, d: Declared): string {
  const out = ["#include <stdio.h>", "#include <stddef.h>", "#include <stdint.h>", "#include <string.h>", `#include <xen/xen.h>`, `#include <xen/${names.header}>`];
  if (module === "io/ring") out.push("struct probe_slot { uint64_t x; };", "DEFINE_RING_TYPES(probe, struct probe_slot, struct probe_slot);");
  out.push("int main(void) {");
  for (const [name, fields] of d.structs) {
    const type = cType(names, name);
    out.push(`printf("S\\t${name}\\t\\t0\\t%zu\\n", ${names.sizes?.[name] ?? `sizeof(${type})`});`);
    for (const f of fields) {
      const path = names.fields?.[`${name}.${f}`] ?? f;
      out.push(`printf("F\\t${name}\\t${f}\\t%zu\\t%zu\\n", offsetof(${type}, ${path}), sizeof(((${type} *)0)->${path}));`);
    }
  }
  for (const [name, value] of d.constants) {
    const [format, cast] = typeof value === "string" ? ["%s", ""] : typeof value === "bigint" ? ["%llu", "(unsigned long long)"] : ["%lld", "(long long)"];
    out.push(`printf("C\\t${name}\\t\\t${format}\\t\\n", ${cast}(${cConstant(module, names, name)}));`);
  }
  return `${out.join("\n")}\nreturn 0; }\n`;
}

/** Whether there is a C compiler that finds Xen's headers. */
export function canProbe(): boolean {
  try {
    execFileSync("cc", ["-E", "-x", "c", "-"], { input: "#include <xen/xen.h>\n", stdio: ["pipe", "ignore", "ignore"] });
    return true;
  } catch {
    return false;
  }
}
/** @throws where there is no compiler or no headers, or where a name of ours is not the headers' */
export async function probe(module: string): Promise<Golden> {
  const names = MODULES[module];
  if (!names) throw new Error(`Module "${module}" has no row in c-names.ts`);
  const d = declared(await import(`../../src/abi/${module}.ts`) as Record<string, unknown>, names);
  const dir = mkdtempSync(join(tmpdir(), "abi-"));
  try {
    writeFileSync(join(dir, "probe.c"), cProgram(module, names, d));
    execFileSync("cc", ["-std=gnu11", "-D__XEN_TOOLS__", "-w", "-o", join(dir, "probe"), join(dir, "probe.c")], { stdio: ["ignore", "ignore", "inherit"] });
    const golden: Golden = { structs: {}, constants: {} };
    for (const line of execFileSync(join(dir, "probe"), { encoding: "utf8" }).trimEnd().split("\n")) {
      const [kind, name, field, a, b] = line.split("\t") as [string, string, string, string, string];
      if (kind === "S") golden.structs[name] = { sizeof: Number(b), fields: {} };
      else if (kind === "F") golden.structs[name]!.fields[field] = [Number(a), Number(b)];
      else if (kind === "C") golden.constants[name] = a;
    }
    return golden;
  } finally {
    rmSync(dir, { recursive: true });
  }
}

export const goldenName = (module: string): string => `${module.replaceAll("/", "-")}.json`;
/** One struct or constant a line, so that a change reads well as a diff. */
export function goldenText(g: Golden): string {
  const rows = (o: Record<string, unknown>) => Object.entries(o).map(([k, v]) => `    ${JSON.stringify(k)}: ${JSON.stringify(v)}`).join(",\n");
  return `{\n  "structs": {\n${rows(g.structs)}\n  },\n  "constants": {\n${rows(g.constants)}\n  }\n}\n`;
}
