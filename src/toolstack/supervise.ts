/** What xl does while a domain lives: wait for its end and do what its configuration says for that end. xl.cfg(5) "Event Actions". */
import type { CheckedConfig, EventAction } from "./config.ts";
import type { Domain, DomainEnd } from "./domain.ts";
import type { Machine } from "./machine.ts";

/** A domain that ends sooner than this after its start, several times in a row, is not started again. */
const SHORT_LIFE_MS = 2000, MAX_SHORT_LIVES = 3;

/** What is done now that the domain has ended. */
export function actionFor(config: Pick<CheckedConfig, "onPoweroff" | "onReboot" | "onCrash">, end: DomainEnd): EventAction {
  switch (end.reason) {
    case "poweroff": return config.onPoweroff;
    case "reboot": return config.onReboot;
    case "crash": case "watchdog": return config.onCrash;
    case "suspend": case "soft_reset": case "destroyed": return "destroy";
    default: return end.reason satisfies never;
  }
}

/** What the supervisor tells its user. */
export type Supervision = {
  /** a life begins; the returned promise ends when the console has been copied out */
  attach(domain: Domain): Promise<void>;
  /** a life has ended, its domain still exists */
  ended(domain: Domain, end: DomainEnd): void;
  notice(text: string): void;
  /** the first life exists already: it was restored, or came from another host */
  first?: Domain;
  signal?: AbortSignal;
};

/**
 * Run a domain through all its lives.
 * @returns the end of the last one; with "preserve" its domain still exists, and the machine's end ends it
 */
export async function superviseDomain(machine: Machine, config: CheckedConfig, watch: Supervision): Promise<DomainEnd> {
  for (let shortLives = 0, { first } = watch; ; first = undefined) {
    const begun = performance.now(), options = watch.signal ? { signal: watch.signal } : {};
    const domain = first ?? await machine.createDomain(config, options);
    const attached = watch.attach(domain);
    const end = await Promise.race([domain.wait(), attached.then(() => domain.wait())]);      // whose console cannot be had fails at once
    const action = actionFor(config, end);
    shortLives = performance.now() - begun < SHORT_LIFE_MS ? shortLives + 1 : 0;
    const restarts = action === "restart" || action === "rename-restart" || action === "coredump-restart";
    const again = restarts && shortLives < MAX_SHORT_LIVES && !watch.signal?.aborted;
    if (end.reason === "suspend" && domain.hasLeft) watch.notice(`${config.name} has been saved or moved`);
    else if (end.reason === "suspend") watch.notice(`${config.name} suspended itself without being asked; it is destroyed`);
    if (end.reason === "soft_reset") watch.notice(`${config.name} asked for soft_reset, which is not built yet; it is destroyed`);
    await attached;
    watch.ended(domain, end);
    if (action !== "preserve") await domain.destroy();
    if (!again) {
      if (!restarts || watch.signal?.aborted) return end;
      watch.notice(`${config.name} lived less than ${SHORT_LIFE_MS / 1000} s ${MAX_SHORT_LIVES} times; not started again`);
      return { ...end, gaveUp: true };
    }
    watch.notice(`${config.name} ${end.reason === "reboot" ? "reboots" : "is started again"}`);
  }
}
