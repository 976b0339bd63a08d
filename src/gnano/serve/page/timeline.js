// @ts-check
/** One prompt through all checkpoints of a run, at temperature 0, and a slider along the loss curve. */

import { getJson } from "./api.js";
import { Chart } from "./chart.js";
import { AnswerText, PromptForm, findFork, newAnswer, writeAnswer } from "./compare_parts.js";
import { RunLog, makeCharts } from "./curves.js";
import { formatCount, useRedraw, useSaved } from "./ui.js";
import { html, useEffect, useMemo, useRef, useState } from "./vendor/preact-htm.js";

const AXES = { isHours: false, isLog: false, smoothing: 5 };
const NONE = { index: 0, isFork: false };

/** Return the checkpoints of each run in the order of steps, of runs that have several. @param {any[]} models */
function groupCheckpoints(models) {
  /** @type {Map<string, any[]>} */
  const runs = new Map();
  for (const model of models) {
    const { run, step } = model.x_gnano;
    const found = runs.get(run) ?? [];
    if (!run || step === null || found.some((m) => m.x_gnano.step === step)) continue;
    runs.set(run, [...found, model].sort((a, b) => a.x_gnano.step - b.x_gnano.step));
  }
  return new Map([...runs].filter(([, found]) => found.length > 1));
}

/** @param {any} props */
export function Timeline({ app, asked, setAsked }) {
  const [chosen, setChosen] = useSaved("timeline-run", "");
  const [answers, setAnswers] = useState(/** @type {import("./compare_parts.js").Answer[]} */ ([]));
  const [at, setAt] = useState(/** @type {number | null} */ (null)); // null: the newest answer
  const abort = useRef(/** @type {AbortController | null} */ (null));
  const redraw = useRedraw();
  useEffect(() => () => abort.current?.abort(), []);

  const runs = groupCheckpoints(app.models);
  const run = runs.has(chosen) ? chosen : [...runs.keys()][0];
  const checkpoints = runs.get(run ?? "") ?? [];
  const steps = answers.length ? answers.map((answer) => answer.model.x_gnano.step) : checkpoints.map((m) => m.x_gnano.step);
  const newest = Math.max(0, answers.findLastIndex((answer) => answer.status !== "waiting"));
  const index = Math.min(at ?? newest, Math.max(0, steps.length - 1));
  const chart = useLossChart(run ?? "", steps, steps[index]);
  if (!run) return html`<p class="note">The timeline needs a served run with several checkpoints; <code>--train.keep-every</code> sets which stay.</p>`;

  const isBusy = answers.some((answer) => answer.status === "writing");
  const start = async (/** @type {boolean} */ isChat) => {
    abort.current?.abort();
    const controller = (abort.current = new AbortController());
    const made = checkpoints.map(newAnswer);
    setAnswers(made);
    setAt(null);
    const fields = { ...app.settings, temperature: 0, seed: 0 };
    // one after another: each is a model to load
    for (const answer of made) {
      if (!controller.signal.aborted) await writeAnswer(answer, asked.prompt, isChat, fields, controller.signal, redraw);
    }
  };
  const pick = (/** @type {string} */ name) => (abort.current?.abort(), setAnswers([]), setAt(null), setChosen(name));
  const answer = answers[index];
  const before = answers[index - 1];
  const pickNear = (/** @type {number} */ x) => setAt(steps.reduce((best, step, i) => (Math.abs(step - x) < Math.abs(steps[best] - x) ? i : best), 0));
  return html`<div class="sides"><select aria-label="Run" value=${run} onChange=${(/** @type {any} */ e) => pick(e.target.value)}>
      ${[...runs.keys()].map((name) => html`<option key=${name} value=${name} selected=${name === run}>${name}</option>`)}</select>
      <small>${formatCount(checkpoints.length)} checkpoints, each at temperature 0</small></div>
    <${PromptForm} asked=${asked} setAsked=${setAsked} canChat=${checkpoints.every((m) => m.x_gnano.has_chat_template)} isBusy=${isBusy}
      label="Run through" onStart=${start} onStop=${() => abort.current?.abort()} />
    ${chart && html`<${Chart} chart=${chart} isLog=${false} theme=${app.theme} height=${180} unitOfX="step" onPick=${pickNear} />`}
    <div class="slider"><input type="range" aria-label="Checkpoint" min="0" max=${steps.length - 1} step="1" value=${index} aria-valuetext="step ${formatCount(steps[index])}"
      onInput=${(/** @type {any} */ e) => setAt(Number(e.target.value))} /><b>step ${formatCount(steps[index])}</b></div>
    ${answer && html`<section class="growing" aria-label="Answer at step ${formatCount(steps[index])}"><${AnswerText} answer=${answer} fork=${before ? findFork([before, answer]) : NONE} />
      ${before && html`<small> · dimmed: equal to step ${formatCount(steps[index - 1])}</small>`}</section>`}`;
}

/** Return the loss curve of a run with its checkpoints and a mark, or null. @param {string} run @param {number[]} steps @param {number} step */
function useLossChart(run, steps, step) {
  const [log, setLog] = useState(/** @type {RunLog | null} */ (null));
  useEffect(() => {
    let isCurrent = true;
    setLog(null);
    const read = async () => {
      const { runs } = await getJson("/api/runs", { isLogged: false });
      const name = runs.find((/** @type {any} */ r) => r.name === run || r.name.endsWith(`/${run}`))?.name;
      if (!name) return; // it is not in the folder of runs
      const made = new RunLog(name);
      await made.read();
      if (isCurrent) setLog(made);
    };
    read().catch(() => {}); // the answers do not need the curve
    return () => void (isCurrent = false);
  }, [run]);
  return useMemo(() => {
    const loss = log && makeCharts([log], AXES, { [log.name]: steps }).find((chart) => chart.id === "loss");
    return loss ? { ...loss, marks: [{ x: step, label: `step ${formatCount(step)}`, color: "--accent" }] } : null;
  }, [log, steps.join(), step]);
}
