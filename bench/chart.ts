/** A bar chart as SVG: groups of horizontal bars on a logarithmic scale, which start at 1. Readable on light and dark pages; needs nothing but a browser. */

export type Chart = {
  readonly title: string;
  readonly subtitle: string;
  /** one a bar of a group; at most as many as there are colours */
  readonly series: readonly string[];
  readonly groups: readonly { readonly name: string; /** one a series; NaN for none */ readonly values: readonly number[] }[];
};

const WIDTH = 840, LEFT = 130, RIGHT = 60, TOP = 92, BAR = 10, GAP = 10, FOOT = 34;
/** Told apart by the colour-blind too (Okabe and Ito), on light and on dark. */
const COLOURS = [["#0072b2", "#56b4e9"], ["#e69f00", "#e69f00"], ["#009e73", "#2fc79a"]] as const;
const STYLE = `text{font:12px system-ui,sans-serif;fill:#1f2328}.title{font-size:16px;font-weight:600}.faint{fill:#59636e}.value{font-size:9px;fill:#59636e}
.grid{stroke:#d1d9e0}.one{stroke:#59636e}${COLOURS.map(([light], i) => `.s${i}{fill:${light}}`).join("")}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.faint,.value{fill:#9198a1}.grid{stroke:#3d444d}.one{stroke:#9198a1}${COLOURS.map(([, dark], i) => `.s${i}{fill:${dark}}`).join("")}}`;

const escaped = (text: string): string => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
/** The steps 1, 2 and 5 of every power of ten from the one not above `least` to the one not below `most`. */
export function logTicks(least: number, most: number): number[] {
  const powers = Array.from({ length: 13 }, (_, i) => i - 6), all = powers.flatMap((p) => [1, 2, 5].map((step) => Number(`${step}e${p}`)));
  const from = Math.max(0, all.findLastIndex((t) => t <= least)), to = all.findIndex((t) => t >= most);
  return all.slice(from, (to < 0 ? all.length - 1 : to) + 1);
}
const short = (value: number): string => (value >= 10 ? value.toFixed(0) : value.toFixed(1));

/** Draw it. The same chart gives the same text. */
export function chart({ title, subtitle, series, groups }: Chart): string {
  const values = groups.flatMap((g) => g.values).filter((v) => v > 0 && Number.isFinite(v)), ticks = logTicks(Math.min(1, ...values), Math.max(2, ...values));
  const [first, last] = [ticks[0]!, ticks.at(-1)!], step = series.length * BAR + GAP, bottom = TOP + groups.length * step, height = bottom + FOOT;
  const x = (value: number) => Number((LEFT + ((WIDTH - LEFT - RIGHT) * Math.log(value / first)) / Math.log(last / first)).toFixed(1));
  const text = (at: number, y: number, words: string, rest = "") => `<text x="${at}" y="${y}"${rest}>${escaped(words)}</text>`;
  const grid = ticks.map((t) => `<line class="${t === 1 ? "one" : "grid"}" x1="${x(t)}" x2="${x(t)}" y1="${TOP - 6}" y2="${bottom}"/>${text(x(t), bottom + 16, `${t}`, ' class="faint" text-anchor="middle"')}`);
  const legend = series.map((name, i) => `<rect class="s${i}" x="${LEFT + i * 180}" y="58" width="12" height="12" rx="2"/>${text(LEFT + i * 180 + 18, 68, name)}`);
  const bars = groups.flatMap((group, g) => [
    text(LEFT - 10, TOP + g * step + (series.length * BAR) / 2 + 4, group.name, ' text-anchor="end"'),
    ...group.values.flatMap((value, i) => {
      if (!(value > 0 && Number.isFinite(value))) return [];
      const y = TOP + g * step + i * BAR, [from, to] = [Math.min(x(1), x(value)), Math.max(x(1), x(value))];
      return [`<rect class="s${i}" x="${from}" y="${y}" width="${Math.max(1, Number((to - from).toFixed(1)))}" height="${BAR - 1}"/>`, text(to + 4, y + BAR - 1, short(value), ' class="value"')];
    }),
  ]);
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-label="${escaped(title)}">
<style>${STYLE}</style>
${[text(LEFT, 24, title, ' class="title"'), text(LEFT, 44, subtitle, ' class="faint"'), ...legend, ...grid, ...bars].join("\n")}
</svg>
`;
}
