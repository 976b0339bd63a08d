// @ts-check
/** A chart of lines over steps or hours, drawn by uPlot; all charts share the cursor. */

import { cssColor } from "./ui.js";
import { html, useEffect, useMemo, useRef, useState } from "./vendor/preact-htm.js";

const NEAR = 7; // pixels to a mark whose text is shown
const uPlot = /** @type {any} */ (window).uPlot;

/** Format a value for a reader: 1,234 or 0.000302. @param {number | null | undefined} value */
export function formatValue(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size >= 1_000) return Math.round(value).toLocaleString("en-US");
  if (size > 0 && size < 0.001) return value.toExponential(1);
  return String(Number(value.toPrecision(4)));
}

/** Return the value at an index, or the one before it. @param {(number | null)[]} values @param {number} index */
function valueAt(values, index) {
  for (let i = index; i >= 0; i--) if (values[i] !== null && values[i] !== undefined) return values[i];
  return null;
}

/** Draw what uPlot has no series for: lines at events, dots at checkpoints.
 * @param {any} u @param {import("./curves.js").ChartData} chart @param {(name: string) => string} color */
function drawMarks(u, chart, color) {
  const { ctx, bbox } = u;
  const scale = devicePixelRatio;
  ctx.save();
  for (const { x, color: name } of chart.marks) {
    const at = u.valToPos(x, "x", true);
    if (!(at >= bbox.left && at <= bbox.left + bbox.width)) continue;
    ctx.strokeStyle = ctx.fillStyle = color(name);
    ctx.lineWidth = scale;
    ctx.globalAlpha = 0.5;
    ctx.beginPath();
    ctx.moveTo(at, bbox.top);
    ctx.lineTo(at, bbox.top + bbox.height);
    ctx.stroke();
    ctx.globalAlpha = 1;
    ctx.beginPath();
    ctx.moveTo(at - 4 * scale, bbox.top);
    ctx.lineTo(at + 4 * scale, bbox.top);
    ctx.lineTo(at, bbox.top + 6 * scale);
    ctx.fill();
  }
  for (const { x, color: name } of chart.dots) {
    const at = u.valToPos(x, "x", true);
    if (!(at >= bbox.left && at <= bbox.left + bbox.width)) continue;
    ctx.fillStyle = color(name);
    ctx.beginPath();
    ctx.arc(at, bbox.top + bbox.height, 3.5 * scale, 0, 2 * Math.PI);
    ctx.fill();
  }
  ctx.restore();
}

/** @param {any[]} lines @param {boolean} isLog @param {(name: string) => string} color @param {number} height */
function options(lines, isLog, color, height) {
  const axis = {
    stroke: color("--faint"), font: "12px system-ui, sans-serif", grid: { stroke: color("--line"), width: 1 }, ticks: { show: false },
    values: (/** @type {any} */ _, /** @type {any[]} */ splits) => splits.map((value) => (value === null ? "" : formatValue(value))),
  };
  return {
    width: 300, height, legend: { show: false }, padding: [10, 24, 0, 0],
    cursor: { y: false, drag: { x: true, y: false }, sync: { key: "training" }, points: { size: 7 } },
    scales: { x: { time: false, distr: isLog ? 3 : 1 } },
    axes: [{ ...axis, grid: { show: false }, space: 64, size: 30 }, { ...axis, size: 58, space: 36 }],
    series: [{}, ...lines.map((line) => ({
      stroke: color(line.color), width: line.isFaint ? 1 : (line.width ?? 1.6), alpha: line.isFaint ? 0.28 : 1, dash: line.isDashed ? [6, 4] : [], spanGaps: true,
      points: { show: line.x.length <= 40 && !line.isFaint, size: 5, fill: color(line.color) },
    }))],
  };
}

/**
 * A click tells where it was on the x axis.
 * @param {{chart: import("./curves.js").ChartData, isLog: boolean, theme: string, height: number, unitOfX: string,
 *   onPick: (x: number) => void}} props
 */
export function Chart({ chart, isLog, theme, height, unitOfX, onPick }) {
  const place = useRef(/** @type {any} */ (null));
  const plot = useRef(/** @type {any} */ (null));
  const latest = useRef(/** @type {any} */ (null));
  latest.current = { chart, onPick };
  const [hover, setHover] = useState(/** @type {any} */ (null));
  const data = useMemo(() => uPlot.join(chart.lines.map(({ x, y }) => [x, y])), [chart]);
  // what a plot cannot change later
  const key = JSON.stringify([chart.lines.map(({ name, color, isFaint, isDashed, x }) => [name, color, isFaint, isDashed, x.length <= 40]), isLog, theme, height]);

  useEffect(() => {
    const colors = new Map();
    const color = (/** @type {string} */ name) => colors.get(name) ?? colors.set(name, cssColor(name)).get(name);
    const u = new uPlot({
      ...options(chart.lines, isLog, color, height),
      hooks: {
        draw: [() => drawMarks(u, latest.current.chart, color)],
        setCursor: [() => {
          const { idx, left } = u.cursor;
          const near = (/** @type {any} */ mark) => Math.abs(u.valToPos(mark.x, "x") - left) < NEAR;
          const { marks, dots } = latest.current.chart;
          setHover(idx === null || idx === undefined || left < 0 ? null : { idx, text: (marks.find(near) ?? dots.find(near))?.label });
        }],
      },
    }, data, place.current);
    let pressedAt = 0;
    u.over.addEventListener("mousedown", (/** @type {MouseEvent} */ event) => (pressedAt = event.clientX));
    u.over.addEventListener("click", (/** @type {MouseEvent} */ event) => {
      // a drag zooms
      if (Math.abs(event.clientX - pressedAt) < 4) latest.current.onPick(u.posToVal(u.cursor.left, "x"));
    });
    const observer = new ResizeObserver(() => {
      const width = place.current?.clientWidth;
      if (width && width !== u.width) u.setSize({ width, height });
    });
    observer.observe(place.current);
    plot.current = u;
    return () => (observer.disconnect(), u.destroy());
  }, [key]);
  useEffect(() => {
    if (plot.current && plot.current.data !== data) plot.current.setData(data);
  }, [data]);

  const shown = chart.lines.map((line, i) => ({ ...line, values: data[i + 1] })).filter((line) => !line.isFaint);
  const index = Math.min(hover?.idx ?? Infinity, data[0].length - 1);
  const isOne = shown.length === 1;
  const said = shown.map((line) => `${line.name} ${formatValue(line.y.at(-1))}`).join(", ");
  return html`<figure class="chart" data-chart=${chart.id}>
    <figcaption><h2>${chart.title}</h2><small>${chart.unit}</small>
      <span class="at">${hover ? (hover.text ?? `${unitOfX} ${formatValue(data[0][index])}`) : ""}</span>
      <ul class="legend">${shown.map((line) => html`<li key=${line.name}><i class=${line.isDashed ? "dashed" : ""} style=${{ color: `var(${line.color})` }}></i>${isOne ? "" : line.name} <b>${formatValue(valueAt(line.values, index))}</b></li>`)}</ul>
    </figcaption>
    <div ref=${place} role="img" aria-label="${chart.title}, ${unitOfX} ${formatValue(data[0].at(-1))}: ${said}" style=${{ minHeight: `${height}px` }}></div></figure>`;
}
