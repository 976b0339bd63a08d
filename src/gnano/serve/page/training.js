// @ts-check
/** The runs of the server: live curves laid over each other, and the way from a point to its checkpoint. */

import { getJson } from "./api.js";
import { Chart, formatValue } from "./chart.js";
import { COLORS, RunLog, makeCharts } from "./curves.js";
import { ErrorNote, formatCount, useSaved } from "./ui.js";
import { html, useEffect, useMemo, useRef, useState } from "./vendor/preact-htm.js";

const POLL_MS = 2_000;
const AXES = { isHours: false, isLog: false, smoothing: 5 };

/** Return the served model of a checkpoint, or undefined. @param {any[]} models @param {string} run @param {number} step */
export function findCheckpoint(models, run, step) {
  const name = run.split("/").at(-1);
  return models.find((m) => m.id === `${run}@${step}` || m.id === `${name}@${step}`)
    ?? models.find((m) => m.x_gnano.run === name && m.x_gnano.step === step);
}

/** Format seconds: 45 s, 12 min, 3 h 20 min, 2 d 4 h. @param {number} seconds */
export function formatDuration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** @param {{app: any, isShown: boolean}} props */
export function Training({ app, isShown }) {
  const [runs, setRuns] = useState(/** @type {import("./curves.js").Run[] | null} */ (null));
  const [error, setError] = useState(/** @type {any} */ (null));
  const [chosen, setChosen] = useSaved("training-runs", /** @type {string[]} */ ([]));
  const [axes, setAxes] = useSaved("training-axes", AXES);
  const [picked, setPicked] = useState(/** @type {{run: string, step: number} | null} */ (null));
  const [version, setVersion] = useState(0);
  const logs = useRef(/** @type {Map<string, RunLog>} */ (new Map()));
  const isReading = useRef(false);
  const scheme = useColorScheme();

  const known = (runs ?? []).filter((run) => chosen.includes(run.name));
  const shown = known.length ? known : (runs ?? []).slice(0, 1);
  const names = shown.map((run) => run.name);

  const poll = async () => {
    if (isReading.current || document.hidden) return;
    isReading.current = true;
    try {
      const { runs: found } = await getJson("/api/runs", { isLogged: false });
      const wanted = found.filter((/** @type {any} */ run) => chosen.includes(run.name));
      let hasNews = false;
      for (const run of wanted.length ? wanted : found.slice(0, 1)) {
        const log = logs.current.get(run.name) ?? new RunLog(run.name);
        if (logs.current.has(run.name) && !run.is_running && log.step === run.step) continue;
        await log.read();
        logs.current.set(run.name, log);
        hasNews = true;
      }
      setRuns((before) => (JSON.stringify(before) === JSON.stringify(found) ? before : found));
      if (hasNews) setVersion((n) => n + 1);
      setError(null);
    } catch (problem) {
      setError(problem);
    } finally {
      isReading.current = false;
    }
  };
  const latest = useRef(poll);
  latest.current = poll;
  useEffect(() => {
    if (!isShown) return;
    latest.current();
    const timer = setInterval(() => latest.current(), POLL_MS);
    return () => clearInterval(timer);
  }, [isShown, chosen.join("\n")]);

  const charts = useMemo(() => {
    const read = shown.flatMap((run) => logs.current.get(run.name) ?? []);
    return makeCharts(read, axes, Object.fromEntries(shown.map((run) => [run.name, run.checkpoints])));
  }, [version, names.join("\n"), JSON.stringify(axes), JSON.stringify(shown.map((run) => run.checkpoints))]);

  /** Pick the checkpoint next to a place on the x axis. @param {number} x */
  const pickAt = (x) => {
    const places = shown.flatMap((run) => run.checkpoints.map((step) => ({
      run: run.name, step, distance: Math.abs((axes.isHours ? (logs.current.get(run.name)?.hoursAt(step) ?? 0) : step) - x),
    })));
    const [nearest] = places.sort((a, b) => a.distance - b.distance);
    if (nearest) setPicked({ run: nearest.run, step: nearest.step });
  };
  const toggle = (/** @type {string} */ name) => {
    const next = names.includes(name) ? names.filter((n) => n !== name) : [...names, name];
    if (next.length) setChosen(next);
  };
  if (!runs) return error ? html`<div class="page"><${ErrorNote} error=${error} onRetry=${poll} /></div>` : null;
  if (!runs.length) {
    return html`<div class="page welcome"><h1>No runs here</h1><p>The server shows the runs next to the models that it serves, or those in the folder of <code>--runs</code>.</p></div>`;
  }
  return html`<div class="page">
    ${error && html`<${ErrorNote} error=${error} onRetry=${poll} />`}
    <div class="controls">
      <div class="chips" role="group" aria-label="Runs">${runs.map((run) => {
        const at = names.indexOf(run.name);
        return html`<button type="button" key=${run.name} class="chip" aria-pressed=${at >= 0} onClick=${() => toggle(run.name)}>
          <i style=${{ background: at >= 0 ? `var(--series-${at % COLORS})` : "var(--line)" }}></i>${run.name}${run.is_running && html`<small>running</small>`}</button>`;
      })}</div>
      <div class="axes">
        <span class="seg" role="group" aria-label="Horizontal axis">
          <button type="button" aria-pressed=${!axes.isHours} onClick=${() => setAxes({ ...axes, isHours: false })}>Steps</button>
          <button type="button" aria-pressed=${axes.isHours} onClick=${() => setAxes({ ...axes, isHours: true })}>Hours</button></span>
        <label><input type="checkbox" checked=${axes.isLog} onChange=${() => setAxes({ ...axes, isLog: !axes.isLog })} /> log</label>
        <label>smoothing <input type="range" min="0" max="20" value=${axes.smoothing} onInput=${(/** @type {any} */ e) => setAxes({ ...axes, smoothing: Number(e.target.value) })} /></label>
      </div>
    </div>
    ${shown.map((run) => html`<${Status} key=${run.name} run=${run} log=${logs.current.get(run.name)} models=${app.models} picked=${picked?.run === run.name ? picked.step : null} onPick=${setPicked} go=${app.go} />`)}
    <div class="charts">${charts.map((chart) => html`<${Chart} key=${chart.id} chart=${chart} isLog=${axes.isLog} unitOfX=${axes.isHours ? "hour" : "step"}
      theme="${app.theme} ${scheme}" height=${chart.id === "loss" ? 300 : 190} onPick=${pickAt} />`)}</div>
    <${Events} logs=${shown.flatMap((run) => logs.current.get(run.name) ?? [])} />
  </div>`;
}

/** What a run does, its checkpoints, and the way to the picked one. @param {any} props */
function Status({ run, log, models, picked, onPick, go }) {
  const left = run.is_running && log ? log.secondsLeft(run.total_steps) : null;
  const share = run.total_steps ? run.step / run.total_steps : null;
  const facts = [
    run.state,
    run.step !== null && `step ${formatCount(run.step)}${run.total_steps ? ` of ${formatCount(run.total_steps)}` : ""}`,
    left !== null && `${formatDuration(left)} left`,
    run.loss !== null && `loss ${formatValue(run.loss)}`,
    run.bits_per_byte !== null && `${formatValue(run.bits_per_byte)} bits per byte`,
    run.is_running && log?.last("tokens_per_s") && `${formatCount(Math.round(log.last("tokens_per_s")))} tokens/s`,
  ].filter(Boolean).join(" · ");
  const model = picked === null ? undefined : findCheckpoint(models, run.name, picked);
  const view = model?.x_gnano.has_chat_template ? "chat" : "write";
  return html`<section class="run" aria-label="Run ${run.name}">
    <p><b>${run.name}</b> <span class="facts">${facts}</span>${share !== null && share < 1 && html`<progress value=${share} aria-label="Share of the steps"></progress>`}</p>
    ${run.checkpoints.length > 0 && html`<div class="checkpoints"><small>Checkpoints</small><ul>${run.checkpoints.map((/** @type {number} */ step) => html`<li key=${step}>
      <button type="button" aria-pressed=${picked === step} onClick=${() => onPick({ run: run.name, step })}>${formatCount(step)}</button></li>`)}</ul></div>`}
    <div aria-live="polite">${picked !== null && html`<p class="picked">${model
      ? html`<button type="button" class="primary" onClick=${() => go(view, model.id)}>Talk to ${model.id}</button><small>${view === "chat" ? "It answers questions in Chat." : "A base model continues text in Write."}</small>`
      : html`<small>Step ${formatCount(picked)} of ${run.name} is not served; start the server with <code>gnano serve runs/${run.name}</code> to talk to it.</small>`}</p>`}</div>
  </section>`;
}

/** @param {{logs: RunLog[]}} props */
function Events({ logs }) {
  const rows = logs.flatMap((log) => log.allMarks().map((mark) => ({ ...mark, run: log.name })));
  if (!rows.length) return null;
  return html`<details class="events"><summary>${formatCount(rows.length)} ${rows.length === 1 ? "event" : "events"}</summary><table>
    <thead><tr><th>Run</th><th>Step</th><th>Event</th></tr></thead>
    <tbody>${rows.slice(-200).map((row) => html`<tr><td>${row.run}</td><td>${formatCount(row.step)}</td><td>${row.label}</td></tr>`)}</tbody></table></details>`;
}

/** Return light or dark, as the system prefers. */
function useColorScheme() {
  const query = useMemo(() => matchMedia("(prefers-color-scheme: dark)"), []);
  const [isDark, setDark] = useState(query.matches);
  useEffect(() => {
    const onChange = () => setDark(query.matches);
    query.addEventListener("change", onChange);
    return () => query.removeEventListener("change", onChange);
  }, []);
  return isDark ? "dark" : "light";
}
