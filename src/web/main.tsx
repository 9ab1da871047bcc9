/** The page: it wires its parts together and answers the keyboard. */
import { signal } from "@preact/signals";
import { render } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { Computer, wishOf } from "./computer.ts";
import { ConsolePane } from "./console-pane.tsx";
import { Editor } from "./editor.tsx";
import { FilesPane } from "./files-pane.tsx";
import { ensureIsolation } from "./isolation.ts";
import { domusOf } from "./library.ts";
import { MachinePanel } from "./machine-panel.tsx";
import { StorePane } from "./store-pane.tsx";
import { TracePane } from "./trace-pane.tsx";
import { announced, consoleTab, FIXED_TABS, isDark, open, tab, type Tab, theme, THEMES } from "./ui.ts";

const TITLES: Readonly<Record<(typeof FIXED_TABS)[number], string>> = { new: "New domain", files: "Files", trace: "Trace", store: "Store" };
const KEYS: readonly (readonly [string, string])[] = [
  ["n", "new domain"], ["f", "files"], ["t", "trace"], ["s", "store"], ["1 … 9", "console of the first, second … domain"], ["← →", "from tab to tab"], ["?", "this list"],
  ["Ctrl ]", "leave a terminal"], ["Ctrl Shift C, V", "copy and paste in a terminal"], ["Ctrl Shift F", "find in a terminal"], ["Ctrl Enter", "create the domain of the editor"],
];
const computer = new Computer(), helps = signal(false);

function tabsNow(): readonly Tab[] { return [...computer.sessions.value.map(consoleTab), ...FIXED_TABS]; }

function Tabs() {
  const tabs = tabsNow(), current = tab.value;
  const step = (by: number): void => {
    const next = tabs[(tabs.indexOf(current) + by + tabs.length) % tabs.length]!;
    tab.value = next;
    requestAnimationFrame(() => document.getElementById(`tab-${next}`)?.focus());
  };
  return (
    <div class="tabs" role="tablist" aria-label="Views" onKeyDown={(e) => { if (e.key === "ArrowRight") step(1); else if (e.key === "ArrowLeft") step(-1); }}>
      {tabs.map((t) => {
        const session = computer.sessions.value.find((s) => consoleTab(s) === t);
        return <button type="button" key={t} id={`tab-${t}`} role="tab" aria-selected={t === current} aria-controls={`panel-${t}`} tabIndex={t === current ? 0 : -1} class={session ? "of-domain" : ""} onClick={() => open(t)}>
          {session ? <>{session.name}{session.isUnread.value && t !== current && <span class="unread" title="new output"> •</span>}</> : TITLES[t as (typeof FIXED_TABS)[number]]}
        </button>;
      })}
    </div>
  );
}

function Panel({ of, children }: { readonly of: Tab; readonly children: preact.ComponentChildren }) {
  return <div id={`panel-${of}`} class="panel" role="tabpanel" aria-labelledby={`tab-${of}`} hidden={tab.value !== of}>{children}</div>;
}

function Help() {
  const box = useRef<HTMLDialogElement>(null);
  useEffect(() => { if (helps.value) box.current?.showModal(); else box.current?.close(); }, [helps.value]);
  return (
    <dialog ref={box} aria-labelledby="help-title" onClose={() => { helps.value = false; }}>
      <h2 id="help-title">Keys</h2>
      <dl>{KEYS.map(([key, what]) => <div key={key}><dt><kbd>{key}</kbd></dt><dd>{what}</dd></div>)}</dl>
      <p class="dim">In the browser's console, <code>domus</code> is the library: <code>await domus.create(text)</code>, <code>domus.domains</code>, <code>domus.machine</code>.</p>
      <form method="dialog"><button type="submit" class="primary">Close</button></form>
    </dialog>
  );
}

function Page() {
  const machine = computer.machine.value, failure = computer.failure.value;
  return (
    <>
      <a class="skip" href="#main">To the main part</a>
      <header>
        <h1><svg viewBox="0 0 24 24" aria-hidden="true"><path d="M3 11 12 4l9 7M6 9.5V20h12V9.5M10 20v-6h4v6" /></svg>Domus</h1>
        <p class="facts num">{machine ? `${machine.hv.mm.nrPcpus} pCPUs · ${Math.round(computer.samples.value.at(-1)?.totalMiB ?? 0)} MiB · engine ${machine.report().engine}` : failure ? "no machine" : "making the machine…"}</p>
        <span class="gap" />
        <button type="button" onClick={() => { theme.value = THEMES[(THEMES.indexOf(theme.value) + 1) % THEMES.length]!; }} title="Light, dark, or as the system has it">Colours: {theme.value === "auto" ? <>{isDark.value ? "dark" : "light"}<span class="wide">, as the system</span></> : theme.value}</button>
        <button type="button" onClick={() => { helps.value = true; }}>Keys <kbd>?</kbd></button>
      </header>
      {failure !== null && <p class="failure" role="alert">{failure}</p>}
      <div class="shell">
        <MachinePanel computer={computer} />
        <main id="main">
          <Tabs />
          {computer.sessions.value.map((s) => <Panel key={s.id} of={consoleTab(s)}><ConsolePane session={s} computer={computer} isShown={tab.value === consoleTab(s)} /></Panel>)}
          <Panel of="new"><Editor computer={computer} isShown={tab.value === "new"} /></Panel>
          <Panel of="files"><FilesPane computer={computer} isShown={tab.value === "files"} /></Panel>
          <Panel of="trace"><TracePane computer={computer} isShown={tab.value === "trace"} /></Panel>
          <Panel of="store"><StorePane computer={computer} isShown={tab.value === "store"} /></Panel>
        </main>
      </div>
      <p class={announced.value === "" ? "hidden" : "toast"} role="status" aria-live="polite">{announced.value}</p>
      <Help />
    </>
  );
}

/** Single keys act where nothing is typed into. */
document.addEventListener("keydown", (e) => {
  const target = e.target as HTMLElement | null;
  if (e.ctrlKey || e.metaKey || e.altKey || helps.value || target?.closest("input, textarea, select, [contenteditable]")) return;
  const session = /^[1-9]$/.test(e.key) ? computer.sessions.value[Number(e.key) - 1] : undefined;
  const to: Tab | undefined = session ? consoleTab(session) : ({ n: "new", f: "files", t: "trace", s: "store" } as const)[e.key];
  if (e.key === "?") helps.value = true;
  else if (to) open(to);
  else return;
  e.preventDefault();
});
addEventListener("beforeunload", (e) => { if (computer.sessions.value.some((s) => s.state.value !== "ended")) e.preventDefault(); });

const cannot = await ensureIsolation();
if (cannot !== null) computer.failure.value = cannot;
render(<Page />, document.getElementById("page")!);
if (cannot === null) {
  await computer.start(wishOf(new URLSearchParams(location.search), navigator.hardwareConcurrency, computer.say));
  Object.assign(globalThis, { domus: domusOf(computer) });
}
