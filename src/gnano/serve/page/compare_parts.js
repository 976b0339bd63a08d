// @ts-check
/** What both ways to compare need: the prompt, an answer, and where several answers differ first. */

import { streamText } from "./api.js";
import { describeToken, firstDifference, percent, placeTokens } from "./tokens.js";
import { ErrorNote, Icon, formatCount, isComposing } from "./ui.js";
import { html } from "./vendor/preact-htm.js";

const ALTERNATIVES = 10; // the most that the server tells
const SHOWN = 6;
const REASONS = { stop: "ended", length: "reached the length", stopped: "stopped" };

/** @typedef {{model: any, text: string, tokens: any[], status: "waiting" | "writing" | "done" | "stopped" | "error",
 *   reason: string | null, error: any}} Answer */

/** The prompt, and whether it is a question or the beginning of a text. @param {any} props */
export function PromptForm({ asked, setAsked, canChat, isBusy, label, onStart, onStop, children }) {
  const isChat = canChat && asked.isChat;
  const start = () => asked.prompt.trim() && !isBusy && onStart(isChat);
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    if (isComposing(event)) return;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) (event.preventDefault(), start());
    if (event.key === "Escape") onStop();
  };
  return html`<form class="ask" onKeyDown=${onKey} onSubmit=${(/** @type {Event} */ e) => (e.preventDefault(), start())}>
    <textarea rows="2" aria-label="Prompt" placeholder=${isChat ? "Ask all of them" : "The beginning of a text"} value=${asked.prompt}
      onInput=${(/** @type {any} */ e) => setAsked({ ...asked, prompt: e.target.value })}></textarea>
    <footer><span class="seg" role="group" aria-label="Kind of prompt">
      <button type="button" disabled=${!canChat} aria-pressed=${isChat} title=${canChat ? "" : "A base model has not learned to answer"} onClick=${() => setAsked({ ...asked, isChat: true })}>Question</button>
      <button type="button" aria-pressed=${!isChat} onClick=${() => setAsked({ ...asked, isChat: false })}>Text</button></span>
      ${children}
      ${isBusy ? html`<button type="button" onClick=${onStop}><${Icon} name="stop" />Stop</button>`
        : html`<button class="primary" title="Ctrl+Enter" disabled=${!asked.prompt.trim()}>${label}</button>`}</footer></form>`;
}

/** @param {any} model @returns {Answer} */
export const newAnswer = (model) => ({ model, text: "", tokens: [], status: "waiting", reason: null, error: null });

/** Write an answer; its status tells how it ended.
 * @param {Answer} answer @param {string} prompt @param {boolean} isChat @param {any} fields
 * @param {AbortSignal} signal @param {() => void} changed */
export async function writeAnswer(answer, prompt, isChat, fields, signal, changed) {
  const asked = isChat
    ? { messages: [{ role: "user", content: prompt }], logprobs: true, top_logprobs: ALTERNATIVES }
    : { prompt, logprobs: ALTERNATIVES };
  answer.status = "writing";
  changed();
  try {
    for await (const part of streamText({ model: answer.model.id, ...asked, ...fields }, signal)) {
      answer.text += part.text;
      answer.tokens.push(...part.tokens);
      answer.reason = part.reason ?? answer.reason;
      changed();
    }
    answer.status = "done";
  } catch (error) {
    answer.status = signal.aborted ? "stopped" : "error";
    answer.error = signal.aborted ? null : error;
  }
  changed();
}

/** Return how many tokens are equal, and whether the answers differ after them.
 * @param {Answer[]} answers */
export function findFork(answers) {
  const lists = answers.map((answer) => answer.tokens);
  const index = firstDifference(lists);
  // an answer that is still being written may go on like the others
  const hasEnded = answers.some((answer) => answer.status === "done" && answer.tokens.length === index);
  const goesOn = lists.some((list) => list.length > index);
  return { index, isFork: goesOn && (hasEnded || lists.every((list) => list.length > index)) };
}

/** The text of an answer: what is equal in all is dimmed, the first other token marked.
 * @param {{answer: Answer, fork: {index: number, isFork: boolean}}} props */
export function AnswerText({ answer, fork }) {
  const { text, tokens, status } = answer;
  const token = placeTokens(text, tokens)[fork.index];
  const start = token?.start ?? text.length;
  const end = fork.isFork && token ? token.end : start;
  const mark = text.slice(start, end) || (token ? describeToken(token.text) : "end");
  return html`<div class="answer ${status === "writing" ? "writing" : ""}"><p><span class="same">${text.slice(0, start)}</span>${fork.isFork && html`<mark>${mark}</mark>`}${text.slice(end)}</p></div>
    ${status === "error" && html`<${ErrorNote} error=${answer.error} />`}
    <small>${describeAnswer(answer)}</small>`;
}

/** @param {Answer} answer */
function describeAnswer({ status, reason, tokens }) {
  if (status === "waiting") return "waits";
  const end = REASONS[/** @type {keyof typeof REASONS} */ (status === "done" ? reason : status)];
  return [end, `${formatCount(tokens.length)} tokens`].filter(Boolean).join(" · ");
}

/** What a model would have written next where the answers differ. @param {{answer: Answer, index: number}} props */
export function Distribution({ answer, index }) {
  const token = answer.tokens[index];
  if (!token) return html`<p class="note">The answer has ended before.</p>`;
  const listed = token.top.slice(0, SHOWN);
  const isListed = listed.some((/** @type {any} */ other) => other.text === token.text);
  return html`<ul class="distribution">${(isListed ? listed : [...listed.slice(0, -1), token]).map((/** @type {any} */ other) => html`<li key=${other.text} aria-current=${other.text === token.text}>
    <code>${describeToken(other.text)}</code><i style=${{ width: `${100 * Math.exp(other.logprob)}%` }}></i><span>${percent(other.logprob)}</span></li>`)}</ul>`;
}
