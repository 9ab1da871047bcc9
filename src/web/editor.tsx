/** A new domain: an xl.cfg with its errors in place. */
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { ConfigError, type Place } from "../toolstack/xlcfg.ts";
import { CONFIG_NAME, type Computer, isInputFault, wordsOf } from "./computer.ts";
import { BLANK, configOf, withKey } from "./config-text.ts";
import type { ImageEntry } from "./images.ts";
import { announced, consoleTab, draft, open, share } from "./ui.ts";

type Fault = { readonly text: string; readonly place: Place | null };

const faultOf = (e: unknown): Fault => (e instanceof ConfigError ? { text: e.what, place: e.place } : { text: wordsOf(e).replace(new RegExp(`^${CONFIG_NAME}: `), ""), place: null });

/** The text again, coloured; lies behind the text area and has the same measures. */
function Coloured({ text, fault }: { readonly text: string; readonly fault: Fault | null }) {
  const line = fault?.place?.line ?? 0, column = fault?.place?.column ?? 0;
  return <>{text.split("\n").map((row, i) => <div key={i} class={i + 1 === line ? "fault" : ""}>{i + 1 === line ? <>{row.slice(0, column - 1)}<mark>{/^(?:"[^"]*"?|'[^']*'?|[\w.-]+|.)/u.exec(row.slice(column - 1))?.[0] ?? " "}</mark>{row.slice(column - 1 + (/^(?:"[^"]*"?|'[^']*'?|[\w.-]+|.)/u.exec(row.slice(column - 1))?.[0].length ?? 0))}</> : <Words row={row} />}{"\n"}</div>)}</>;
}
const WORD = /("(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?)|(#.*$)|(\b\d[\w.]*)|(^\s*[A-Za-z_]\w*(?=\s*\+?=))|([^"'#\dA-Za-z_]+|\w+)/g;
const KINDS = ["", "str", "com", "num", "key", ""];
function Words({ row }: { readonly row: string }) {
  return <>{[...row.matchAll(WORD)].map((m, i) => { const kind = KINDS[m.findIndex((part, k) => k > 0 && part !== undefined)]; return kind ? <span key={i} class={kind}>{m[0]}</span> : m[0]; })}</>;
}

/** The panel `New domain`. */
export function Editor({ computer, isShown }: { readonly computer: Computer; readonly isShown: boolean }) {
  const area = useRef<HTMLTextAreaElement>(null), back = useRef<HTMLPreElement>(null);
  const picker = useRef<HTMLInputElement>(null), picks = useRef<"kernel" | "ramdisk">("kernel");
  const [images, setImages] = useState<readonly ImageEntry[]>([]), [adding, setAdding] = useState(""), [text, setText] = useState(""), [refused, setRefused] = useState<{ readonly of: string; readonly fault: Fault } | null>(null), [busy, setBusy] = useState(false);
  const touched = useRef(false);
  useEffect(() => {
    if (!isShown) return;
    void computer.shelf.images().then((list) => {
      setImages(list);
      if (!touched.current) setText(list[0] ? configOf(computer.freeName("debian"), list[0]) : BLANK);      // under a name that is free by now
    });
  }, [isShown]);
  useEffect(() => {
    if (draft.value === null) return;
    touched.current = true;
    setText(draft.value);
    draft.value = null;
  }, [draft.value]);
  const checked = useMemo((): { fault: Fault | null; warnings: readonly string[] } => {
    try { return { fault: null, warnings: text.trim() === "" ? [] : computer.read(text).warnings }; } catch (e) { return { fault: faultOf(e), warnings: [] }; }
  }, [text]);
  const fault = checked.fault ?? (refused?.of === text ? refused.fault : null), { warnings } = checked;
  const lines = useMemo(() => text.split("\n").length, [text]);

  const goTo = (place: Place): void => {
    const node = area.current!, at = text.split("\n").slice(0, place.line - 1).reduce((n, row) => n + row.length + 1, 0) + place.column - 1;
    node.focus();
    node.setSelectionRange(at, at);
  };
  const make = async (): Promise<void> => {
    setBusy(true);
    try {
      const session = await computer.create(text);
      announced.value = `Domain ${session.name} runs`;
      touched.current = false;
      open(consoleTab(session));
    } catch (e) {
      if (!isInputFault(e)) console.error(e);
      const found = faultOf(e);
      setRefused({ of: text, fault: found });
      announced.value = found.text;
      if (found.place) goTo(found.place);
    } finally { setBusy(false); }
  };
  /** A file of the user's computer becomes one of this browser's, and the configuration names it. */
  const take = async (file: File): Promise<void> => {
    const key = picks.current;
    try {
      await computer.shelf.add(file.name, file, (done) => setAdding(share(file, done)));
      touched.current = true;
      setText((now) => withKey(now, key, file.name));
      announced.value = `${file.name} is the ${key}`;
    } catch (e) { announced.value = wordsOf(e); } finally { setAdding(""); }
  };
  const pick = (key: "kernel" | "ramdisk"): void => { picks.current = key; picker.current!.click(); };
  return (
    <div class="editor">
      <div class="tools">
        <label>Begin with <select value={images.find((i) => text.includes(`"${i.kernel}"`))?.name ?? ""} onChange={(e) => { const i = images.find((x) => x.name === e.currentTarget.value); touched.current = true; setText(i ? configOf(computer.freeName(i.name === "cloud" ? "debian" : i.name), i) : BLANK); }}>
          {images.map((i) => <option key={i.name} value={i.name}>{i.title}</option>)}
          <option value="">files of your own</option>
        </select></label>
        <button type="button" onClick={() => pick("kernel")}>Kernel…</button>
        <button type="button" onClick={() => pick("ramdisk")}>Ramdisk…</button>
        <input ref={picker} type="file" hidden aria-label="A file for the new domain" onChange={(e) => { const file = e.currentTarget.files?.[0]; if (file) void take(file); e.currentTarget.value = ""; }} />
        <span class="gap" />
        <span role="status" class="num">{adding}</span>
        <button type="button" class="primary" disabled={busy || checked.fault !== null || computer.machine.value === null} onClick={() => void make()}>{busy ? "Making it…" : "Create domain"} <kbd>Ctrl ⏎</kbd></button>
      </div>
      <div class="code">
        <pre class="lines" aria-hidden="true">{Array.from({ length: lines }, (_, i) => <div key={i} class={i + 1 === fault?.place?.line ? "fault" : ""}>{i + 1}</div>)}</pre>
        <div class="text">
          <pre ref={back} aria-hidden="true"><Coloured text={text} fault={fault} /></pre>
          <textarea ref={area} data-first aria-label="Configuration of the new domain, as xl.cfg" aria-invalid={fault !== null} aria-describedby="config-fault" spellcheck={false} autocapitalize="off" autocomplete="off" wrap="off" rows={Math.max(14, lines + 1)} value={text}
            onInput={(e) => { touched.current = true; setText(e.currentTarget.value); }}
            onScroll={(e) => { back.current!.scrollLeft = e.currentTarget.scrollLeft; }}
            onKeyDown={(e) => { if (e.key === "Enter" && (e.ctrlKey || e.metaKey)) { e.preventDefault(); if (!busy && checked.fault === null) void make(); } }} />
        </div>
      </div>
      <div id="config-fault" class="verdict" role="status">
        {fault ? <p class="fault">{fault.place ? <button type="button" class="link" onClick={() => goTo(fault.place!)}>line {fault.place.line}, column {fault.place.column}</button> : "The file"}: {fault.text}</p> : <p class="dim">The configuration can be read.</p>}
        {warnings.map((w) => <p key={w} class="warning">{w.replace(new RegExp(`^${CONFIG_NAME}:`), "line ")}</p>)}
      </div>
    </div>
  );
}
