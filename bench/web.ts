/** The page in Chromium: boot and gbench beside Node on the same images, and beside v86's own build for pages on its 32-bit kernel; weight, first paint, frames while guests are busy. */
import { copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import type { Page } from "playwright-core";
import { BANNER } from "../src/toolstack/initramfs.ts";
import { Browser } from "../test/browser.ts";
import { images, type Images } from "../test/guest.ts";
import { servePage } from "../tools/web/serve.ts";
import { BOOT_MS, MEMORY_MIB, startOurs } from "./boot.ts";
import { type Bench, Collector, type Effort, type Table } from "./figures.ts";
import { type Bits, buildGbench, Digests, readGb, withBench } from "./gbench.ts";
import { folder } from "./ground.ts";
import { guestPlace, type Place } from "./places.ts";
import { V86_CMDLINE, v86Images } from "./v86.ts";

const CHROMIUM = "Domus, Chromium", NODE = "Domus, Node", PEER = "v86, Chromium", FRAMES_MS = 5000;
/** Works of gbench that are quick enough for a page's table; several kinds. */
const WORKS = ["intmm", "sha256c", "interp", "nbody", "memcpy", "syscall"] as const;
const BOOT_ROW = "boot to the first userspace line, seconds";

/** What a page with a guest in it has for us: all its console said, and the way in. */
type GuestPage = { said: string; write(text: string): void; bannerMs: number | null };
declare global {
  var guest: GuestPage;
  var V86: new (options: unknown) => { add_listener(name: string, told: (byte: number) => void): void; serial0_send(text: string): void };
}

/** A guest in a tab as a place for works. `pauses` is not needed: a tab's guest that waits does not run. */
class TabPlace implements Place {
  readonly name: string;
  readonly bits: Bits;
  readonly page: Page;
  #nr = 0;
  constructor(name: string, bits: Bits, page: Page) {
    this.name = name;
    this.bits = bits;
    this.page = page;
  }
  /** Milliseconds from the page's beginning to the banner, and a shell that says where outputs begin and end (test/guest.ts has the same). */
  async boot(): Promise<number> {
    await this.#until("# (?:\\x1b\\[6n)?$");
    await this.page.evaluate(() => globalThis.guest.write('stty -echo; k=0; while IFS= read -r l; do k=$((k+1)); echo "@@"begin $k; eval "$l" </dev/null 2>&1; echo "@@"end $k $?; done\n'));
    await this.run("export PATH=/bench:$PATH; mkdir -p /tmp/work; cd /tmp/work");
    const ms = await this.page.evaluate(() => globalThis.guest.bannerMs);
    if (ms === null) throw new Error(`${this.name} did not say "${BANNER}"`);
    return ms;
  }
  async #until(pattern: string): Promise<void> { await this.page.waitForFunction((p) => new RegExp(p).test(globalThis.guest.said), pattern, { timeout: BOOT_MS, polling: 50 }); }
  async run(line: string): Promise<{ out: string; ms: number }> {
    const nr = ++this.#nr, begun = performance.now();
    await this.page.evaluate((l) => globalThis.guest.write(`${l}\n`), line);
    await this.#until(`@@end ${nr} \\d`);
    const [, out, code] = new RegExp(`@@begin ${nr}\\r?\\n([^]*?)@@end ${nr} (\\d+)`).exec(await this.page.evaluate(() => globalThis.guest.said)) ?? [];
    if (code !== "0") throw new Error(`"${line}" ended with ${code} on ${this.name}:\n${out}`);
    return { out: out!.replaceAll("\r\n", "\n"), ms: performance.now() - begun };
  }
  async [Symbol.asyncDispose](): Promise<void> { await this.page.close(); }
}

/** Our page with a domain of those images. */
async function ours(browser: Browser, { ramdisk }: Images): Promise<TabPlace> {
  const page = await browser.tab("?pcpus=1&memory=512"), bytes = readFileSync(ramdisk);
  writeFileSync(join(browser.folder, "page/bench.cpio"), bytes);
  await page.evaluate(async () => globalThis.domus.files.add("bench.cpio", await (await fetch("bench.cpio")).blob()));
  await page.reload();
  await page.waitForFunction(() => "domus" in globalThis);
  await page.evaluate(async ({ memoryMiB, banner }) => {
    const session = await globalThis.domus.create(`name = "bench"\ntype = "pvh"\nkernel = "vmlinuz-cloud"\nramdisk = "bench.cpio"\nextra = "console=hvc0 quiet"\nmemory = ${memoryMiB}\n`);
    globalThis.guest = { said: "", write: (text) => session.type(text), bannerMs: null };
    void (async () => {
      const decoder = new TextDecoder(), reader = session.domain.value!.views.view().getReader();
      for (let r = await reader.read(); !r.done; r = await reader.read()) {
        globalThis.guest.said += decoder.decode(r.value);
        if (globalThis.guest.said.includes(banner)) globalThis.guest.bannerMs ??= performance.now();
      }
    })();
  }, { memoryMiB: MEMORY_MIB, banner: BANNER });
  return new TabPlace(CHROMIUM, 64, page);
}
/** v86's build for pages, with its wasm, BIOS and Debian's 32-bit kernel beside it, served as ours is. */
async function peers(browser: Browser, { kernel, ramdisk }: Images): Promise<TabPlace & { bootMs?: number }> {
  const site = join(folder(), "v86-page"), build = fileURLToPath(new URL(".", import.meta.resolve("v86")));
  mkdirSync(site, { recursive: true });
  for (const name of ["libv86.js", "v86.wasm"]) copyFileSync(join(build, name), join(site, name));
  for (const name of ["bios.bin", "vgabios-stdvga.bin"]) copyFileSync(join("/usr/share/seabios", name), join(site, name));
  copyFileSync(kernel, join(site, "kernel"));
  copyFileSync(ramdisk, join(site, "ramdisk"));
  writeFileSync(join(site, "index.html"), '<!doctype html><meta charset="utf-8"><title>v86</title><script src="libv86.js"></script>');
  const server = await servePage({ folder: site }), page = await browser.context.newPage();
  page.on("close", () => { void server.close(); });
  await page.goto(server.url);
  await page.evaluate(({ memoryMiB, banner, cmdline }) => {
    const machine = new globalThis.V86({
      wasm_path: "v86.wasm", memory_size: memoryMiB * 2 ** 20, vga_memory_size: 2 ** 21, bios: { url: "bios.bin" }, vga_bios: { url: "vgabios-stdvga.bin" }, bzimage: { url: "kernel" }, initrd: { url: "ramdisk" },
      cmdline, autostart: true, disable_keyboard: true, disable_mouse: true, disable_speaker: true,
    });
    globalThis.guest = { said: "", write: (text) => machine.serial0_send(text), bannerMs: null };
    machine.add_listener("serial0-output-byte", (byte) => {
      globalThis.guest.said += String.fromCharCode(byte);
      if (byte === 10 && globalThis.guest.said.includes(banner)) globalThis.guest.bannerMs ??= performance.now();
    });
  }, { memoryMiB: MEMORY_MIB, banner: BANNER, cmdline: V86_CMDLINE });
  return new TabPlace(PEER, 32, page);
}

/** Bytes of the page as a host sends it, images left out. */
function weightKiB(browser: Browser): number {
  const at = join(browser.folder, "page"), files = readdirSync(at, { recursive: true, encoding: "utf8" }).filter((f) => /\.(?:html|js|css)$/.test(f));
  return files.reduce((sum, f) => sum + gzipSync(readFileSync(join(at, f))).length, 0) / 1024;
}
/** Frames a second that the page draws. */
const framesPerSecond = (page: Page): Promise<number> => page.evaluate((spanMs) => new Promise<number>((done) => {
  const begun = performance.now();
  let n = 0;
  const next = (): void => {
    n++;
    if (performance.now() - begun < spanMs) requestAnimationFrame(next);
    else done((n * 1000) / (performance.now() - begun));
  };
  requestAnimationFrame(next);
}), FRAMES_MS);

async function run({ rounds, quick, only, say }: Effort): Promise<Table[]> {
  buildGbench(64);
  const files = withBench(images(), 64), times = new Collector(), looks = new Collector(), digests = new Digests(), notes: string[] = [];
  await using browser = await Browser.start();
  const measure = async (place: Place): Promise<void> => {
    for (const work of WORKS.filter((w) => only.length === 0 || only.includes(w))) {
      const end = readGb((await place.run(`gbench ${work}`)).out).find((e) => e.name === work);
      if (!end) throw new Error(`${work} said nothing on ${place.name}`);
      digests.take(work, place.name, end.check);
      times.add(work, place.name, end.seconds);
      say(`web: ${work}, ${place.name}: ${end.seconds.toFixed(3)} s`);
    }
  };
  const booted = (name: string, ms: number): void => {
    times.add(BOOT_ROW, name, ms / 1000);
    say(`web: boot, ${name}: ${(ms / 1000).toFixed(2)} s`);
  };
  for (let round = 0; round < rounds; round++) {
    {
      await using place = await ours(browser, files);
      booted(CHROMIUM, await place.boot());
      await measure(place);
      const { page } = place, paint = await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? Number.NaN);
      looks.add("first contentful paint, ms", CHROMIUM, paint);
      looks.add("frames a second, guest idle", CHROMIUM, await framesPerSecond(page));
      await page.evaluate(async () => {
        await globalThis.domus.create('name = "busy"\ntype = "pvh"\nkernel = "vmlinuz-cloud"\nramdisk = "bench.cpio"\nextra = "console=hvc0 quiet"\nmemory = 128\n');
        globalThis.guest.write("gbench spin 60 &\n");
      });
      looks.add("frames a second, two guests busy", CHROMIUM, await framesPerSecond(page));
    }
    {
      const guest = startOurs("node", files, MEMORY_MIB, ["--pcpus", "1"]), seen = guest.expect(new RegExp(BANNER), BOOT_MS);
      const ms = (await seen).atMs - guest.startedMs;
      booted(NODE, ms);
      await using place = await guestPlace(NODE, 64, guest);
      await measure(place);
    }
    if (quick) continue;
    try {
      await using place = await peers(browser, await v86Images(say));
      booted(PEER, await place.boot());
      await measure(place);
    } catch (e) {
      notes.push(`${PEER} could not be had: ${(e as Error).message.split("\n")[0]}`);
    }
  }
  looks.add("page weight, KiB (gzip, without images)", CHROMIUM, weightKiB(browser));
  return [
    { title: "A guest in a page", unit: `Seconds, by the guest's clock; boot: from the page's (Node: the process's) start to the line "${BANNER}". Guests of ${MEMORY_MIB} MiB, one pCPU; v86 has a 32-bit kernel and 32-bit programs.`, columns: [CHROMIUM, NODE, PEER], rows: times.rows(), digits: 2, notes },
    { title: "The page", unit: "Headless Chromium without a GPU: it paints on the processors that the guests run on.", columns: [CHROMIUM], rows: looks.rows(), digits: 0, notes: [] },
  ];
}

export const web: Bench = { name: "web", help: "the page in Chromium: boot and gbench beside Node and v86's page, weight, first paint, frames (wants chromium)", run };
