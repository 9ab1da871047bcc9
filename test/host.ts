/** A host of its own for a test: domusd with a small machine, and xl in this process. */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { ApiClient } from "../src/api/client.node.ts";
import { hostPaths } from "../src/bin/paths.ts";
import { xlMain } from "../src/bin/xl/main.ts";
import { root } from "./guest.ts";
import { tinyKernel } from "./tiny-kernel.ts";

/** Long enough for a loaded machine; what takes longer hangs. */
const PATIENCE_MS = 20_000;

export type Ran = { readonly code: number; readonly out: string; readonly err: string };

export class TestHost implements AsyncDisposable {
  readonly folder: string;
  readonly paths: ReturnType<typeof hostPaths>;
  readonly client: ApiClient;
  #nr = 0;

  constructor() {
    this.folder = mkdtempSync(join(tmpdir(), "domus-host-"));
    this.paths = hostPaths(join(this.folder, "state"));
    this.client = new ApiClient({ socketPath: this.paths.socket });
    this.file("sleeps", tinyKernel([0xfb, 0xf4, 0xeb, 0xfd]));       // sti; hlt; jmp
    this.file("halts", tinyKernel([0xfa, 0xf4]));
    this.file("faults", tinyKernel([0x0f, 0x0b]));
  }
  /** bin/domusd, waited for. */
  daemon(...args: string[]): Ran {
    const r = spawnSync(process.execPath, [`${root}bin/domusd`, ...args, `--state=${this.paths.state}`], { encoding: "utf8" });
    return { code: r.status ?? -1, out: r.stdout, err: r.stderr };
  }
  static async start(...options: string[]): Promise<TestHost> {
    const host = new TestHost(), { code, err } = host.daemon("start", "--memory=160", "--pcpus=1", "--net=none", ...options);
    assert.equal(code, 0, err);
    return host;
  }
  file(name: string, content: string | Uint8Array): string {
    const path = join(this.folder, name);
    writeFileSync(path, content);
    return path;
  }
  /** A configuration of a guest that sleeps for ever, or does what the kernel does. */
  cfg(name: string, rest = "", kernel = "sleeps"): string { return this.file(`${name}-${++this.#nr}.cfg`, `name = "${name}"\ntype = "pvh"\nmemory = 16\nkernel = "${join(this.folder, kernel)}"\n${rest}\n`); }

  /** xl, as its user meets it, but for the process. */
  async xl(...args: string[]): Promise<Ran> {
    let out = "", err = "";
    const code = await xlMain([`--state=${this.paths.state}`, ...args], { out: (text) => { out += text; }, say: (line) => { err += `${line}\n`; }, progress: () => {}, clear: () => {}, isTerminal: false, signal: new AbortController().signal, env: process.env });
    return { code, out, err };
  }
  /** As `xl`, which must succeed. @returns stdout */
  async done(...args: string[]): Promise<string> {
    const { code, out, err } = await this.xl(...args);
    assert.equal(code, 0, `xl ${args.join(" ")}: code ${code}\n${err}`);
    return out;
  }
  /** As `xl`, which must end with that code and say that. */
  async refuses(code: number, message: RegExp, ...args: string[]): Promise<void> {
    const ran = await this.xl(...args), told = `xl ${args.join(" ")}: code ${ran.code}\n${ran.err}`;
    assert.equal(ran.code, code, told);
    assert.match(ran.err, message, told);
    assert.doesNotMatch(ran.err, /^\s+at .*:\d+:\d+/m, told);
  }
  /** Certificates of a CA of this host's folder: ca.pem, and NAME.pem with NAME.key for each subject, good for localhost. */
  certificates(subjects: Readonly<Record<string, string>>): void {
    const openssl = (...args: string[]): void => { execFileSync("openssl", args, { cwd: this.folder, stdio: "ignore" }); }, key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    openssl("req", "-x509", ...key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test", "-days", "2");
    for (const [name, subject] of Object.entries(subjects)) {
      openssl("req", ...key, "-keyout", `${name}.key`, "-out", `${name}.csr`, "-subj", subject, "-addext", "subjectAltName=DNS:localhost");
      openssl("x509", "-req", "-in", `${name}.csr`, "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", `${name}.pem`, "-days", "2", "-copy_extensions", "copy");
    }
  }
  /** Options for domusd to serve TLS with a certificate of `of`'s CA. */
  static tls(of: TestHost, name: string): string[] { return ["--http=127.0.0.1:0", `--tls-cert=${of.folder}/${name}.pem`, `--tls-key=${of.folder}/${name}.key`, `--tls-ca=${of.folder}/ca.pem`]; }
  async domid(name: string): Promise<number> { return Number(await this.done("domid", name)); }
  /** Names of the guests there are. */
  async names(): Promise<string[]> { return (await this.client.call("domain.list", {})).filter((d) => d.domid !== 0).map((d) => d.name); }
  /** Wait until it is so. */
  async until(what: string, is: () => Promise<boolean>): Promise<void> {
    for (const begun = performance.now(); !(await is()); await sleep(50)) assert.ok(performance.now() - begun < PATIENCE_MS, `waited in vain until ${what}`);
  }
  /** What the store's tool prints of a path. */
  store(path: string): string {
    const r = spawnSync(process.execPath, [`${root}bin/xenstore-ls`, path], { encoding: "utf8", env: { ...process.env, XENSTORED_PATH: join(this.paths.run, "xenstore") } });
    return r.stdout;
  }
  async [Symbol.asyncDispose](): Promise<void> {
    this.daemon("stop", "--force");
    rmSync(this.folder, { recursive: true, force: true });
  }
}
