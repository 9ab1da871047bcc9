/** Debian's Firefox, driven by WebDriver BiDi over its own WebSocket; as much of it as a test of the page wants. @see W3C WebDriver BiDi */
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

type Answer = { readonly id?: number; readonly type?: string; readonly message?: string; readonly method?: string; readonly params?: { readonly level?: string; readonly text?: string }; readonly result?: unknown };
const START_MS = 120_000;

/** One Firefox with one tab. */
export class Firefox implements AsyncDisposable {
  /** what the page logged as errors */
  readonly errors: string[] = [];
  readonly #socket: WebSocket;
  readonly #end: () => Promise<void>;
  readonly #waiting = new Map<number, PromiseWithResolvers<unknown>>();
  #nr = 0;
  #context = "";

  private constructor(socket: WebSocket, end: () => Promise<void>) {
    this.#socket = socket;
    this.#end = end;
    socket.onmessage = ({ data }: MessageEvent<string>) => {
      const m = JSON.parse(data) as Answer;
      if (m.method === "log.entryAdded" && m.params?.level === "error") this.errors.push(m.params.text ?? "");
      const waiting = this.#waiting.get(m.id ?? -1);
      if (m.type === "error") waiting?.reject(new Error(m.message));
      else waiting?.resolve(m.result);
    };
    socket.onclose = () => { for (const w of this.#waiting.values()) w.reject(new Error("Firefox is gone")); };
  }
  /** Start it. Debian's package is called firefox-esr. */
  static async start(): Promise<Firefox> {
    const program = ["/usr/bin/firefox-esr", "/usr/bin/firefox"].find(existsSync);
    if (program === undefined) throw new Error("There is no Firefox here; install Debian's package firefox-esr (tools/setup/apt-packages.txt)");
    const home = mkdtempSync(join(tmpdir(), "domus-firefox-"));
    const child = spawn(program, ["--headless", "--remote-debugging-port", "0", "--profile", home, "--no-remote", "about:blank"], { env: { ...process.env, HOME: home, MOZ_DISABLE_CONTENT_SANDBOX: "1" }, stdio: ["ignore", "ignore", "pipe"] });
    const gone = new Promise<void>((done) => { child.once("close", () => done()); }), end = async (): Promise<void> => {
      child.kill("SIGKILL");
      await gone;
      rmSync(home, { recursive: true, force: true, maxRetries: 5 });
    };
    try {
      const url = await new Promise<string>((found, failed) => {
        let said = "";
        child.once("error", failed);
        child.once("close", () => failed(new Error(`Firefox ended: ${said.slice(-1000)}`)));
        setTimeout(() => failed(new Error(`Firefox does not listen after ${START_MS} ms: ${said.slice(-1000)}`)), START_MS).unref();
        child.stderr.setEncoding("utf8").on("data", (text: string) => {
          said += text;
          const at = /WebDriver BiDi listening on (ws:\S+)/.exec(said)?.[1];
          if (at) found(at);
        });
      });
      const socket = new WebSocket(`${url}/session`);
      await new Promise<void>((done, failed) => { socket.onopen = () => done(); socket.onerror = () => failed(new Error(`Firefox does not answer at ${url}`)); });
      const firefox = new Firefox(socket, end);
      await firefox.#ask("session.new", { capabilities: {} });
      await firefox.#ask("session.subscribe", { events: ["log.entryAdded"] });
      const { contexts } = await firefox.#ask("browsingContext.getTree", {}) as { contexts: { context: string }[] };
      firefox.#context = contexts[0]!.context;
      return firefox;
    } catch (e) {
      await end();
      throw e;
    }
  }
  #ask(method: string, params: object): Promise<unknown> {
    const id = ++this.#nr, waiting = Promise.withResolvers<unknown>();
    this.#waiting.set(id, waiting);
    this.#socket.send(JSON.stringify({ id, method, params }));
    return waiting.promise;
  }
  async goto(url: string): Promise<void> { await this.#ask("browsingContext.navigate", { context: this.#context, url, wait: "complete" }); }
  /** Evaluate an expression in the page; a promise is waited for. @returns a string, number or boolean @throws what it threw */
  async evaluate(expression: string): Promise<unknown> {
    const said = await this.#ask("script.evaluate", { expression, target: { context: this.#context }, awaitPromise: true }) as { type: string; result?: { value?: unknown }; exceptionDetails?: { text: string } };
    if (said.type === "exception") throw new Error(said.exceptionDetails?.text);
    return said.result?.value;
  }
  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket.close();
    await this.#end();
  }
}
