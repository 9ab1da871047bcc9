/**
 * Debian's packages as guests' raw material: fetched with apt-get download, unpacked with dpkg-deb -x. Needs no root: where the system's package
 * lists are empty, lists of our own are kept beside the packages.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { readdirSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { UserError } from "../base/errors.ts";
import { makeFolders } from "./paths.ts";

export type Package = { readonly name: string; readonly version: string; readonly sizeBytes: number };
/** One line of progress that is rewritten in place on a terminal. */
export type Progress = { step(what: string): void; percent(done: number, of: number): void; done(note?: string): void; /** whatever happened: the next word stands on a line of its own */ close(): void };

const NO_APT = "No apt here to fetch Debian's kernel and busybox with; bring your own: npm start -- --kernel BZIMAGE --ramdisk CPIO";

export class Debian {
  readonly #folder: string;
  readonly #children = new Set<ChildProcess>();
  readonly #options: string[] = [];

  /**
   * @param folder where packages and, if need be, package lists are kept
   * @param architecture another than this computer's: its packages come by lists of their own and are not compared with what is installed here
   */
  constructor(folder: string, architecture?: string) {
    this.#folder = resolve(folder);
    makeFolders(this.#folder);
    if (architecture === undefined) return;
    this.#useOwnLists();
    this.#options.push("-o", `APT::Architecture=${architecture}`, "-o", `APT::Architectures=${architecture}`, "-o", "Dir::State::status=/dev/null");
  }
  /** End whatever is under way. */
  stop(): void { for (const child of this.#children) child.kill(); }

  #run(program: string, args: string[], cwd = this.#folder): Promise<{ code: number; out: string; err: string }> {
    return new Promise((done, fail) => {
      const child = spawn(program, args, { cwd, stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, LC_ALL: "C" } });
      let out = "", err = "";
      this.#children.add(child);
      child.stdout.on("data", (b) => { out += b; });
      child.stderr.on("data", (b) => { err += b; });
      child.on("error", (e: NodeJS.ErrnoException) => fail(e.code === "ENOENT" ? new UserError(NO_APT) : e));
      child.on("close", (code) => { this.#children.delete(child); done({ code: code ?? 1, out, err }); });
    });
  }
  async #must(program: string, args: string[], what: string): Promise<string> {
    const { code, out, err } = await this.#run(program, args);
    const reason = err.trim().split("\n").filter((l) => /^E:|rror/.test(l)).at(-1) ?? err.trim().split("\n").at(-1) ?? "";
    if (code !== 0) throw new UserError(`${what} failed: ${reason || `${program} ended with ${code}`}`);
    return out;
  }
  #apt(program: string, ...args: string[]): [string, string[]] { return [program, [...this.#options, ...args]]; }

  /** The concrete package that a metapackage depends on, or the package itself. Refreshes package lists when the name is unknown. */
  async resolvePackage(name: string, pattern: RegExp, progress: Progress): Promise<string> {
    for (const refreshed of [false, true]) {
      if (refreshed) await this.refreshLists(progress);
      const { code, out } = await this.#run(...this.#apt("apt-cache", "depends", name));
      const found = [...out.matchAll(/^\s*\|?Depends: (\S+)/gm)].map((m) => m[1]!).find((p) => pattern.test(p));
      if (code === 0 && found && (await this.#run(...this.#apt("apt-cache", "show", found))).code === 0) return found;
    }
    throw new UserError(`apt knows no package ${name}; bring your own kernel: npm start -- --kernel BZIMAGE --ramdisk CPIO`);
  }

  #useOwnLists(): void {
    const at = (name: string) => { makeFolders(join(this.#folder, name, "partial")); return join(this.#folder, name); };
    this.#options.push("-o", `Dir::State::Lists=${at("lists")}`, "-o", `Dir::Cache=${at("cache")}`, "-o", `Dir::Cache::Archives=${at("archives")}`,
      "-o", "APT::Sandbox::User=", "-o", "APT::Update::Post-Invoke=", "-o", "APT::Update::Post-Invoke-Success=");
  }
  /** Fetch package lists of our own; the system's stay as they are. */
  async refreshLists(progress: Progress): Promise<void> {
    progress.step("Refresh package lists");
    if (this.#options.length === 0) this.#useOwnLists();
    await this.#must(...this.#apt("apt-get", "update", "-q"), "Refreshing the package lists");
    progress.done();
  }

  /** What apt would download. */
  async candidate(name: string): Promise<Package> {
    const shown = await this.#must(...this.#apt("apt-cache", "show", "--no-all-versions", name), `Looking up ${name}`);
    const field = (key: string) => new RegExp(`^${key}: (.*)$`, "m").exec(shown)?.[1] ?? "";
    return { name, version: field("Version"), sizeBytes: Number(field("Size")) || 0 };
  }

  #archive(p: Package): string | undefined {
    const begin = `${p.name}_${p.version.replaceAll(":", "%3a")}_`;
    return readdirSync(this.#folder).find((f) => f.startsWith(begin) && f.endsWith(".deb"));
  }

  /** Fetch a package unless it is here. @returns the path of its .deb */
  async fetch(p: Package, progress: Progress): Promise<string> {
    const path = (file: string) => join(this.#folder, file);
    const here = this.#archive(p);
    if (here && statSync(path(here)).size === p.sizeBytes) return path(here);
    const timer = setInterval(() => {
      const partial = this.#archive(p);
      if (partial) progress.percent(statSync(path(partial), { throwIfNoEntry: false })?.size ?? 0, p.sizeBytes);
    }, 200);
    try {
      await this.#must(...this.#apt("apt-get", "download", "-q", "-o", "APT::Sandbox::User=", `${p.name}=${p.version}`), `Fetching ${p.name}`);
    } finally {
      clearInterval(timer);
    }
    const got = this.#archive(p);
    if (!got) throw new UserError(`apt-get download brought no archive of ${p.name} ${p.version}`);
    return path(got);
  }

  /** Unpack a .deb. */
  async unpack(deb: string, into: string): Promise<void> {
    makeFolders(into);
    await this.#must("dpkg-deb", ["-x", deb, into], `Unpacking ${deb}`);
  }
  /** What a program prints; null where it cannot run here. */
  async ask(program: string, args: string[]): Promise<string | null> {
    try {
      const { code, out } = await this.#run(program, args);
      return code === 0 ? out : null;
    } catch { return null; }
  }
}
