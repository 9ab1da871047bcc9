/** Pages that a guest granted and that are on their way behind it from another host: what a ring asks for next waits for them, and is neither lost nor overtaken. */
import type { GrantAccess } from "./grants.ts";

export class PageGate {
  readonly #gnt: Pick<GrantAccess, "missing">;
  readonly #again: () => void;
  readonly #lost: () => void;
  #isShut = false;
  /** @param again called when what was missing is there @param lost called when it never will be: the gate stays shut */
  constructor(gnt: Pick<GrantAccess, "missing">, again: () => void, lost: () => void = () => {}) {
    this.#gnt = gnt;
    this.#again = again;
    this.#lost = lost;
  }
  /** Are some of these pages not there? Then `again` will be called, or `lost`. */
  isShut(refs: Iterable<number>): boolean {
    if (this.#isShut) return true;
    const missing = this.#gnt.missing?.(refs) ?? null;
    if (!missing) return false;
    this.#isShut = true;
    missing.then(() => {
      this.#isShut = false;
      this.#again();
    }, this.#lost);
    return true;
  }
}
