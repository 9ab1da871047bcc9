/** node bench/v86-runner.ts KERNEL RAMDISK MEMORY_MIB CMDLINE: v86 with a guest whose serial line is our standard input and output. Run as a process of its own by bench/v86.ts. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { V86 } from "v86";

/** Debian's package seabios, which QEMU's depends on. */
const BIOS = "/usr/share/seabios";
const [kernel = "", ramdisk = "", memoryMiB = "", cmdline = ""] = process.argv.slice(2);
const image = (path: string) => ({ buffer: Uint8Array.from(readFileSync(path)).buffer });

const machine = new V86({
  wasm_path: fileURLToPath(new URL("v86.wasm", import.meta.resolve("v86"))), memory_size: Number(memoryMiB) * 2 ** 20, vga_memory_size: 2 ** 21,
  bios: image(`${BIOS}/bios.bin`), vga_bios: image(`${BIOS}/vgabios-stdvga.bin`), bzimage: image(kernel), initrd: image(ramdisk), cmdline,
  autostart: true, disable_keyboard: true, disable_mouse: true, disable_speaker: true,
});

// A byte comes at a time; what came in one turn of the loop is written at once.
let said: number[] = [];
machine.add_listener("serial0-output-byte", (byte: number) => {
  if (said.length === 0) setImmediate(() => { process.stdout.write(Uint8Array.from(said)); said = []; });
  said.push(byte);
});
process.stdin.setEncoding("latin1").on("data", (text: string) => { machine.serial0_send(text); }).on("end", () => process.exit(0));
