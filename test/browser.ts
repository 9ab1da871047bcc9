/** The built page in Debian's Chromium, for system tests and figures. */
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type BrowserContext, chromium, type Page } from "playwright-core";
import type { DomusLibrary } from "../src/web/library.ts";
import { buildPage } from "../tools/web/build.ts";
import { type PageServer, servePage } from "../tools/web/serve.ts";

declare global {
  // In the page; see docs/web.md.
  var domus: DomusLibrary;
}

/** Chromium with a profile of its own, and the page served to it. */
export class Browser implements AsyncDisposable {
  readonly context: BrowserContext;
  readonly server: PageServer;
  readonly folder: string;
  /** errors that pages threw or logged */
  readonly errors: string[] = [];

  private constructor(context: BrowserContext, server: PageServer, folder: string) {
    this.context = context;
    this.server = server;
    this.folder = folder;
  }
  /** Build the page, serve it, start Chromium. Debian's package is called chromium. */
  static async start(): Promise<Browser> {
    const executablePath = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find(existsSync);
    if (executablePath === undefined) throw new Error("There is no Chromium here; install Debian's package chromium (tools/setup/apt-packages.txt)");
    const folder = mkdtempSync(join(tmpdir(), "domus-web-")), page = join(folder, "page");
    await buildPage(page);
    const server = await servePage({ folder: page });
    const context = await chromium.launchPersistentContext(join(folder, "profile"), {
      executablePath, viewport: { width: 1280, height: 800 }, timeout: 120_000,
      args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
    });
    context.setDefaultTimeout(60_000);
    return new Browser(context, server, folder);
  }
  /** A tab on the page whose machine is there. */
  async tab(query = "", url = this.server.url): Promise<Page> {
    const page = await this.context.newPage();
    page.on("pageerror", (e) => this.errors.push(e.stack ?? e.message));
    page.on("console", (m) => { if (m.type() === "error") this.errors.push(m.text()); });
    page.on("dialog", (d) => { void d.accept().catch(() => {}); });
    await page.goto(url + query);
    await ready(page);
    return page;
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await this.context.close();
    await this.server.close();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
/** Wait for the page's machine. */
export async function ready(page: Page): Promise<void> { await page.waitForFunction(() => "domus" in globalThis, undefined, { timeout: 120_000 }); }

/** Wait until a console has said something, from `from` on. @returns all it has said */
export async function consoleSays(page: Page, name: string, what: string | RegExp, from = 0): Promise<string> {
  const [source, flags] = typeof what === "string" ? [what.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), ""] : [what.source, what.flags];
  const handle = await page.waitForFunction(([n, s, f, at]) => {
    const domain = globalThis.domus.domains[n as string], text = domain ? new TextDecoder().decode(domain.views.backlog) : "";
    return new RegExp(s as string, f as string).test(text.slice(at as number)) ? text : null;
  }, [name, source, flags, from] as const, { timeout: 120_000, polling: 200 })
    .catch(async (e) => { throw new Error(`${name} did not say ${String(what)}, but: ${await page.evaluate((n) => new TextDecoder().decode(globalThis.domus.domains[n]?.views.backlog).slice(-1500), name)}`, { cause: e }); });
  return await handle.jsonValue() as string;
}
