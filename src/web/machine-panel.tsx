/** The machine at a glance: load, memory, its domains, what it said. */
import type { Computer } from "./computer.ts";
import { NR_SAMPLES, SAMPLE_MS } from "./computer.ts";
import { Chart } from "./chart.tsx";
import type { Session } from "./session.ts";
import { consoleTab, CURVES, open, percent, size, span, tab } from "./ui.ts";
import { useMemo } from "preact/hooks";

const SECONDS = (NR_SAMPLES * SAMPLE_MS) / 1000;
/** A colour's name is kept by the domain as long as it is there. */
const curveOf = (n: number): string => CURVES[n % CURVES.length]!;

/** What stands beside all panels. */
export function MachinePanel({ computer }: { readonly computer: Computer }) {
  const samples = computer.samples.value, last = samples.at(-1), sessions = computer.sessions.value, nrPcpus = last?.pcpuLoad.length ?? 0;
  const pcpus = useMemo(() => Array.from({ length: nrPcpus }, (_, i) => ({ label: `pCPU ${i}`, values: samples.map((s) => (s.pcpuLoad[i] ?? 0) * 100) })), [samples, nrPcpus]);
  const domains = useMemo(() => (last?.domains ?? []).map(({ domid, name }) => ({ label: name, values: samples.map((s) => { const d = s.domains.find((x) => x.domid === domid); return d ? d.load * 100 : null; }) })), [samples]);
  const usedMiB = last ? last.totalMiB - last.freeMiB : 0;
  return (
    <aside class="machine" aria-label="Machine">
      <section>
        <h2>Processors</h2>
        <Chart curves={pcpus} seconds={SECONDS} max={100} unit="%" height={96} summary={`Load of ${nrPcpus} physical CPUs now: ${last?.pcpuLoad.map(percent).join(", ") ?? "unknown"}`} />
        <ul class="gauges">
          {last?.pcpuLoad.map((load, i) => <li key={i}><span class={`swatch ${curveOf(i)}`} />pCPU {i}<b>{percent(load)}</b></li>)}
        </ul>
      </section>
      <section>
        <h2>Domains</h2>
        {domains.length > 0 && <Chart curves={domains} seconds={SECONDS} unit="%" height={84} summary={`Processor time of domains now: ${last!.domains.map((d) => `${d.name} ${percent(d.load)}`).join(", ")}`} />}
        {sessions.length === 0 ? <p class="dim">None yet. Make one from the configuration at the right, or press <kbd>n</kbd>.</p> : (
          <table class="domains">
            <thead><tr><th scope="col">Name</th><th scope="col" class="n">Id</th><th scope="col">State</th><th scope="col" class="n">CPU</th><th scope="col" class="n">MiB</th><th scope="col" class="n">Time</th><th scope="col" class="n">Up</th></tr></thead>
            <tbody>{sessions.map((s) => <Row key={s.id} session={s} computer={computer} />)}</tbody>
          </table>
        )}
      </section>
      <section>
        <h2>Memory</h2>
        <meter aria-label="Memory in use" min={0} max={last?.totalMiB ?? 1} value={usedMiB}>{size(usedMiB * 2 ** 20)}</meter>
        <p class="dim num">{size(usedMiB * 2 ** 20)} of {size((last?.totalMiB ?? 0) * 2 ** 20)} in use</p>
      </section>
      <Log computer={computer} />
    </aside>
  );
}

/** What the state is called. A running domain that waits for something is idle. */
function stateOf(session: Session, activity: string | undefined): string {
  const state = session.state.value;
  return state === "ended" ? session.ending.value || "destroyed" : state !== "running" ? state : activity === "blocked" ? "idle" : activity === "offline" ? "down" : "running";
}

function Row({ session, computer }: { readonly session: Session; readonly computer: Computer }) {
  const samples = computer.samples.value, domid = session.domain.value?.domid, d = samples.at(-1)?.domains.find((x) => x.domid === domid), state = stateOf(session, d?.activity), isOpen = tab.value === consoleTab(session);
  const curve = samples.at(-1)?.domains.findIndex((x) => x.domid === domid) ?? -1;
  return (
    <tr class={isOpen ? "open" : ""}>
      <th scope="row"><button type="button" class="link" onClick={() => open(consoleTab(session))}><span class={`swatch ${curve >= 0 ? curveOf(curve) : "none"}`} />{session.name}{session.isUnread.value && !isOpen && <span class="unread" title="new output"> •</span>}</button></th>
      <td class="n">{domid ?? "–"}</td>
      <td><span class={`state ${session.state.value}${session.crash.value ? " crashed" : ""}`}>{state}</span></td>
      <td class="n load" style={{ "--load": d ? Math.min(1, d.load) : 0 }}>{d ? percent(d.load) : ""}</td>
      <td class="n">{d ? Math.round(d.memoryMiB) : ""}</td>
      <td class="n">{d ? span(d.cpuNs / 1e6) : ""}</td>
      <td class="n">{d ? span(d.aliveMs) : ""}</td>
    </tr>
  );
}

function Log({ computer }: { readonly computer: Computer }) {
  const lines = computer.log.value;
  return (
    <section class="log">
      <h2>Messages</h2>
      {lines.length === 0 ? <p class="dim">Nothing to tell.</p> : (
        // biome-ignore lint/a11y/noNoninteractiveTabindex: a box that scrolls must be reached by the keyboard
        <ol tabIndex={0} aria-label="Messages, newest first">{[...lines].reverse().slice(0, 100).map((l) => <li key={l.nr}><time>{l.at.toTimeString().slice(0, 8)}</time> {l.text}</li>)}</ol>
      )}
    </section>
  );
}
