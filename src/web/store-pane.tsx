/** The store's tree, alive. */
import { useEffect, useRef, useState } from "preact/hooks";
import type { Machine } from "../toolstack/machine.ts";
import type { Computer } from "./computer.ts";

/** How long a change is marked, and how often the tree is drawn anew at most. */
const MARK_MS = 1500, DRAW_MS = 150;
/** Children of a node that are drawn; a guest may make many. */
const MOST_CHILDREN = 400;

type Look = { readonly machine: Machine; readonly filter: string; readonly changed: ReadonlyMap<string, number>; readonly open: ReadonlySet<string>; toggle(path: string, isOpen: boolean): void };
const printable = (value: string): string => value.replace(/[^\x20-\x7e]/g, "·");

/** The panel `Store`. Watches only while it is shown. */
export function StorePane({ computer, isShown }: { readonly computer: Computer; readonly isShown: boolean }) {
  const machine = computer.machine.value, [filter, setFilter] = useState(""), [, redraw] = useState(0), changed = useRef(new Map<string, number>()), [open, setOpen] = useState<ReadonlySet<string>>(new Set(["/", "/local", "/local/domain"]));
  useEffect(() => {
    if (!machine || !isShown) return;
    let timer = 0;
    const draw = (): void => { timer ||= window.setTimeout(() => { timer = 0; redraw((n) => n + 1); }, DRAW_MS); };
    const watch = machine.xs.watch("/", (path) => {
      if (path === "/") return;      // a watch is told once of its own path
      if (changed.current.size > 1000) changed.current.clear();
      changed.current.set(path, performance.now());
      draw();
    });
    changed.current.clear();
    const fade = window.setInterval(draw, MARK_MS);
    return () => { watch[Symbol.dispose](); clearTimeout(timer); clearInterval(fade); };
  }, [machine, isShown]);
  const toggle = (path: string, isOpen: boolean): void => {
    if (isOpen === open.has(path)) return;
    const next = new Set(open);
    if (isOpen) next.add(path); else next.delete(path);
    setOpen(next);
  };
  return (
    <div class="store">
      <div class="tools">
        <label>Only paths and values with <input data-first type="search" placeholder="vbd" spellcheck={false} value={filter} onInput={(e) => setFilter(e.currentTarget.value.toLowerCase())} /></label>
        <button type="button" onClick={() => setOpen(new Set(["/"]))}>Close all</button>
        <span class="gap" /><span class="dim">What changes is marked.</span>
      </div>
      <div class="tree">{machine && isShown && <ul><Node look={{ machine, filter, changed: changed.current, open, toggle }} path="/" name="/" /></ul>}</div>
    </div>
  );
}

const below = (path: string, name: string): string => (path === "/" ? `/${name}` : `${path}/${name}`);
function matches(look: Look, path: string, depth = 0): boolean {
  if (look.filter === "" || path.toLowerCase().includes(look.filter) || (look.machine.xs.read(path) ?? "").toLowerCase().includes(look.filter)) return true;
  return depth < 12 && (look.machine.xs.list(path) ?? []).slice(0, MOST_CHILDREN).some((name) => matches(look, below(path, name), depth + 1));
}
function Node({ look, path, name }: { readonly look: Look; readonly path: string; readonly name: string }) {
  const { xs } = look.machine, children = xs.list(path) ?? [], value = path === "/" ? "" : xs.read(path) ?? "";
  if (look.filter !== "" && !matches(look, path)) return null;
  const isNew = performance.now() - (look.changed.get(path) ?? Number.NEGATIVE_INFINITY) < MARK_MS, isOpen = look.filter !== "" || look.open.has(path);
  const label = <><span class="name">{name}</span>{value !== "" && <span class="value"> = {printable(value)}</span>}</>;
  if (children.length === 0) return <li class={isNew ? "leaf new" : "leaf"}>{label}</li>;
  return (
    <li>
      <details open={isOpen} onToggle={(e) => { if (look.filter === "") look.toggle(path, e.currentTarget.open); }}>
        <summary class={isNew ? "new" : ""}>{label}</summary>
        {isOpen && <ul>{children.slice(0, MOST_CHILDREN).map((child) => <Node key={child} look={look} path={below(path, child)} name={child} />)}{children.length > MOST_CHILDREN && <li class="dim">and {children.length - MOST_CHILDREN} more</li>}</ul>}
      </details>
    </li>
  );
}
