// @ts-check
/** The logs of runs, and the curves of their charts. */

import { getJson } from "./api.js";

/**
 * @typedef {{name: string, kind: string, step: number | null, total_steps: number | null, state: string,
 *   is_running: boolean, loss: number | null, bits_per_byte: number | null, checkpoints: number[]}} Run
 * @typedef {{name: string, color: string, x: number[], y: number[], isFaint?: boolean, isDashed?: boolean, width?: number}} Line
 * @typedef {{x: number, label: string, color: string}} Mark
 * @typedef {{id: string, title: string, unit: string, lines: Line[], marks: Mark[], dots: Mark[]}} ChartData
 * @typedef {{isHours: boolean, isLog: boolean, smoothing: number}} Axes
 */

const MAX_POINTS = 2_000; // of a line
export const COLORS = 6;

/** @param {any} value @returns {number | null} */
const finite = (value) => (Number.isFinite(value) ? value : null);
const count = (/** @type {number} */ value) => value.toLocaleString("en-US");

/** What a run has logged so far. */
export class RunLog {
  /** @param {string} name */
  constructor(name) {
    this.name = name;
    /** @type {any[]} */
    this.rows = [];
    /** @type {{step: number, label: string}[]} */
    this.marks = []; // skipped steps, also those that a rollback has undone
    /** @type {any[]} */
    this.events = [];
    this.position = { metrics: 0, events: 0 };
  }

  /** Read what was added since the last time. */
  async read() {
    const path = `/api/runs/${this.name.split("/").map(encodeURIComponent).join("/")}`;
    for (const file of /** @type {const} */ (["metrics", "events"])) {
      for (;;) {
        const { lines, next } = await getJson(`${path}/${file}?since=${this.position[file]}`, { isLogged: false });
        for (const line of lines) file === "metrics" ? this.addRow(line) : this.events.push(line);
        if (next === this.position[file]) break;
        this.position[file] = next;
      }
    }
  }

  /** @param {any} row */
  addRow(row) {
    if (!Number.isInteger(row.step)) return;
    // a rollback has undone the later ones
    while (this.rows.length && this.rows.at(-1).step >= row.step) this.rows.pop();
    this.rows.push(row);
    if (row.skipped) this.marks.push({ step: row.step, label: row.spike ? "spike, step skipped" : "step skipped: not finite" });
  }

  get step() {
    return this.rows.at(-1)?.step ?? null;
  }

  /** Return skipped steps, rollbacks and restarts in the order of steps. */
  allMarks() {
    const told = this.events.flatMap(({ event, step, to }) => {
      if (event === "rolled back") return [{ step, label: `rolled back to ${count(to ?? 0)}` }];
      if (event === "started" && step > 0) return [{ step, label: "restarted" }];
      return event === "not saved" && step ? [{ step, label: "checkpoint not saved" }] : [];
    });
    return [...this.marks, ...told].sort((a, b) => a.step - b.step);
  }

  /** Return the training hours at a step. @param {number} step */
  hoursAt(step) {
    const row = this.rows.findLast((row) => row.step <= step && row.seconds !== undefined);
    return row ? row.seconds / 3_600 : 0;
  }

  /** Return the seconds that are left, from the pace of the last steps; null if it is unknown.
   * @param {number | null} total */
  secondsLeft(total) {
    const timed = this.rows.slice(-100).filter((row) => row.seconds !== undefined);
    const [first, last] = [timed[0], timed.at(-1)];
    if (!total || !last || last.step <= first.step || last.step >= total) return null;
    return ((last.seconds - first.seconds) / (last.step - first.step)) * (total - last.step);
  }

  /** Return the last value of a key. @param {string} key */
  last(key) {
    return this.rows.findLast((row) => finite(row[key]) !== null)?.[key] ?? null;
  }
}

/** Return the points of a value; a logarithmic axis has no zero.
 * @param {RunLog} log @param {(row: any) => any} read @param {Axes} axes */
function points(log, read, { isHours, isLog }) {
  /** @type {{x: number[], y: number[]}} */
  const line = { x: [], y: [] };
  for (const row of log.rows) {
    const y = finite(read(row));
    const x = isHours ? (row.seconds ?? 0) / 3_600 : row.step;
    if (y === null || (isLog && x <= 0) || x <= (line.x.at(-1) ?? -1)) continue;
    line.x.push(x);
    line.y.push(y);
  }
  return line;
}

/** Return the running mean over a share of the run, as the report draws it: centered, and narrower
 * over the first steps. @param {number[]} values @param {number} share */
export function smooth(values, share) {
  const n = values.length;
  const sums = [0];
  for (const value of values) sums.push(sums[sums.length - 1] + value);
  return values.map((_, i) => {
    const half = Math.min(i >> 2, Math.round((n * share) / 2));
    const [start, stop] = [i - half, Math.min(n, i + half + 1)];
    return (sums[stop] - sums[start]) / (stop - start);
  });
}

/** Keep the lowest and the highest point of each stretch of a long line.
 * @param {{x: number[], y: number[]}} line */
export function thin({ x, y }) {
  if (x.length <= MAX_POINTS) return { x, y };
  const size = (2 * x.length) / MAX_POINTS;
  const kept = new Set([0, x.length - 1]);
  for (let start = 0; start < x.length; start += size) {
    let [low, high] = [Math.floor(start), Math.floor(start)];
    for (let i = low; i < Math.min(x.length, Math.floor(start + size)); i++) {
      if (y[i] < y[low]) low = i;
      if (y[i] > y[high]) high = i;
    }
    kept.add(low).add(high);
  }
  const order = [...kept].sort((a, b) => a - b);
  return { x: order.map((i) => x[i]), y: order.map((i) => y[i]) };
}

/** Return the charts of runs that are laid over each other. @param {RunLog[]} logs @param {Axes} axes
 * @param {Record<string, number[]>} checkpoints by run @returns {ChartData[]} */
export function makeCharts(logs, axes, checkpoints) {
  const color = (/** @type {number} */ i) => `--series-${i % COLORS}`;
  const style = (/** @type {number} */ i) => ({ color: color(i), isDashed: i >= COLORS });
  const place = (/** @type {RunLog} */ log, /** @type {number} */ step) => (axes.isHours ? log.hoursAt(step) : step);
  const marks = logs.flatMap((log) => log.allMarks().map(({ step, label }) => ({
    x: place(log, step), color: "--warn", label: `${logs.length > 1 ? `${log.name}, ` : ""}step ${count(step)}: ${label}`,
  })));
  const dots = logs.flatMap((log, i) => (checkpoints[log.name] ?? []).map((step) => ({
    x: place(log, step), color: color(i), label: `checkpoint ${count(step)} of ${log.name}`,
  })));

  /** @param {string} id @param {string} title @param {string} unit @param {Line[]} lines */
  const chart = (id, title, unit, lines) => ({ id, title, unit, marks, dots, lines: lines.filter((line) => line.x.length) });
  /** @param {(row: any) => any} read @param {boolean} isNoisy */
  const ofEachRun = (read, isNoisy) => logs.flatMap((log, i) => {
    const line = points(log, read, axes);
    const plain = { ...thin(line), name: log.name, ...style(i) };
    if (!isNoisy || axes.smoothing === 0) return [plain];
    return [{ ...plain, isFaint: true }, { ...plain, ...thin({ x: line.x, y: smooth(line.y, axes.smoothing / 100) }) }];
  });
  /** One run shows its parts in one chart, several runs have a chart for each part.
   * @param {string} id @param {string} title @param {string} unit @param {string[]} names
   * @param {(row: any, name: string) => any} read @param {((row: any) => any) | null} readTotal */
  const ofParts = (id, title, unit, names, read, readTotal) => {
    const total = readTotal ? ofEachRun(readTotal, false) : [];
    if (logs.length > 1) {
      return [chart(id, title, unit, total), ...names.map((name) => chart(`${id} ${name}`, `${title}: ${name}`, unit, ofEachRun((row) => read(row, name), false)))];
    }
    const parts = names.map((name, i) => ({ name, ...style(i + 1), ...thin(points(logs[0], (row) => read(row, name), axes)) }));
    return [chart(id, title, unit, [...total.map((line) => ({ ...line, name: "total", width: 2.5 })), ...parts])];
  };
  const namesOf = (/** @type {(row: any) => any} */ read) => {
    const found = logs.map((log) => new Set(log.rows.flatMap((row) => Object.keys(read(row) ?? {}))));
    // a chart of several runs is for what they share
    return [...found[0] ?? []].filter((name) => logs.length === 1 || found.filter((set) => set.has(name)).length > 1).sort();
  };
  if (!logs.length) return [];
  const task = (/** @type {any} */ row, /** @type {string} */ name) => row.tasks?.[name]?.acc_norm ?? row.tasks?.[name]?.acc;
  return [
    chart("loss", "Loss", "nats per token", ofEachRun((row) => row.loss, true)),
    ...ofParts("heldout", "Held-out", "bits per byte", namesOf((row) => row.heldout?.sources), (row, name) => row.heldout?.sources?.[name], (row) => row.heldout?.bits_per_byte),
    ...ofParts("tasks", "Tasks", "accuracy", namesOf((row) => row.tasks), task, null),
    chart("accuracy", "Preferred answers", "accuracy", ofEachRun((row) => row.heldout?.accuracy, false)),
    chart("lr", "Learning rate", "", ofEachRun((row) => row.lr, false)),
    chart("grad_norm", "Gradient norm", "before clipping", ofEachRun((row) => row.grad_norm, true)),
    chart("speed", "Speed", "tokens per second", ofEachRun((row) => row.tokens_per_s, true)),
    chart("memory", "Memory", "GB, the peak so far", ofEachRun((row) => row.memory_gb, false)),
  ].filter((made) => made.lines.length);
}
