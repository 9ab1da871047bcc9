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

/** What the supervisor tells its user, and asks. */
export type Supervision = {
  /** a life begins; the returned promise ends when the console has been copied out */
  attach(domain: Domain): Promise<void>;
  /** a life has ended, its domain still exists */
  ended(domain: Domain, end: DomainEnd): void | Promise<void>;
  notice(text: string): void;
  /** what the next life is made from, and what is to be done before; default: the first configuration. Called when the domain of the last one is gone. */
  next?(): Promise<CheckedConfig>;
  /** begin the first life paused */
  isPaused?: boolean;
  /** the first life exists already: it was restored, or came from another host */
  first?: Domain;
  signal?: AbortSignal;
};

/** xl's suffix for a domain that is kept beside its successor: "-20070930T2005Z". xl_vmcontrol.c preserve_domain */
const suffix = (now: Date): string => `-${now.toISOString().slice(0, 16).replace(/[-:]/g, "")}Z`;

/**
 * Run a domain through all its lives.
 * @returns the end of the last one; with "preserve" its domain still exists, and the machine's end ends it
 */
export async function superviseDomain(machine: Machine, first: CheckedConfig, watch: Supervision): Promise<DomainEnd> {
  let config = first;
  for (let shortLives = 0, life = 0; ; life++) {
    const begun = performance.now(), options = { ...(watch.signal ? { signal: watch.signal } : {}), ...(life === 0 && watch.isPaused ? { paused: true } : {}) };
    const domain = (life === 0 ? watch.first : undefined) ?? await machine.createDomain(config, options);
    const attached = watch.attach(domain);
    const end = await Promise.race([domain.wait(), attached.then(() => domain.wait())]);      // whose console cannot be had fails at once
    const action = actionFor(config, end);
    shortLives = performance.now() - begun < SHORT_LIFE_MS ? shortLives + 1 : 0;
    const restarts = action === "restart" || action === "rename-restart" || action === "coredump-restart";
    const again = restarts && shortLives < MAX_SHORT_LIVES && !watch.signal?.aborted;
    if (end.reason === "suspend" && domain.hasLeft) watch.notice(`${domain.name} has been saved or moved`);
    else if (end.reason === "suspend") watch.notice(`${domain.name} suspended itself without being asked; it is destroyed`);
    if (end.reason === "soft_reset") watch.notice(`${domain.name} asked for soft_reset, which is not built yet; it is destroyed`);
    await attached;
    await watch.ended(domain, end);
    if (action === "rename-restart" && again) machine.renameDomain(domain, `${domain.name}${suffix(new Date())}`);
    else if (action !== "preserve") await domain.destroy();
    if (!again) {
      if (!restarts || watch.signal?.aborted) return end;
      watch.notice(`${config.name} lived less than ${SHORT_LIFE_MS / 1000} s ${MAX_SHORT_LIVES} times; not started again`);
      return { ...end, gaveUp: true };
    }
    watch.notice(`${config.name} ${end.reason === "reboot" ? "reboots" : "is started again"}`);
    if (watch.next) config = await watch.next();
    if (action === "rename-restart") config = { ...config, uuid: crypto.randomUUID() };       // the one that is kept keeps its own
  }
}
