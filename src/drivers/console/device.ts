/** A further console of a domain (hvc1 and on): its ring lies in a page that the front end grants, and it comes and goes with it. The primary one is the toolstack's. */
import type { Bind, Doorbell } from "../dom0.ts";
import type { GrantAccess, MappedPage } from "../grants.ts";
import { mapRing } from "../ring.ts";
import type { BackDriver, FrontKeys } from "../xenbus.ts";
import { ConsoleBack } from "./back.ts";
import type { ConsoleViews } from "./views.ts";

export type ConsoleDeviceOptions = {
  readonly name: string; readonly grants: GrantAccess; readonly bind: Bind; readonly log: (sentence: string) => void;
  /** who sees and who types */
  readonly views: ConsoleViews;
};

export class ConsoleDevice implements BackDriver {
  readonly kind = "console";
  onBroken: (why: string) => void = () => {};
  readonly #options: ConsoleDeviceOptions;
  #connected: { readonly back: ConsoleBack; readonly bell: Doorbell; readonly pages: readonly MappedPage[] } | null = null;

  constructor(options: ConsoleDeviceOptions) { this.#options = options; }
  offer(): Record<string, string> { return { protocol: "vt100" }; }

  connect(front: FrontKeys): void {
    const { grants, bind, views, name, log } = this.#options, port = front.number("port", 0, 0xffffffff), pages = mapRing(grants, [front.number("ring-ref", 0, 0xffffffff)], "ring-ref");
    try {
      const bell: Doorbell = bind(port, () => back.poll()), back = new ConsoleBack(grants.words, pages[0]!.at, () => bell.notify(), { name, log, onOutput: (bytes) => views.push(bytes) });
      this.#connected = { back, bell, pages };
      views.typeTo((bytes) => back.write(bytes));
      back.poll();
    } catch (e) {
      for (const page of pages) grants.unmap(page);
      throw e;
    }
  }
  disconnect(): void {
    const connected = this.#connected;
    if (!connected) return;
    this.#connected = null;
    this.#options.views.typeTo(null);
    connected.back.close();
    connected.bell.close();
    for (const page of connected.pages) this.#options.grants.unmap(page);
  }
  describe(): Record<string, unknown> {
    return { isConnected: this.#connected !== null, nrBytesIn: this.#connected?.back.nrBytesIn ?? 0, nrBytesOut: this.#connected?.back.nrBytesOut ?? 0, nrViewers: this.#options.views.nrViewers };
  }
}
