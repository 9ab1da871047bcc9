/** A client of the gdb remote serial protocol, as far as stepping a virtual machine needs it ("GDB Remote Serial Protocol" in the GDB manual). */
import { connect, type Socket } from "node:net";

export class Gdb {
  readonly #socket: Socket;
  #input = "";
  #waiting: ((packet: string) => void) | null = null;
  #ready: string[] = [];
  #acknowledges = true;
  #failure: Error | null = null;
  #fail: ((e: Error) => void) | null = null;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.setEncoding("latin1");
    socket.on("data", (d: string) => this.#receive(d));
    const lost = (): void => { this.#failure = new Error("The gdb stub closed the connection"); this.#fail?.(this.#failure); };
    socket.on("error", lost);
    socket.on("close", lost);
  }
  /** Connect, trying again while the other side starts. */
  static async open(port: number, host = "127.0.0.1", seconds = 10): Promise<Gdb> {
    for (const end = performance.now() + seconds * 1000; ;) {
      try {
        const gdb = new Gdb(await new Promise<Socket>((done, fail) => { const s = connect(port, host, () => { s.off("error", fail); done(s); }); s.once("error", fail); }));
        if (await gdb.ask("QStartNoAckMode") === "OK") gdb.#acknowledges = false;
        return gdb;
      } catch (e) {
        if (performance.now() > end) throw e;
        await new Promise((r) => setTimeout(r, 50));
      }
    }
  }
  #receive(d: string): void {
    this.#input += d;
    for (;;) {
      const start = this.#input.indexOf("$"), end = this.#input.indexOf("#", start);
      if (start < 0 || end < 0 || this.#input.length < end + 3) return;
      const packet = this.#input.slice(start + 1, end);
      this.#input = this.#input.slice(end + 3);
      if (this.#acknowledges) this.#socket.write("+");
      if (this.#waiting) { const w = this.#waiting; this.#waiting = null; w(packet); } else this.#ready.push(packet);
    }
  }
  #next(): Promise<string> {
    if (this.#ready.length) return Promise.resolve(this.#ready.shift()!);
    if (this.#failure) return Promise.reject(this.#failure);
    return new Promise((done, fail) => { this.#waiting = done; this.#fail = fail; });
  }
  /** Send a packet and return the answer's text. */
  async ask(packet: string): Promise<string> {
    let sum = 0;
    for (let i = 0; i < packet.length; i++) sum = (sum + packet.charCodeAt(i)) & 0xff;
    this.#socket.write(`$${packet}#${sum.toString(16).padStart(2, "0")}`);
    return this.#next();
  }
  /** One instruction; returns the stop reply. */
  step(): Promise<string> { return this.ask("s"); }
  go(): Promise<string> { return this.ask("c"); }
  /** Hardware breakpoint: it needs no writable code. */
  async breakpoint(address: bigint, on: boolean): Promise<void> {
    const a = await this.ask(`${on ? "Z" : "z"}1,${address.toString(16)},1`);
    if (a !== "OK") throw new Error(`The gdb stub refused a breakpoint at ${address.toString(16)}: "${a}"`);
  }
  /** All registers of the `g` packet, as bytes. */
  async registers(): Promise<DataView> { return new DataView(fromHex(await this.ask("g")).buffer); }
  async memory(linear: bigint, size: number): Promise<Uint8Array | null> {
    const a = await this.ask(`m${linear.toString(16)},${size.toString(16)}`);
    return /^E/.test(a) ? null : fromHex(a);
  }
  /** A command of the machine's monitor; returns what it prints. */
  async monitor(command: string): Promise<string> {
    let out = "", a = await this.ask(`qRcmd,${[...command].map((c) => c.charCodeAt(0).toString(16).padStart(2, "0")).join("")}`);
    for (; a !== "OK"; a = await this.#next()) {
      if (/^E|^$/.test(a)) throw new Error(`The monitor refused "${command}": ${a}`);
      out += new TextDecoder().decode(fromHex(a.slice(1)));
    }
    return out;
  }
  close(): void { this.#socket.destroy(); }
}

function fromHex(s: string): Uint8Array<ArrayBuffer> {
  const b = new Uint8Array(s.length >> 1);
  for (let i = 0; i < b.length; i++) b[i] = Number.parseInt(s.slice(2 * i, 2 * i + 2), 16);
  return b;
}
