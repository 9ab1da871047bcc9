/** What a machine's process answers: an action a line or two, over its residents. */
import type { Duplex } from "node:stream";
import { isAbsolute } from "node:path";
import { SHUTDOWN } from "../../abi/sched.ts";
import { needCpus } from "../../api/cpus.ts";
import { ApiFault } from "../../api/fault.ts";
import type { HostEvent } from "../../api/events.ts";
import { configOf } from "../../api/schema.ts";
import type { CallContext, Handlers, StreamOpener } from "../../api/serve.node.ts";
import type { Tasks } from "../../api/tasks.ts";
import type { Domain } from "../../toolstack/domain.ts";
import { joinConsole } from "../consoles.ts";
import { mustBeDisk, mustBeWithin, mustNameWithin } from "./bounds.ts";
import { bridgeList } from "./capture.ts";
import { debugKeys } from "./debug-keys.ts";
import { attachBlock, attachNic, blockList, changeCd, channelList, detachBlock, detachNic, nicList } from "./devices.ts";
import { domain0, domainInfo, machineInfo } from "./info.ts";
import { dumpToFile, type MigrateParams, migrateTo, restoreFromFile, saveToFile, settleMigration, standingIn } from "./moves.ts";
import { mustBuild, type Residents } from "./residents.ts";

const BUSY_NOTICE = "\r\n[somebody else types on this console; you only look]\r\n";
/** Whole MiB of KiB, as the balloon takes them. */
const mib = (kib: number): number => Math.floor(kib / 1024);

/** The actions. */
export function machineHandlers(residents: Residents, tasks: Tasks): Handlers {
  const { machine, messages, events } = residents.house;
  const tell = (kind: HostEvent["kind"], d: Domain): void => { events.emit({ kind, domid: d.domid, name: d.name, uuid: d.uuid }); };
  const cpus = () => needCpus(machine), domidOf = (ref: number | string): number => residents.find(ref).domid;
  const poolName = (id: number): string | undefined => cpus().pools().find((p) => p.id === id)?.name;
  const changed = (d: Domain): void => tell("domain.changed", d);
  return {
    "machine.info": () => machineInfo(machine),
    "machine.dmesg": ({ clear }) => { const { text } = messages; if (clear) messages.clear(); return { text }; },
    "machine.debugKeys": ({ keys }) => { messages.say(debugKeys(machine, keys)); return {}; },

    "domain.list": ({ domain }) => (domain === undefined ? [domain0(machine), ...machine.domains.map((d) => domainInfo(residents, d)).sort((a, b) => a.domid - b.domid)]
      : domain === 0 || domain === "0" || domain === "Domain-0" ? [domain0(machine)] : [domainInfo(residents, residents.find(domain))]),
    "domain.config": ({ domain }) => residents.keeper(domain).config,
    "domain.create": async ({ config, isPaused }, c) => ({ domid: (await residents.create(await mustNameWithin(c.folders ?? null, configOf(config)), { signal: c.signal, progress: c.progress, ...(isPaused ? { isPaused } : {}) })).domid }),
    "domain.destroy": async ({ domain }) => { await residents.destroy(domain); return {}; },
    "domain.shutdown": ({ domain, how }) => {
      const d = residents.find(domain);
      if (machine.hv.domain(d.domid)?.isShutDown) throw new ApiFault("gone", `${d.name} has shut down already`);
      return { isUnderstood: d.control.shutdown(how) };
    },
    "domain.pause": async ({ domain }) => { const d = residents.find(domain); await d.pause(); tell("domain.paused", d); return {}; },
    "domain.unpause": ({ domain }) => { const d = residents.find(domain); d.unpause(); tell("domain.unpaused", d); return {}; },
    "domain.rename": ({ domain, name }) => { residents.rename(domain, name); return {}; },
    "domain.configUpdate": async ({ domain, config }, c) => {
      const next = await mustNameWithin(c.folders ?? null, configOf(config)), r = residents.keeper(domain);
      mustBuild(next);
      r.nextConfig = { ...next, c_info: { ...next.c_info, name: r.name, uuid: r.domain.uuid } };
      changed(r.domain);
      return {};
    },
    "domain.memSet": ({ domain, kib }) => { const d = residents.find(domain); d.control.setMemoryTarget(mib(kib)); changed(d); return {}; },
    "domain.memMax": ({ domain, kib }) => { const d = residents.find(domain); d.control.setMemoryMax(mib(kib)); changed(d); return {}; },
    "domain.trigger": ({ domain, trigger, vcpu = 0 }) => {
      const d = residents.find(domain), hd = machine.hv.domain(d.domid);
      if (d.isLeaving) throw new ApiFault("busy", `${d.name} is being saved or moved; it is triggered where it is when that is over`);
      if (trigger === "reset") hd?.shutdown(SHUTDOWN.reboot);
      else if (trigger === "nmi") {
        const v = hd?.vcpu(vcpu);
        if (hd && !v?.isUp) throw new ApiFault("invalid", `${d.name} has no vCPU ${vcpu} that is on line`);
        v?.sendNmi();
      } else throw new ApiFault("notbuilt", `The trigger "${trigger}" is not built yet; "reset" and "nmi" are`);
      return {};
    },
    "domain.save": async ({ domain, path, afterwards, config }, c) => saveToFile(residents, domain, await toMake(c, path), afterwards ?? "destroy", config && await mustNameWithin(c.folders ?? null, configOf(config)), c),
    "domain.restore": async ({ path, isPaused, config }, c) => restoreFromFile(residents, await toRead(c, path), isPaused ?? false, config === undefined ? null : configOf(config), c),
    "domain.dumpCore": async ({ domain, path }, c) => dumpToFile(residents.find(domain), await toMake(c, path), c),
    "domain.migrate": (params, c) => migrateTo(residents, defined(params) as MigrateParams, c),
    "migration.standing": ({ migration }) => ({ standing: standingIn(residents, migration) }),
    "migration.settle": ({ migration, standing }) => settleMigration(residents, migration, standing),
    "domain.sysrq": ({ domain, key }) => { residents.find(domain).control.sysrq(key); return {}; },

    "block.list": ({ domain }) => blockList(machine, residents.find(domain)),
    "block.attach": async ({ domain, spec, folder }, c) => { const r = residents.keeper(domain), made = await attachBlock(r, spec, absolute(folder ?? "/"), (disk) => mustBeDisk(c.folders ?? null, disk)); changed(r.domain); return made; },
    "block.detach": async ({ domain, vdev, isForced }) => { const r = residents.keeper(domain); await detachBlock(r, vdev, isForced ?? false); changed(r.domain); return {}; },
    "cdrom.change": async ({ domain, vdev, path }, c) => { const disc = path === undefined ? null : await toRead(c, path), r = residents.keeper(domain); await changeCd(r, vdev, disc); changed(r.domain); return {}; },
    "nic.list": ({ domain }) => nicList(machine, residents.find(domain)),
    "nic.attach": async ({ domain, spec }) => { const r = residents.keeper(domain), made = await attachNic(machine, r, spec); changed(r.domain); return made; },
    "nic.detach": async ({ domain, nic, isForced }) => { const r = residents.keeper(domain); await detachNic(machine, r, nic, isForced ?? false); changed(r.domain); return {}; },
    "net.list": () => bridgeList(machine),
    "channel.list": ({ domain }) => { const r = residents.keeper(domain); return channelList(machine, r.domain, r.config); },

    "cpu.list": ({ domain }) => cpus().vcpus(domain === undefined ? undefined : domidOf(domain)).map((v) => ({ ...v, hard: v.hard === "all" ? "all" as const : [...v.hard], soft: v.soft === "all" ? "all" as const : [...v.soft] })),
    "cpu.pin": ({ domain, vcpu, hard, soft }) => { const d = residents.find(domain); cpus().pin(d.domid, vcpu, hard, soft); changed(d); return {}; },
    "cpu.online": ({ domain, nr }) => { const d = residents.find(domain); cpus().setOnline(d.domid, nr); changed(d); return {}; },
    "sched.get": ({ domain }) => cpus().sched(domidOf(domain)),
    "sched.set": ({ domain, params }) => { const d = residents.find(domain); cpus().setSched(d.domid, defined(params)); changed(d); return {}; },
    "pool.list": () => cpus().pools().map(plainPool),
    "pool.create": ({ name, sched, pcpus }) => plainPool(cpus().createPool(name, sched, pcpus)),
    "pool.destroy": ({ id }) => { cpus().destroyPool(id); return {}; },
    "pool.rename": ({ id, name }) => {
      const was = poolName(id);
      cpus().renamePool(id, name);
      for (const r of residents.all) r.livesIn((pool) => (pool === was ? name : pool));
      return {};
    },
    "pool.addCpu": ({ id, pcpu }) => { cpus().addCpu(id, pcpu); return {}; },
    "pool.removeCpu": ({ id, pcpu }) => { cpus().removeCpu(id, pcpu); return {}; },
    "pool.move": async ({ domain, id }) => {
      await cpus().movePool(domidOf(domain), id);
      residents.keeperOf(residents.find(domain))?.livesIn(() => poolName(id));
      return {};
    },
    "pool.set": ({ id, ...params }) => { cpus().setPoolParams(id, defined(params)); return {}; },

    "task.list": () => tasks.list(),
    "task.cancel": ({ task }) => { tasks.cancel(task); return {}; },
  };
}
const plainPool = <P extends { readonly pcpus: readonly number[]; readonly domains: readonly number[] }>(p: P) => ({ ...p, pcpus: [...p.pcpus], domains: [...p.domains] });
/** Without the keys that were given as undefined. */
const defined = <T extends object>(o: T): { [K in keyof T]: Exclude<T[K], undefined> } => Object.fromEntries(Object.entries(o).filter(([, v]) => v !== undefined)) as { [K in keyof T]: Exclude<T[K], undefined> };
/** The process's folder is nobody's: paths come whole. */
function absolute(path: string): string {
  if (!isAbsolute(path)) throw new ApiFault("invalid", `"${path}" is not an absolute path, and the daemon stands in another folder than you`);
  return path;
}
/** A file that a client names, to be read. @throws ApiFault */
async function toRead(c: CallContext, path: string): Promise<string> {
  await mustBeWithin(c.folders ?? null, absolute(path));
  return path;
}
/** As `toRead`, of one that is to be made. */
async function toMake(c: CallContext, path: string): Promise<string> {
  await mustBeWithin(c.folders ?? null, absolute(path), true);
  return path;
}

/** A domain's console: the primary one, or the channel of that number; with `follow` through all lives of the domain. */
export const consoleStream = (residents: Residents): StreamOpener => async (params) => {
  const { domain: ref, number = 0, follow = false } = params as { domain: number | string; number?: number; follow?: boolean }, domain = residents.find(ref), keeper = residents.keeperOf(domain);
  const viewsOf = (d: Domain) => (number === 0 ? d.views : [...d.channels.values()][number - 1]);
  if (!viewsOf(domain)) throw new ApiFault("notfound", `${domain.name} has no console ${number}`);
  return { take: (connection: Duplex) => {
    connection.on("error", () => {});
    void (async () => {
      for (let life: Domain | null = domain; life;) {
        const views = viewsOf(life), next: Promise<Domain | null> = follow && keeper ? keeper.nextLife : Promise.resolve(null);
        if (!views || (await joinConsole(connection, views, { busyNotice: BUSY_NOTICE })) === "left") break;
        life = await next;
      }
      connection.end();
    })();
  } };
};
