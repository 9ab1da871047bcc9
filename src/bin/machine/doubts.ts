/** Domains that stand still because the link broke while they were handed over: held until somebody says which end has them, the other end or a person. */
import { ApiFault } from "../../api/fault.ts";
import type { Standing } from "../../migration/commit.ts";
import type { Domain } from "../../toolstack/domain.ts";
import type { MigrationInDoubt } from "../../toolstack/migrate.ts";

type Open = { readonly doubt: MigrationInDoubt; readonly over: PromiseWithResolvers<Domain | null>; isGone: boolean };

/** Those of a machine, by migration. */
export class Doubts {
  readonly #open = new Map<string, Open>();
  /** Hold one until it is settled, or until the domain is `gone`. */
  hold(doubt: MigrationInDoubt, gone: Promise<unknown>): void {
    const open: Open = { doubt, over: Promise.withResolvers(), isGone: false };
    open.over.promise.catch(() => {});
    this.#open.set(doubt.migration, open);
    void gone.then(() => {
      open.isGone = true;
      if (this.#open.get(doubt.migration) === open) this.#end(open);
    });
  }
  #end(open: Open): void {
    this.#open.delete(open.doubt.migration);
    open.over.reject(new ApiFault("gone", `The domain of migration ${open.doubt.migration} was destroyed here while it was not known which end has it`));
  }
  /** How it ends: the domain, which runs on here; null: it is the other end's. @throws where it cannot go on, or was destroyed */
  over(migration: string): Promise<Domain | null> { return this.#find(migration).over.promise; }
  #find(migration: string): Open {
    const open = this.#open.get(migration);
    if (!open) throw new ApiFault("notfound", `No domain stands still here for migration "${migration}": it was settled, its domain was destroyed, or the machine's process is another`);
    return open;
  }
  /** Say what the other end is. @returns as MigrationInDoubt.settle @throws ApiFault "notfound", and where the domain cannot go on */
  async settle(migration: string, standing: Standing): Promise<Domain | null | undefined> {
    const open = this.#find(migration);
    this.#open.delete(migration);        // once, and that the domain is gone is then no surprise
    try {
      const settled = await open.doubt.settle(standing);
      if (settled !== undefined) open.over.resolve(settled);
      else if (open.isGone) this.#end(open);
      else this.#open.set(migration, open);
      return settled;
    } catch (e) {
      open.over.reject(e);
      throw e;
    }
  }
}
/** What a person is told who has waited for it. */
export const remedyOf = (e: MigrationInDoubt): ApiFault => new ApiFault("failed", `${e.message}. When you know: "xl migrate-settle ${e.migration} running" here if the other host has it, and its copy here ends; "xl migrate-settle ${e.migration} dropped" if it has it not, and it goes on here (over the API: migration.settle)`, { cause: e });
