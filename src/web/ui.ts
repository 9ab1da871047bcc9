/** What components share: what is shown, the theme, numbers as people read them. */
import { computed, effect, signal } from "@preact/signals";
import type { ITheme } from "@xterm/xterm";
import type { Computer } from "./computer.ts";
import type { Session } from "./session.ts";

const SAID_MS = 8000;
/** Tabs that are always there. */
export const FIXED_TABS = ["new", "files", "trace", "store"] as const;
/** Which view it is; a console's has its domain's name, made fit for an address. */
export type Tab = (typeof FIXED_TABS)[number] | `console:${string}`;
/** The view that is open. */
export const tab = signal<Tab>("new");
/** The tab of a session. */
export const consoleTab = (session: Session): Tab => `console:${encodeURIComponent(session.name)}`;
/** Said to the user for a moment, and to screen readers politely. */
export const announced = signal("");
effect(() => {
  if (announced.value === "") return;
  const timer = setTimeout(() => { announced.value = ""; }, SAID_MS);
  return () => clearTimeout(timer);
});
/** Text that the editor is to begin with. */
export const draft = signal<string | null>(null);

/** Where the user's choices are kept; a browser may refuse. */
export function kept(key: string, otherwise: string): { get(): string; set(value: string): void } {
  return {
    get: () => { try { return localStorage.getItem(`domus.${key}`) ?? otherwise; } catch { return otherwise; } },
    set: (value) => { try { localStorage.setItem(`domus.${key}`, value); } catch { /* it lasts as long as the page then */ } },
  };
}
const keptTheme = kept("theme", "auto"), system = matchMedia("(prefers-color-scheme: dark)"), systemIsDark = signal(system.matches);
system.addEventListener("change", () => { systemIsDark.value = system.matches; });
/** The user's word: as the system has it, or one of the two. */
export const THEMES = ["auto", "light", "dark"] as const;
/** What the user has chosen. */
export const theme = signal<(typeof THEMES)[number]>(THEMES.find((t) => t === keptTheme.get()) ?? "auto");
/** Whether the page is dark now. */
export const isDark = computed(() => (theme.value === "auto" ? systemIsDark.value : theme.value === "dark"));
effect(() => {
  keptTheme.set(theme.value);
  document.documentElement.dataset["theme"] = isDark.value ? "dark" : "light";
});

/** The sheet's colour of that name, as it is now. */
export const colour = (name: string): string => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
/** Colours of curves, in the order of their use. */
export const CURVES = ["curve1", "curve2", "curve3", "curve4", "curve5", "curve6", "curve7", "curve8"] as const;

const DARK: ITheme = {
  background: "#0e1113", foreground: "#d3dade", cursor: "#7fd1c2", cursorAccent: "#0e1113", selectionBackground: "#2f4a55",
  black: "#1c2227", red: "#ef8078", green: "#8fcf8a", yellow: "#dcbf70", blue: "#7eb2ea", magenta: "#cf9be0", cyan: "#72cfc4", white: "#d3dade",
  brightBlack: "#7b8790", brightRed: "#ff9a92", brightGreen: "#abe6a6", brightYellow: "#f2d88d", brightBlue: "#9cc9fa", brightMagenta: "#e3b6f2", brightCyan: "#93e8de", brightWhite: "#f4f7f8",
};
const LIGHT: ITheme = {
  background: "#fcfcfa", foreground: "#20272b", cursor: "#0b6b60", cursorAccent: "#fcfcfa", selectionBackground: "#c5dedb",
  black: "#20272b", red: "#a8261d", green: "#2c6b27", yellow: "#7a5800", blue: "#1c5a9e", magenta: "#7d3594", cyan: "#0b6b60", white: "#5b666c",
  brightBlack: "#626d73", brightRed: "#b8352b", brightGreen: "#32752d", brightYellow: "#866200", brightBlue: "#2467b0", brightMagenta: "#8a41a2", brightCyan: "#0d766a", brightWhite: "#394247",
};
/** The sheet's colours for terminals. */
export const terminalTheme = computed(() => (isDark.value ? DARK : LIGHT));

/** A share of 1 as whole percents. */
export const percent = (share: number): string => `${Math.round(share * 100)} %`;
/** "0.4 s", "3:07", "2:14:09" */
export function span(ms: number): string {
  const s = Math.floor(ms / 1000), two = (n: number): string => String(n).padStart(2, "0");
  return s < 60 ? `${(ms / 1000).toFixed(1)} s` : s < 3600 ? `${Math.floor(s / 60)}:${two(s % 60)}` : `${Math.floor(s / 3600)}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}`;
}
/** Bytes in the unit that suits them. */
export const size = (bytes: number): string => (bytes < 1 << 20 ? `${(bytes / 1024).toFixed(0)} KiB` : bytes < 2 ** 30 ? `${(bytes / 2 ** 20).toFixed(1)} MiB` : `${(bytes / 2 ** 30).toFixed(2)} GiB`);
/** How far a file has come. */
export const share = (file: File, doneBytes: number): string => `${file.name}: ${Math.floor((100 * doneBytes) / Math.max(1, file.size))} %`;

/** Open a tab; a console that is opened has the keyboard. */
export function open(to: Tab): void {
  tab.value = to;
  queueMicrotask(() => requestAnimationFrame(() => { if (tab.value === to) document.querySelector<HTMLElement>(`#panel-${CSS.escape(to)} [data-first]`)?.focus(); }));
}
/** Do it, and tell what the input's fault was. */
export async function attempt(computer: Computer, act: () => unknown): Promise<void> {
  try { await act(); } catch (e) {
    computer.say(e instanceof Error ? e.message : String(e));
    announced.value = e instanceof Error ? e.message : String(e);
  }
}
