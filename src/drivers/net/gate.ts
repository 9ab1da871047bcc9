/** Pages that a guest granted and that are on its way behind it from another host: its frames wait for them, and are neither lost nor overtaken. */
import type { GrantAccess } from "../grants.ts";

export class PageGate {
  readonly #gnt: GrantAccess;
  readonly #again: () => void;
  #isShut = false;
  /** @param again called when what was missing is there */
  constructor(gnt: GrantAccess, again: () => void) {
    this.#gnt = gnt;
    this.#again = again;
  }
  /** Are some of these pages not there? Then `again` will be called, but where they never come. */
  isShut(refs: Iterable<number>): boolean {
    if (this.#isShut) return true;
    const missing = this.#gnt.missing?.(refs) ?? null;
    if (!missing) return false;
    this.#isShut = true;
    missing.then(() => {
      this.#isShut = false;
      this.#again();
    }, () => {});
    return true;
  }
}
