/** What guests ask of the hypervisor and of the store, as it happens. */
import { useEffect, useRef, useState } from "preact/hooks";
import { TRACE, TRACE_CLASS, type TraceClass, type TraceEntry } from "../base/trace.ts";
import { hypercallName } from "../hypervisor/names.ts";
import { requestText } from "../xenstore/spoken.ts";
import type { Computer } from "./computer.ts";

type Row = { readonly key: string; readonly timeNs: number; readonly pcpu: number; readonly who: string; readonly domid: number; readonly cls: TraceClass | "xenstore"; text: string };
/** How often the trace is looked at; rows taken at a look, kept, and shown. */
const LOOK_MS = 200, MOST_AT_ONCE = 2000, MOST_KEPT = 4000, MOST_SHOWN = 400;
const CLASSES = ["hypercall", "event", "xenstore", "timer", "sched", "interrupt", "exception", "exit", "memory", "io", "error"] as const;
const SAYS: Readonly<Record<(typeof CLASSES)[number], string>> = {
  hypercall: "calls into the hypervisor", event: "event channels", xenstore: "the store's requests", timer: "timers set and fired", sched: "vCPUs taken up and left", interrupt: "interrupts taken",
  exception: "exceptions", exit: "why the engine stopped", memory: "the guest-physical map", io: "ports and device memory", error: "what there is not, and ends",
};

/** Names for numbers, and a call's result in its own row. */
function rowsOf(entries: readonly TraceEntry[], calls: Map<string, Row>): Row[] {
  const rows: Row[] = [];
  for (const e of entries) {
    const who = `d${e.domid}v${e.vcpu}`, [a, b] = e.args;
    if (e.event === TRACE.hypercallDone) {
      const call = calls.get(who);
      if (call) { call.text += ` = ${b}`; calls.delete(who); continue; }
    }
    const text = e.event === TRACE.hypercall ? `${hypercallName(a, b)} ${e.text.slice(e.text.indexOf("("))}` : e.event === TRACE.hypercallDone ? `${hypercallName(a)} = ${b}` : e.text;
    const row: Row = { key: `h${e.nr}`, timeNs: e.timeNs, pcpu: e.pcpu, who, domid: e.domid, cls: e.cls, text };
    if (e.event === TRACE.hypercall) calls.set(who, row);
    rows.push(row);
  }
  return rows;
}

/** The panel `Trace`. What it asks for is recorded only while it is shown. */
export function TracePane({ computer, isShown }: { readonly computer: Computer; readonly isShown: boolean }) {
  const machine = computer.machine.value, [classes, setClasses] = useState<ReadonlySet<string>>(new Set(["hypercall", "event", "xenstore", "error"])), [text, setText] = useState(""), [domid, setDomid] = useState(""), [isHeld, setHeld] = useState(false), [pinned, setPinned] = useState<string | null>(null);
  const [, redraw] = useState(0), kept = useRef<Row[]>([]), box = useRef<HTMLElement>(null), lost = useRef(0);
  useEffect(() => {
    if (!machine || !isShown) return;
    const { trace } = machine.hv;
    let bits: number = TRACE_CLASS.hypercall;
    for (const c of classes) bits |= TRACE_CLASS[c as TraceClass] ?? 0;
    trace.on = bits;
    return () => { trace.on = TRACE_CLASS.hypercall; };
  }, [machine, classes, isShown]);
  useEffect(() => {
    if (!machine || !isShown || isHeld) return;
    const { hv, store } = machine, calls = new Map<string, Row>(), asked: Row[] = [];
    let from = hv.trace.nrWritten, nrAsked = 0;
    store.onRequest = (who, request, reply) => {
      if (asked.length < MOST_AT_ONCE) asked.push({ key: `s${performance.now()}.${nrAsked++}`, timeNs: hv.clock.now(), pcpu: -1, who: `d${who}`, domid: who, cls: "xenstore", text: requestText(request, reply) });
    };
    const look = (): void => {
      const next = hv.trace.nrWritten, entries = hv.trace.read(from, MOST_AT_ONCE), rows = rowsOf(entries.filter((e) => e.nr >= from), calls);
      lost.current += Math.max(0, next - from - MOST_AT_ONCE);
      from = next;
      if (rows.length + asked.length === 0) return;
      kept.current = [...kept.current, ...[...rows, ...asked.splice(0)].sort((a, b) => a.timeNs - b.timeNs)].slice(-MOST_KEPT);
      redraw((n) => n + 1);
    };
    const timer = setInterval(look, LOOK_MS);
    return () => { clearInterval(timer); store.onRequest = null; };
  }, [machine, isShown, isHeld]);
  const wanted = text.toLowerCase(), shown = kept.current.filter((r) => classes.has(r.cls) && (domid === "" || r.domid === Number(domid)) && (wanted === "" || r.text.toLowerCase().includes(wanted))).slice(-MOST_SHOWN);
  useEffect(() => { if (!isHeld && pinned === null && box.current) box.current.scrollTop = box.current.scrollHeight; });
  const toggle = (c: string): void => { const next = new Set(classes); if (!next.delete(c)) next.add(c); setClasses(next); };
  return (
    <div class="trace">
      <div class="tools">
        <button type="button" class="primary" data-first aria-pressed={isHeld} onClick={() => setHeld(!isHeld)}>{isHeld ? "Go on" : "Hold"}</button>
        <label>Only <input type="search" placeholder="sched_op, port 5, device/vbd" spellcheck={false} value={text} onInput={(e) => setText(e.currentTarget.value)} /></label>
        <label>of <select value={domid} onChange={(e) => setDomid(e.currentTarget.value)}><option value="">all domains</option><option value="0">dom0</option>{machine?.domains.map((d) => <option key={d.domid} value={d.domid}>{d.name} (d{d.domid})</option>)}</select></label>
        <button type="button" onClick={() => { kept.current = []; lost.current = 0; redraw((n) => n + 1); }}>Clear</button>
        <span class="gap" /><span class="dim num">{shown.length} of {kept.current.length}{lost.current > 0 ? `, ${lost.current} passed too fast` : ""}</span>
      </div>
      <fieldset class="chips"><legend class="hidden">What is shown</legend>{CLASSES.map((c) => <label key={c} title={SAYS[c]} class={`chip ${c}`}><input type="checkbox" checked={classes.has(c)} onChange={() => toggle(c)} />{c}</label>)}</fieldset>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: a box that scrolls must be reached by the keyboard */}
      <section class="rows" ref={box} tabIndex={0} aria-label="Trace">
        <table>
          <thead><tr><th scope="col" class="n">ms</th><th scope="col">pCPU</th><th scope="col">vCPU</th><th scope="col">Class</th><th scope="col">What</th></tr></thead>
          <tbody>{shown.map((r) => <tr key={r.key} class={`${r.cls}${pinned === r.key ? " pinned" : ""}`} onClick={() => setPinned(pinned === r.key ? null : r.key)}><td class="n">{(r.timeNs / 1e6).toFixed(3)}</td><td>{r.pcpu < 0 ? "–" : r.pcpu}</td><td>{r.who}</td><td class="cls">{r.cls}</td><td class="what">{r.text}</td></tr>)}</tbody>
        </table>
        {shown.length === 0 && <p class="dim">{isHeld ? "Held." : "Nothing yet: it comes as guests call."}</p>}
      </section>
    </div>
  );
}
