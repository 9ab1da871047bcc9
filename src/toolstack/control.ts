/**
 * What a toolstack asks of a running guest through the store: to go down, to grow or shrink, to answer a key, to take a vCPU up or down. The guest does it, or not.
 * @see docs/misc/xenstore-paths.pandoc "control/shutdown", "control/sysrq", "memory/target", "cpu/N/availability"
 */
import { UserError } from "../base/errors.ts";
import type { Client } from "../xenstore/client.ts";
import { domainPath } from "../xenstore/path.ts";

/** What a guest can be asked to do. */
export type ShutdownRequest = "poweroff" | "reboot" | "halt" | "suspend" | "crash";

export class Control {
  readonly #xs: Client;
  readonly #path: string;
  #maxmemMiB: number;
  readonly #setMaxPages: (nrPages: number) => void;
  /** while the domain is on its way out: what its limits are has gone ahead */
  isFixed = false;

  constructor(xs: Client, domid: number, maxmemMiB: number, setMaxPages: (nrPages: number) => void) {
    this.#xs = xs;
    this.#path = domainPath(domid);
    this.#maxmemMiB = maxmemMiB;
    this.#setMaxPages = setMaxPages;
  }

  /** @returns false when the guest has not said that it understands it (it may all the same) */
  shutdown(request: ShutdownRequest): boolean {
    this.#xs.write(`${this.#path}/control/shutdown`, request);
    return this.knows(request);
  }
  /** Has the guest said that it understands that request? */
  knows(request: ShutdownRequest): boolean { return this.#xs.read(`${this.#path}/control/feature-${request}`) === "1"; }
  /** Whether the guest has taken the last request up: it clears it. */
  get isShutdownTaken(): boolean { return this.shutdownAsked === ""; }
  /** The request that the guest has not taken up yet, or "". */
  get shutdownAsked(): string { return this.#xs.read(`${this.#path}/control/shutdown`) ?? ""; }
  /** Press a Magic SysRq key. @param key one character */
  sysrq(key: string): void {
    if (!/^[0-9a-z]$/.test(key)) throw new UserError(`sysrq: "${key}" is no key; one letter or digit is`);
    this.#xs.write(`${this.#path}/control/sysrq`, key);
  }
  /** What the balloon shall aim at. Frames that the guest gives up go back to the machine. @throws UserError above the domain's maximum */
  setMemoryTarget(mib: number): void {
    this.#mayChange();
    if (!Number.isSafeInteger(mib) || mib < 1 || mib > this.#maxmemMiB) throw new UserError(`memory: ${mib} MiB are not between 1 and the domain's maximum of ${this.#maxmemMiB}`);
    this.#setMaxPages(mib * 256);
    this.#xs.write(`${this.#path}/memory/target`, String(mib * 1024));
  }
  /** The most that the target may be from now on; the guest is not told. @throws UserError below its target. xl mem-max */
  setMemoryMax(mib: number): void {
    this.#mayChange();
    if (!Number.isSafeInteger(mib) || mib < this.memoryTargetMiB) throw new UserError(`memory: A maximum of ${mib} MiB is below the domain's target of ${this.memoryTargetMiB}`);
    this.#maxmemMiB = mib;
  }
  #mayChange(): void { if (this.isFixed) throw new UserError("memory: The domain is being saved or moved; its limits stay as they are until that is over"); }
  get memoryMaxMiB(): number { return this.#maxmemMiB; }
  get memoryTargetMiB(): number { return Number(this.#xs.read(`${this.#path}/memory/target`)) / 1024; }
}
