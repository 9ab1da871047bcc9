/** A strip chart: one curve a row of numbers, newest at the right. */
import uPlot from "uplot";
import { useEffect, useRef } from "preact/hooks";
import { colour, CURVES, isDark } from "./ui.ts";

/** Values a second apart, the newest last; null where there was nothing. */
export type Curve = { readonly label: string; readonly values: readonly (number | null)[] };

/** @param props.seconds from the left edge to the right @param props.max of the axis; without: as high as the highest value @param props.summary what a screen reader says of it */
export function Chart(props: { readonly curves: readonly Curve[]; readonly seconds: number; readonly max?: number; readonly unit: string; readonly height: number; readonly summary: string }) {
  const box = useRef<HTMLDivElement>(null), plot = useRef<uPlot | null>(null), labels = props.curves.map((c) => c.label).join("\0"), dark = isDark.value;
  const rows = (): uPlot.AlignedData => {
    const n = Math.max(2, ...props.curves.map((c) => c.values.length));
    const pad = (v: readonly (number | null)[]): (number | null)[] => [...new Array<null>(n - v.length).fill(null), ...v];
    return [Array.from({ length: n }, (_, i) => i - n + 1), ...props.curves.map((c) => pad(c.values))] as uPlot.AlignedData;
  };
  useEffect(() => {
    const node = box.current!, grid = colour("grid"), dim = colour("dim"), { max } = props;
    plot.current = new uPlot({
      width: node.clientWidth, height: props.height, padding: [6, 14, 0, 0], legend: { show: false }, cursor: { show: false }, select: { show: false, left: 0, top: 0, width: 0, height: 0 },
      scales: { x: { time: false, range: () => [-props.seconds, 0] }, y: { range: (_, __, top) => [0, max ?? Math.max(1, top ?? 1)] } },
      axes: [
        { stroke: dim, font: "10px ui-sans-serif, system-ui", size: 18, grid: { stroke: grid, width: 1 }, ticks: { show: false }, values: (_, at) => at.map((s) => (s === 0 ? "now" : `${s} s`)), splits: () => [-props.seconds, -props.seconds / 2, 0] },
        { stroke: dim, font: "10px ui-sans-serif, system-ui", size: 34, grid: { stroke: grid, width: 1 }, ticks: { show: false }, values: (_, at) => at.map((v) => `${v}${props.unit}`), ...(max === undefined ? {} : { splits: () => [0, max / 2, max] }) },
      ],
      series: [{}, ...props.curves.map((c, i) => ({ label: c.label, stroke: colour(CURVES[i % CURVES.length]!), width: 1.5, points: { show: false }, spanGaps: false }))],
    }, rows(), node);
    const watch = new ResizeObserver(() => { if (node.clientWidth > 0) plot.current?.setSize({ width: node.clientWidth, height: props.height }); });
    watch.observe(node);
    return () => { watch.disconnect(); plot.current?.destroy(); plot.current = null; };
  }, [labels, dark, props.height, props.max]);
  useEffect(() => { plot.current?.setData(rows()); }, [props.curves]);
  return <div class="chart" role="img" aria-label={props.summary} ref={box} />;
}
