/** Building the page: vite over src/web, nothing from another server. The folder that comes out is all there is. */
import { cpSync, existsSync, mkdirSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { join } from "node:path";
import { build } from "vite";
import type { ImageEntry } from "../../src/web/images.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
/** Where `npm run web` keeps the built page. */
export const PAGE = join(root, "var/web");

/** Build the page into `folder`, which is emptied first. */
export async function buildPage(folder: string = PAGE): Promise<void> {
  await build({
    root: join(root, "src/web"), configFile: false, envDir: false, base: "./", logLevel: "warn", publicDir: false,
    oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
    worker: { format: "es" },
    build: {
      outDir: folder, emptyOutDir: true, target: "es2024", sourcemap: false, modulePreload: { polyfill: false }, chunkSizeWarningLimit: 2000,
      rollupOptions: {
        checks: { pluginTimings: false },
        input: { index: join(root, "src/web/index.html"), sw: join(root, "src/web/sw.ts") },
        output: { entryFileNames: (chunk) => (chunk.name === "sw" ? "sw.js" : "assets/[name]-[hash].js") },
      },
    },
  });
}

/** What `domus start` has fetched, as the page's list of images; files that are not there are left out. */
export function startImages(): ImageEntry[] {
  const flavours = [["cloud", "Debian's cloud kernel and busybox"], ["generic", "Debian's generic kernel and busybox"]] as const;
  return flavours.filter(([f]) => existsSync(join(root, `var/start/vmlinuz-${f}`)) && existsSync(join(root, `var/start/initramfs-${f}.cpio`)))
    .map(([f, title]) => ({ name: f, title, kernel: `vmlinuz-${f}`, ramdisk: `initramfs-${f}.cpio`, extra: "console=hvc0", memoryMiB: 256 }));
}
/** The file behind a name of the list. */
export const imageFile = (name: string): string | null => {
  const known = startImages().flatMap((i) => [i.kernel, i.ramdisk]);
  return known.includes(name) ? join(root, "var/start", name) : null;
};

/** Put list and files beside a built page, for a host that serves files and nothing else. */
export function exportImages(folder: string): void {
  const images = startImages();
  mkdirSync(join(folder, "images"), { recursive: true });
  for (const name of images.flatMap((i) => [i.kernel, i.ramdisk])) cpSync(imageFile(name)!, join(folder, "images", name));
  writeFileSync(join(folder, "images/list.json"), JSON.stringify(images));
}
