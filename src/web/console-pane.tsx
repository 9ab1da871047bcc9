/** A domain's console: its terminal, and what can be done with the domain. */
import { useEffect, useRef, useState } from "preact/hooks";
import type { Computer } from "./computer.ts";
import type { Session } from "./session.ts";
import { attempt, announced, consoleTab, draft, kept, open, terminalTheme } from "./ui.ts";

const readerMode = kept("reader", "off");
/** Leaves the terminal by the keyboard, as it leaves the command line's. */
const ESCAPE_HINT = "^] leaves the terminal";

/** Two clicks for what cannot be undone. */
function Twice({ label, sure, act }: { readonly label: string; readonly sure: string; readonly act: () => void }) {
  const [asks, setAsks] = useState(false);
  useEffect(() => {
    if (!asks) return;
    const timer = setTimeout(() => setAsks(false), 4000);
    return () => clearTimeout(timer);
  }, [asks]);
  return <button type="button" class={asks ? "danger sure" : "danger"} onClick={() => { if (asks) act(); setAsks(!asks); }}>{asks ? sure : label}</button>;
}

/** Clipboard and sizes, by button and by key alike. */
const copy = (session: Session): void => {
  const text = session.terminal.getSelection();
  if (text !== "") void navigator.clipboard.writeText(text).then(() => { announced.value = "Copied"; }, () => { announced.value = "The browser does not let the page write to the clipboard"; });
};
const paste = (session: Session): void => {
  void navigator.clipboard.readText().then((text) => { session.terminal.paste(text); session.terminal.focus(); }, () => { announced.value = "The browser does not let the page read the clipboard; press Ctrl+Shift+V or use its menu"; });
};

/** The panel of a domain's tab. */
export function ConsolePane({ session, computer, isShown }: { readonly session: Session; readonly computer: Computer; readonly isShown: boolean }) {
  const box = useRef<HTMLDivElement>(null), [finds, setFinds] = useState(false), [measure, setMeasure] = useState(""), [saving, setSaving] = useState(""), [isReader, setReader] = useState(readerMode.get() === "on"), state = session.state.value, { terminal } = session;
  useEffect(() => {
    const node = box.current!;
    terminal.open(node);
    terminal.textarea?.setAttribute("data-first", "");
    terminal.textarea?.setAttribute("aria-label", `Console of ${session.name}. ${ESCAPE_HINT}`);
    terminal.attachCustomKeyEventHandler((e) => {
      const key = e.key.toLowerCase(), both = e.ctrlKey && e.shiftKey && !e.altKey;
      if (e.ctrlKey && !e.altKey && (key === "]" || e.code === "BracketRight")) {
        if (e.type === "keydown") document.getElementById(`tab-${consoleTab(session)}`)?.focus();
      } else if (both && key === "c") { if (e.type === "keydown") copy(session); }
      else if (both && key === "v") { if (e.type === "keydown") paste(session); }
      else if (both && key === "f") { if (e.type === "keydown") setFinds(true); }
      else return true;
      e.preventDefault();
      return false;
    });
    const sized = terminal.onResize(({ cols, rows }) => setMeasure(`${cols}×${rows}`)), watch = new ResizeObserver(() => { if (node.clientWidth > 0) session.fit.fit(); });
    watch.observe(node);
    return () => { watch.disconnect(); sized.dispose(); };
  }, []);
  useEffect(() => { terminal.options.theme = terminalTheme.value; }, [terminalTheme.value]);
  useEffect(() => { terminal.options.screenReaderMode = isReader; readerMode.set(isReader ? "on" : "off"); }, [isReader]);
  useEffect(() => {
    session.isShown = isShown;
    if (!isShown) return;
    session.isUnread.value = false;
    session.fit.fit();
    return () => { session.isShown = false; };
  }, [isShown]);
  const save = async (): Promise<void> => {
    setSaving("Saving…");
    await attempt(computer, () => computer.save(session, (p) => setSaving(p.totalPages > 0 ? `Saving ${Math.floor((100 * p.donePages) / p.totalPages)} %` : "Saving…")));
    setSaving("");
  };
  return (
    <div class="console">
      <div class="tools" role="toolbar" aria-label={`Domain ${session.name}`}>
        {state === "paused" ? <button type="button" onClick={() => session.unpause()}>Unpause</button> : <button type="button" disabled={state !== "running"} onClick={() => void attempt(computer, () => session.pause())}>Pause</button>}
        <button type="button" disabled={state === "ended" || state === "building"} onClick={() => void attempt(computer, () => session.shutdown("poweroff"))}>Shut down</button>
        <button type="button" disabled={state === "ended" || state === "building"} onClick={() => void attempt(computer, () => session.shutdown("reboot"))}>Reboot</button>
        {state === "ended" ? <>
          <button type="button" onClick={() => void attempt(computer, () => computer.create(session.text).then((s) => open(consoleTab(s))))}>Start again</button>
          <button type="button" onClick={() => { draft.value = session.text; open("new"); }}>Edit</button>
          <button type="button" onClick={() => { computer.forget(session); open("new"); }}>Close</button>
        </> : <Twice label="Destroy" sure="Destroy it: sure?" act={() => void attempt(computer, () => session.destroy())} />}
        <button type="button" disabled={state !== "running" || saving !== ""} title="Keep its state in this browser; it can be resumed under Files, also after the page was closed" onClick={() => void save()}>{saving === "" ? "Save" : saving}</button>
        <span class="gap" />
        <button type="button" aria-pressed={finds} onClick={() => setFinds(!finds)}>Find</button>
        <button type="button" onClick={() => copy(session)}>Copy</button>
        <button type="button" onClick={() => paste(session)}>Paste</button>
        <button type="button" title="Tell the guest how large this terminal is: types an stty command" disabled={state !== "running"} onClick={() => { session.type(`stty rows ${terminal.rows} cols ${terminal.cols}\r`); terminal.focus(); }}>Tell size <span class="dim num">{measure}</span></button>
        <button type="button" aria-pressed={isReader} title="Have a screen reader read what the guest writes" onClick={() => setReader(!isReader)}>Read aloud</button>
      </div>
      {finds && <Find session={session} close={() => { setFinds(false); terminal.focus(); }} />}
      <div class="screen"><div ref={box} /></div>
    </div>
  );
}

function Find({ session, close }: { readonly session: Session; readonly close: () => void }) {
  const input = useRef<HTMLInputElement>(null), [found, setFound] = useState<boolean | null>(null);
  useEffect(() => { input.current!.focus(); return () => session.search.clearDecorations(); }, []);
  const find = (back: boolean): void => {
    const text = input.current!.value;
    setFound(text === "" ? null : back ? session.search.findPrevious(text) : session.search.findNext(text));
  };
  return (
    <search><form class="find" onSubmit={(e) => { e.preventDefault(); find(true); }} onKeyDown={(e) => { if (e.key === "Escape") close(); }}>
      <label>Find in the console <input ref={input} type="search" spellcheck={false} onInput={() => find(true)} aria-describedby={`found-${session.id}`} /></label>
      <button type="submit">Up</button>
      <button type="button" onClick={() => find(false)}>Down</button>
      <button type="button" onClick={close}>Close</button>
      <span id={`found-${session.id}`} role="status">{found === false ? "not found" : ""}</span>
    </form></search>
  );
}
