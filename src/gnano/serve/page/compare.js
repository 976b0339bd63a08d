// @ts-check
/** Two to four models on one prompt and one seed side by side, and which of two answers is better. */

import { postJson } from "./api.js";
import { AnswerText, Distribution, PromptForm, findFork, newAnswer, writeAnswer } from "./compare_parts.js";
import { describeModel } from "./model_picker.js";
import { samplingFields } from "./settings.js";
import { Timeline } from "./timeline.js";
import { CopyButton, ErrorNote, IconButton, formatCount, useRedraw, useSaved } from "./ui.js";
import { html, useEffect, useRef, useState } from "./vendor/preact-htm.js";

const MAX_SIDES = 4;
const LETTERS = "ABCD";
const ASKED = { prompt: "", isChat: true, isBlind: true, isTimeline: false };

/** @param {{app: any, isShown: boolean}} props */
export function Compare({ app, isShown }) {
  const [asked, setAsked] = useSaved("compare", ASKED);
  const View = asked.isTimeline ? Timeline : SideBySide;
  const mode = (/** @type {boolean} */ isTimeline, /** @type {string} */ label) => html`<button type="button"
    aria-pressed=${asked.isTimeline === isTimeline} onClick=${() => setAsked({ ...asked, isTimeline })}>${label}</button>`;
  return html`<div class="page"><div class="seg" role="group" aria-label="What is compared">
    ${mode(false, "Side by side")}${mode(true, "Timeline of a run")}</div>
    <${View} app=${app} asked=${asked} setAsked=${setAsked} isShown=${isShown} /></div>`;
}

/** Return the chosen models that are served, filled up to two. @param {any} app @param {string[]} ids */
function chooseModels(app, ids) {
  const found = ids.map((id) => app.models.find((/** @type {any} */ m) => m.id === id)).filter(Boolean);
  const first = found[0] ?? app.model;
  if (!first || found.length >= 2) return found;
  const { run, step } = first.x_gnano;
  const others = app.models.filter((/** @type {any} */ m) => m !== first && !(m.x_gnano.run === run && m.x_gnano.step === step));
  const other = others.find((/** @type {any} */ m) => m.x_gnano.run === run) ?? others[0];
  return other ? [first, other] : [first];
}

/** @param {any} props */
function SideBySide({ app, asked, setAsked }) {
  const [ids, setIds] = useSaved("compare-models", /** @type {string[]} */ ([]));
  const [result, setResult] = useState(/** @type {any} */ (null));
  const abort = useRef(/** @type {AbortController | null} */ (null));
  const redraw = useRedraw();
  useEffect(() => () => abort.current?.abort(), []); // nobody reads what is written for another mode
  const models = chooseModels(app, ids);
  if (models.length < 2) return html`<p class="note">To compare, serve a second model, or a run with several checkpoints.</p>`;

  const isBusy = Boolean(result?.answers.some((/** @type {any} */ a) => a.status === "writing" || a.status === "waiting"));
  const canBlind = models.length === 2;
  const pick = (/** @type {number} */ i, /** @type {string} */ id) => setIds(models.map((m, k) => (k === i ? id : m.id)));
  const start = (/** @type {boolean} */ isChat) => {
    const isBlind = canBlind && asked.isBlind;
    const answers = models.map(newAnswer);
    if (isBlind && Math.random() < 0.5) answers.reverse();
    const fields = samplingFields(app.settings);
    const controller = (abort.current = new AbortController());
    setResult({ prompt: asked.prompt, isChat, isBlind, answers, fields, isRevealed: !isBlind });
    for (const answer of answers) writeAnswer(answer, asked.prompt, isChat, fields, controller.signal, redraw);
  };
  return html`<div class="sides">${models.map((model, i) => html`<span key=${i} class="side-picker">
      <select aria-label="Model ${i + 1}" value=${model.id} disabled=${isBusy} onChange=${(/** @type {any} */ e) => pick(i, e.target.value)}>
        ${app.models.map((/** @type {any} */ m) => html`<option key=${m.id} value=${m.id} title=${describeModel(m)} selected=${m.id === model.id}>${m.id}</option>`)}</select>
      ${models.length > 2 && html`<${IconButton} icon="close" label="Remove ${model.id}" disabled=${isBusy} onClick=${() => setIds(models.filter((_, k) => k !== i).map((m) => m.id))} />`}</span>`)}
    ${models.length < MAX_SIDES && html`<${IconButton} icon="plus" label="Add a model" disabled=${isBusy} onClick=${() => setIds([...models, app.models.find((/** @type {any} */ m) => !models.includes(m)) ?? app.model].map((m) => m.id))} />`}</div>
    <${PromptForm} asked=${asked} setAsked=${setAsked} canChat=${models.every((m) => m.x_gnano.has_chat_template)} isBusy=${isBusy} label="Compare" onStart=${start} onStop=${() => abort.current?.abort()}>
      ${canBlind && html`<label class="check"><input type="checkbox" checked=${asked.isBlind} onChange=${() => setAsked({ ...asked, isBlind: !asked.isBlind })} /> hide the names until you choose</label>`}
    </${PromptForm}>
    ${result && html`<${Result} key=${result.fields.seed} result=${result} redraw=${redraw} />`}`;
}

/** @param {any} props */
function Result({ result, redraw }) {
  const { answers, fields } = result;
  const fork = findFork(answers);
  const isOver = answers.every((/** @type {any} */ a) => a.status !== "writing" && a.status !== "waiting");
  const canVote = answers.length === 2 && answers.every((/** @type {any} */ a) => a.status === "done") && answers[0].text !== answers[1].text;
  const isRevealed = result.isRevealed || (isOver && !canVote); // nothing is left to judge
  const name = (/** @type {number} */ i) => html`<b>${LETTERS[i]}</b>${isRevealed && html` <span>${answers[i].model.id}</span>`}`;
  return html`<p class="facts">Temperature ${fields.temperature} · seed ${fields.seed}${fork.index > 0 && ` · equal for ${formatCount(fork.index)} ${fork.index === 1 ? "token" : "tokens"}`}</p>
    <div class="answers">${answers.map((/** @type {any} */ answer, /** @type {number} */ i) => html`<section key=${i} aria-label="Answer ${LETTERS[i]}">
      <h2>${name(i)}</h2><${AnswerText} answer=${answer} fork=${fork} /></section>`)}</div>
    ${canVote && html`<${Vote} result=${result} redraw=${redraw} />`}
    ${fork.isFork && html`<section class="fork" aria-label="First difference"><h2>Where they part</h2><small>Probabilities of the next token, before temperature</small>
      <div class="answers">${answers.map((/** @type {any} */ answer, /** @type {number} */ i) => html`<div key=${i}><h3>${name(i)}</h3><${Distribution} answer=${answer} index=${fork.index} /></div>`)}</div></section>`}`;
}

/** Return the 95 % interval of a share (Wilson). @param {number} wins @param {number} count */
export function winInterval(wins, count) {
  const z = 1.96;
  const share = wins / count;
  const center = share + (z * z) / (2 * count);
  const half = z * Math.sqrt((share * (1 - share)) / count + (z * z) / (4 * count * count));
  const scale = 1 + (z * z) / count;
  return [(center - half) / scale, (center + half) / scale];
}

/** Which answer is better; an answer to a question is stored for `gnano dpo`. @param {any} props */
function Vote({ result, redraw }) {
  const [counts, setCounts] = useSaved("votes", /** @type {Record<string, number[]>} */ ({}));
  const { answers, prompt } = result;
  const pair = answers.map((/** @type {any} */ a) => a.model.id).sort();
  const key = pair.join("\n");
  const count = counts[key] ?? [0, 0, 0]; // better answers of each, then ties

  /** @param {number} better 0, 1, or -1 for a tie */
  const choose = async (better) => {
    result.choice = better;
    result.isRevealed = true;
    if (result.isBlind) {
      const place = better < 0 ? 2 : pair.indexOf(answers[better].model.id);
      setCounts({ ...counts, [key]: count.map((n, i) => n + Number(i === place)) });
    }
    redraw();
    if (better < 0 || !result.isChat) return;
    const record = { prompt, chosen: answers[better].text, rejected: answers[1 - better].text };
    try {
      await postJson("/api/preferences", record);
      result.isStored = true;
    } catch (error) {
      result.error = error;
    }
    redraw();
  };
  if (result.choice === undefined) {
    return html`<div class="vote" role="group" aria-label="Which answer is better">
      <button type="button" onClick=${() => choose(0)}>A is better</button><button type="button" onClick=${() => choose(-1)}>Tie</button>
      <button type="button" onClick=${() => choose(1)}>B is better</button></div>`;
  }
  const { run } = answers[Math.max(0, result.choice)].model.x_gnano;
  return html`<div class="voted" role="status">
    <p>${result.choice < 0 ? "A tie" : `${answers[result.choice].model.id} is better`}.${result.isStored && " The preference is stored."}
      ${result.choice >= 0 && !result.isChat && " It is not stored: gnano dpo learns from answers to questions."}</p>
    ${count.some(Boolean) && html`<p class="count">${describeCount(pair, count)}</p>`}
    ${result.error && (result.error.code === "no_preferences_file" ? html`<p>${result.error.message}</p>` : html`<${ErrorNote} error=${result.error} />`)}
    ${result.isChat && run && html`<${Command} text="gnano dpo ${run}-dpo --from runs/${run} --files preferences.jsonl" />`}</div>`;
}

/** @param {string[]} pair @param {number[]} count */
function describeCount(pair, [first, second, ties]) {
  const wins = Math.max(first, second);
  const decided = first + second;
  const [low, high] = decided ? winInterval(wins, decided) : [0, 1];
  const interval = decided ? ` (95 % interval ${Math.round(100 * low)}–${Math.round(100 * high)} %)` : "";
  return `Blind so far: ${pair[0]} ${first}, ${pair[1]} ${second}, ties ${ties}. ${decided ? `${pair[first >= second ? 0 : 1]} is better in ${Math.round((100 * wins) / decided)} %${interval}.` : ""}`;
}

/** @param {{text: string}} props */
const Command = ({ text }) => html`<p class="command"><small>Tune on the file of --preferences:</small> <code>${text}</code><${CopyButton} text=${text} label="Copy the command" /></p>`;
