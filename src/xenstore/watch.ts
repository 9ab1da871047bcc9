/** Who waits for changes where. */
import { levelsBelow, parentOf } from "./path.ts";

/** One watch. */
export type Watch<Owner> = {
  readonly owner: Owner;
  /** absolute, or special */
  readonly path: string;
  readonly token: string;
  /** what events leave off the front of a path, because the watch was given a relative one */
  readonly prefix: string;
  /** how many levels below `path` changes are told; undefined: all */
  readonly depth: number | undefined;
  readonly seq: number;
};

/** All watches, by their paths. */
export class Watches<Owner> {
  #byPath = new Map<string, Watch<Owner>[]>();
  #seq = 0;

  /** @returns undefined when the owner has this watch already */
  add(w: Omit<Watch<Owner>, "seq">): Watch<Owner> | undefined {
    const here = this.#byPath.get(w.path) ?? [];
    if (here.some((o) => o.owner === w.owner && o.token === w.token)) return undefined;
    const watch = { ...w, seq: ++this.#seq };
    this.#byPath.set(w.path, [...here, watch]);
    return watch;
  }
  /** @returns whether there was such a watch */
  remove(owner: Owner, path: string, token: string): boolean {
    return this.#keep(path, (w) => w.owner !== owner || w.token !== token);
  }
  removeAll(owner: Owner): void {
    for (const path of [...this.#byPath.keys()]) this.#keep(path, (w) => w.owner !== owner);
  }
  #keep(path: string, keep: (w: Watch<Owner>) => boolean): boolean {
    const here = this.#byPath.get(path) ?? [], kept = here.filter(keep);
    if (kept.length) this.#byPath.set(path, kept);
    else this.#byPath.delete(path);
    return kept.length < here.length;
  }
  /** An owner's, oldest first. */
  ownedBy(owner: Owner): Watch<Owner>[] { return [...this.#byPath.values()].flat().filter((w) => w.owner === owner).sort((a, b) => a.seq - b.seq); }
  /** Watches on this very path. */
  at(path: string): readonly Watch<Owner>[] {
    return this.#byPath.get(path) ?? [];
  }
  /** Watches that a change of `path` concerns, oldest first. */
  of(path: string, exact: boolean): Watch<Owner>[] {
    const found: Watch<Owner>[] = [];
    for (let at: string | undefined = path; at !== undefined; at = exact ? undefined : parentOf(at)) {
      for (const w of this.#byPath.get(at) ?? []) if (w.depth === undefined || levelsBelow(path, at) <= w.depth) found.push(w);
    }
    return found.sort((a, b) => a.seq - b.seq);
  }
}
