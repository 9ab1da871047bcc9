/** What Prometheus reads: text format 0.0.4. */
import { ACTIONS } from "../../api/actions.ts";
import type { MachineKeeper } from "./machines.ts";

/** A label's value. */
const quoted = (value: string): string => `"${value.replace(/[\\"\n]/g, (c) => (c === "\n" ? "\\n" : `\\${c}`))}"`;
const labels = (of: Readonly<Record<string, string>>): string => `{${Object.entries(of).map(([k, v]) => `${k}=${quoted(v)}`).join(",")}}`;
type Sample = readonly [labels: Readonly<Record<string, string>>, value: number];

/** A metric with its samples. */
function metric(name: string, type: "counter" | "gauge", help: string, samples: readonly Sample[]): string {
  return `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${samples.map(([of, value]) => `${name}${Object.keys(of).length ? labels(of) : ""} ${value}\n`).join("")}`;
}

/** Is it one of ours? Anybody can ask for what there is not, under as many names as they like. */
function isKnown(request: string): boolean {
  const name = /^POST \/v1\/(.+)$/.exec(request)?.[1];
  return name === undefined ? ["GET /v1/events", "GET /metrics", "GET /openapi.json", "GET /"].includes(request) : Object.hasOwn(ACTIONS, name);
}

/** Counts requests, and asks the machine for the rest when it is read. */
export class Metrics {
  /** requests by action and status, and their time */
  readonly #requests = new Map<string, { readonly action: string; readonly status: string; count: number; seconds: number }>();

  /** A request was answered. */
  count(action: string, status: number, ms: number): void {
    const known = isKnown(action) ? action : "other", key = `${known} ${status}`, row = this.#requests.get(key) ?? { action: known, status: String(status), count: 0, seconds: 0 };
    row.count++;
    row.seconds += ms / 1000;
    this.#requests.set(key, row);
  }
  async text(machine: MachineKeeper): Promise<string> {
    const rows = [...this.#requests.values()], parts = [
      metric("domus_api_requests_total", "counter", "Requests answered, by action and status.", rows.map((r) => [{ action: r.action, status: r.status }, r.count])),
      metric("domus_api_request_seconds_total", "counter", "Time spent on them.", rows.map((r) => [{ action: r.action, status: r.status }, r.seconds])),
      metric("domus_machine_up", "gauge", "1 while the machine's process answers.", [[{}, machine.state === "running" ? 1 : 0]]),
      metric("domus_daemon_resident_bytes", "gauge", "Memory of domusd.", [[{}, process.memoryUsage.rss()]]),
    ];
    if (machine.state === "running") {
      const client = await machine.client(), [info, domains] = await Promise.all([client.call("machine.info", {}), client.call("domain.list", {})]);
      const each = (value: (d: (typeof domains)[number]) => number): Sample[] => domains.map((d) => [{ domain: d.name, uuid: d.uuid }, value(d)]);
      parts.push(
        metric("domus_machine_memory_bytes", "gauge", "The machine's memory for guests.", [[{}, info.totalMiB * 2 ** 20]]),
        metric("domus_machine_memory_free_bytes", "gauge", "What no domain has of it.", [[{}, info.freeMiB * 2 ** 20]]),
        metric("domus_machine_pcpus", "gauge", "Physical CPUs.", [[{}, info.nrPcpus]]),
        metric("domus_domains", "gauge", "Domains, the control domain among them.", [[{}, domains.length]]),
        metric("domus_domain_cpu_seconds_total", "counter", "Time that vCPUs ran.", each((d) => d.cpuTimeNs / 1e9)),
        metric("domus_domain_memory_bytes", "gauge", "Frames the domain has.", each((d) => d.memoryKiB * 1024)),
        metric("domus_domain_memory_max_bytes", "gauge", "What its balloon may reach.", each((d) => d.maxKiB * 1024)),
        metric("domus_domain_vcpus", "gauge", "vCPUs on line.", each((d) => d.onlineVcpus)),
        metric("domus_domain_state", "gauge", "1 for the state it is in: running, blocked, paused, shutdown, crashed, dying.", domains.flatMap((d): Sample[] =>
          ["running", "blocked", "paused", "shutdown", "crashed", "dying"].map((state, i) => [{ domain: d.name, uuid: d.uuid, state }, d.state[i] === "-" ? 0 : 1]))),
      );
    }
    return parts.join("");
  }
}
