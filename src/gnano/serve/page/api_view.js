// @ts-check
/** What this page asked the server, as commands to run again, the prompt that a chat becomes, and the reference. */

import { log, postJson, savedKey } from "./api.js";
import { Reference } from "./reference.js";
import { describeToken } from "./tokens.js";
import { CopyButton, ErrorNote, formatCount } from "./ui.js";
import { html, useEffect, useState } from "./vendor/preact-htm.js";

const REFRESH_MS = 500;
// fields that the server adds to OpenAI's, which the client takes in an object of their own
const EXTRA_FIELDS = ["top_k", "min_p", "repetition_penalty"];

/** Return the same request as a command. @param {any} entry @param {string} origin @param {boolean} hasKey */
export function toCurl({ method, path, body }, origin, hasKey) {
  const quoted = (/** @type {string} */ text) => `'${text.replace(/'/g, "'\\''")}'`;
  return [
    `curl -sS${body?.stream ? "N" : ""} ${origin}${path}`,
    ...(method === "GET" || body ? [] : [`-X ${method}`]),
    ...(hasKey ? ['-H "Authorization: Bearer $GNANO_KEY"'] : []),
    ...(body ? [`-H "Content-Type: application/json"`, `-d ${quoted(JSON.stringify(body, null, 2))}`] : []),
  ].join(" \\\n  ");
}

/** Return a value of JSON as Python writes it. @param {any} value @param {string} indent */
function toPythonValue(value, indent) {
  const inner = `${indent}    `;
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const isList = Array.isArray(value);
  const parts = isList
    ? value.map((one) => toPythonValue(one, inner))
    : Object.entries(value).map(([name, one]) => `${JSON.stringify(name)}: ${toPythonValue(one, inner)}`);
  const [open, close] = isList ? "[]" : "{}";
  const line = open + parts.join(", ") + close;
  return line.length < 70 ? line : `${open}\n${parts.map((part) => `${inner}${part},\n`).join("")}${indent}${close}`;
}

/** Return the same request as a program. @param {any} entry @param {string} origin @param {boolean} hasKey */
export function toPython({ method, path, body }, origin, hasKey) {
  const resource = { "/v1/chat/completions": "chat.completions", "/v1/completions": "completions" }[/** @type {string} */ (path)];
  const environment = hasKey ? "import os\n\n" : "";
  if (!resource) {
    const key = hasKey ? ',\n    headers={"Authorization": f"Bearer {os.environ[\'GNANO_KEY\']}"}' : "";
    return `${environment}import httpx\n\nresponse = httpx.request(\n    "${method}",\n    "${origin}${path}"${key},${body ? `\n    json=${toPythonValue(body, "    ")},` : ""}\n    timeout=600,\n)\nprint(response.json())\n`;
  }
  const names = Object.keys(body);
  const known = names.filter((name) => !EXTRA_FIELDS.includes(name)).map((name) => [name, body[name]]);
  const extra = Object.fromEntries(names.filter((name) => EXTRA_FIELDS.includes(name)).map((name) => [name, body[name]]));
  if (Object.keys(extra).length) known.push(["extra_body", extra]);
  const call = `client.${resource}.create(\n${known.map(([name, value]) => `    ${name}=${toPythonValue(value, "    ")},\n`).join("")})`;
  const isChat = resource.startsWith("chat");
  const use = body.stream
    ? `stream = ${call}\nfor chunk in stream:\n    if chunk.choices:\n        print(${isChat ? 'chunk.choices[0].delta.content or ""' : "chunk.choices[0].text"}, end="", flush=True)\n`
    : `response = ${call}\nprint(response.choices[0].${isChat ? "message.content" : "text"})\n`;
  return `${environment}from openai import OpenAI\n\nclient = OpenAI(base_url="${origin}/v1", api_key=${hasKey ? 'os.environ["GNANO_KEY"]' : '"none"'})\n${use}`;
}

/** @param {{app: any, isShown: boolean}} props */
export function ApiView({ app, isShown }) {
  const [, redraw] = useState(0);
  const [id, setId] = useState(0); // 0: the newest
  const [language, setLanguage] = useState("curl");
  useEffect(() => {
    if (!isShown) return undefined;
    redraw(Date.now());
    const timer = setInterval(() => redraw(Date.now()), REFRESH_MS);
    return () => clearInterval(timer);
  }, [isShown]);
  if (!isShown) return null;
  const entry = log.find((one) => one.id === id) ?? log[0];
  const hasKey = savedKey() !== "";
  const code = entry && (language === "curl" ? toCurl : toPython)(entry, location.origin, hasKey);
  const chat = log.find((one) => one.path === "/v1/chat/completions")?.body.messages;
  return html`<div class="api-page">
    <section><h1>API</h1>
      <p>Any OpenAI client works with this server.</p>
      <dl><dt>Base URL</dt><dd><code>${location.origin}/v1</code><${CopyButton} text="${location.origin}/v1" label="Copy the base URL" /></dd>
        <dt>Key</dt><dd>${hasKey ? html`the key of --api-key; the examples read it from <code>GNANO_KEY</code>` : html`none is needed; clients that insist take any, such as <code>none</code>`}</dd>
        <dt>Model</dt><dd>${app.model ? html`<code>${app.model.id}</code><${CopyButton} text=${app.model.id} label="Copy the model's name" />` : "none is served"}</dd></dl></section>
    <section aria-label="Requests"><header><h2>What this page asked</h2>
      <div class="seg" role="group" aria-label="Language">${[["curl", "curl"], ["python", "Python"]].map(([name, label]) => html`<button type="button" key=${name}
        aria-pressed=${name === language} onClick=${() => setLanguage(name)}>${label}</button>`)}</div></header>
      ${!entry ? html`<p class="note">Nothing yet. Write something in another view, then come back.</p>` : html`<div class="requests">
        <ul>${log.map((one) => html`<li key=${one.id}><button type="button" aria-current=${one.id === entry.id} onClick=${() => setId(one.id)}>
          <code>${one.path}</code><small>${one.body?.model ?? ""}</small><small class=${one.status === 200 ? "" : "failed"}>${one.status}</small></button></li>`)}</ul>
        <div><div class="code"><pre tabindex="0"><code>${code}</code></pre><${CopyButton} text=${code} label="Copy the ${language === "curl" ? "command" : "program"}" /></div>
          <small>${entry.requestId && html`request <code>${entry.requestId}</code> · `}first byte after ${entry.ms.toFixed(0)} ms${hasKey ? " · set GNANO_KEY first" : ""}</small></div></div>`}</section>
    <${PromptView} model=${app.model} chat=${chat} />
    <${Reference} /></div>`;
}

/** The prompt that a template makes of a conversation, token by token. @param {any} props */
function PromptView({ model, chat }) {
  const [source, setSource] = useState("chat");
  const [system, setSystem] = useState("");
  const [question, setQuestion] = useState("What does a prompt look like?");
  const [prompt, setPrompt] = useState(/** @type {any} */ (null));
  const [error, setError] = useState(/** @type {any} */ (null));
  const [at, setAt] = useState(0);
  const isTyped = source === "typed" || !chat;
  const typed = [...(system.trim() ? [{ role: "system", content: system }] : []), { role: "user", content: question || " " }];
  const messages = isTyped ? typed : chat;
  const asked = JSON.stringify(messages);
  useEffect(() => {
    if (!model) return undefined;
    const controller = new AbortController();
    const timer = setTimeout(() => {
      postJson("/apply-template", { model: model.id, messages }, { signal: controller.signal, isLogged: false })
        .then((found) => (setPrompt(found), setError(null), setAt(0)))
        .catch((reason) => controller.signal.aborted || setError(reason));
    }, 250);
    return () => (clearTimeout(timer), controller.abort());
  }, [model?.id, asked]);
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    const moved = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!moved || !prompt) return;
    event.preventDefault();
    setAt(Math.max(0, Math.min(prompt.tokens.length - 1, at + moved)));
  };
  const onPoint = (/** @type {any} */ event) => event.target.dataset.token && setAt(Number(event.target.dataset.token));
  return html`<section aria-label="Prompt"><header><h2>What the prompt really looks like</h2>
      ${chat && html`<div class="seg" role="group" aria-label="Conversation">${[["chat", "Last chat"], ["typed", "Try a text"]].map(([name, label]) => html`<button type="button" key=${name}
        aria-pressed=${name === source} onClick=${() => setSource(name)}>${label}</button>`)}</div>`}</header>
    ${isTyped && html`<div class="typed"><textarea rows="1" aria-label="System text" placeholder="System text (optional)" value=${system} onInput=${(/** @type {any} */ e) => setSystem(e.target.value)}></textarea>
      <textarea rows="1" aria-label="Question" placeholder="Question" value=${question} onInput=${(/** @type {any} */ e) => setQuestion(e.target.value)}></textarea></div>`}
    ${model && !model.x_gnano.has_chat_template && html`<p class="note">${model.id} is a base model without a template: its prompts have the form that gnano uses for these.</p>`}
    ${error && html`<${ErrorNote} error=${error} />`}
    ${prompt && !error && html`<div class="prompt" tabindex="0" role="group" aria-label="Tokens of the prompt; the arrow keys move between them" onKeyDown=${onKey} onMouseOver=${onPoint} onClick=${onPoint}>
        ${prompt.pieces.map((/** @type {string} */ piece, /** @type {number} */ i) => html`<span key=${i} data-token=${i} title=${prompt.tokens[i]}
          class="${prompt.special[i] ? "chip" : i % 2 ? "odd" : ""} ${i === at ? "at" : ""}">${describeToken(piece)}</span>${piece.endsWith("\n") && "\n"}`)}</div>
      <p class="status" aria-live="polite"><span>token ${at + 1} of ${formatCount(prompt.tokens.length)}: <code>${describeToken(prompt.pieces[at])}</code> · id <b>${prompt.tokens[at]}</b>${prompt.special[at] ? " · special" : ""}</span>
        <span>${formatCount(prompt.tokens.length)} of ${formatCount(model?.x_gnano.context ?? 0)} tokens</span><${CopyButton} text=${prompt.prompt} label="Copy the prompt" /></p>`}</section>`;
}
