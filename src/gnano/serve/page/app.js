// @ts-check
/** The page: header, model picker, key, connection, and one view at a time. */

import { ApiView } from "./api_view.js";
import { configure, getJson, saveKey } from "./api.js";
import { Chat } from "./chat.js";
import { Compare } from "./compare.js";
import { ModelPicker, describeModel } from "./model_picker.js";
import { DEFAULTS, Settings } from "./settings.js";
import { Training } from "./training.js";
import { Dialog, IconButton, useSaved } from "./ui.js";
import { html, render, useEffect, useRef, useState } from "./vendor/preact-htm.js";
import { Write } from "./write.js";

const VIEWS = { chat: Chat, write: Write, compare: Compare, training: Training, api: ApiView };
const TITLES = { chat: "Chat", write: "Write", compare: "Compare", training: "Training", api: "API" };
const THEMES = ["auto", "light", "dark"];
const POLL_MS = 5_000;
const RETRY_MS = 1_000; // while the server does not answer

function readView() {
  const view = location.hash.slice(1);
  return view in VIEWS ? view : "";
}

function App() {
  const [models, setModels] = useState(/** @type {import("./model_picker.js").Model[] | null} */ (null));
  const [modelId, setModelId] = useSaved("model", "");
  const [settings, setSettings] = useSaved("settings", DEFAULTS);
  const [theme, setTheme] = useSaved("theme", "auto");
  const [view, setView] = useState(readView());
  const [isUp, setUp] = useState(true);
  const [dialog, setDialog] = useState(/** @type {any} */ (null));
  const [isLocked, setLocked] = useState(false);
  const visited = useRef(new Set());
  const isKeyRefused = useRef(false); // the reader closed the prompt: only they open it again

  const model = models?.find((m) => m.id === modelId) ?? models?.[0] ?? null;
  // a base model cannot chat: its own view comes first
  const shown = view || (model && !model.x_gnano.has_chat_template ? "write" : "chat");
  const refresh = () => getJson("/v1/models").then(({ data }) => {
    // the same list draws nothing again
    setModels((before) => (JSON.stringify(before) === JSON.stringify(data) ? before : data));
  }).catch(() => {});

  useEffect(() => {
    configure({
      connected: setUp,
      askKey: (/** @type {boolean} */ wasWrong) =>
        new Promise((resolve) => {
          if (isKeyRefused.current) resolve(null);
          else setDialog({ kind: "key", wasWrong, resolve });
        }),
    });
    refresh();
    const onHash = () => setView(readView());
    const onKey = (/** @type {KeyboardEvent} */ event) => {
      if ((event.ctrlKey || event.metaKey) && event.key === "k") {
        event.preventDefault();
        setDialog((/** @type {any} */ open) => open ?? { kind: "models" });
      }
    };
    addEventListener("hashchange", onHash);
    addEventListener("keydown", onKey);
    return () => (removeEventListener("hashchange", onHash), removeEventListener("keydown", onKey));
  }, []);
  useEffect(() => {
    const timer = setInterval(() => document.hidden || refresh(), isUp ? POLL_MS : RETRY_MS);
    return () => clearInterval(timer);
  }, [isUp]);
  useEffect(() => {
    document.documentElement.dataset.theme = theme;
  }, [theme]);
  useEffect(() => {
    document.title = `${TITLES[/** @type {keyof typeof TITLES} */ (shown)]} · ${model?.id ?? "gnano"}`;
  }, [shown, model?.id]);

  const go = (/** @type {string} */ view, /** @type {string} */ id = "") => {
    if (id) setModelId(id);
    location.hash = view;
  };
  const takeKey = (/** @type {string | null} */ key) => {
    if (key) saveKey(key);
    isKeyRefused.current = !key;
    setLocked(!key);
    dialog.resolve(key);
    close();
  };
  const unlock = () => ((isKeyRefused.current = false), refresh());
  const app = { models: models ?? [], isLoaded: models !== null, model, settings, theme, view: shown, go, refresh };
  visited.current.add(shown);
  const close = () => setDialog(null);
  const nextTheme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];

  return html`
    <header class="top">
      <a class="brand" href="#chat">gnano</a>
      <nav aria-label="Views">${Object.keys(VIEWS).map((name) => html`<a key=${name} href="#${name}" aria-current=${name === shown ? "page" : null}>${TITLES[/** @type {keyof typeof TITLES} */ (name)]}</a>`)}</nav>
      <button type="button" class="picker" aria-haspopup="dialog" title="Choose a model (Ctrl+K)" onClick=${() => setDialog({ kind: "models" })}>
        <b>${model?.id ?? "no model"}</b>${model && html`<span>${describeModel(model)}</span>`}</button>
      <${IconButton} icon="sliders" label="Sampling settings" onClick=${() => setDialog({ kind: "settings" })} />
      <${IconButton} icon=${theme} label="Theme: ${theme}; switch to ${nextTheme}" onClick=${() => setTheme(nextTheme)} />
    </header>
    ${!isUp && html`<p class="banner" role="status">The server does not answer. This page keeps what you have and reconnects by itself.</p>`}
    ${isUp && isLocked && html`<p class="banner" role="status">This server needs a key. <button type="button" onClick=${unlock}>Enter it</button></p>`}
    ${Object.entries(VIEWS).map(([name, View]) => html`<main key=${name} class=${name} hidden=${name !== shown}>
      ${visited.current.has(name) && html`<${View} app=${app} isShown=${name === shown} />`}</main>`)}
    ${dialog?.kind === "models" && html`<${ModelPicker} models=${app.models} current=${model?.id} onClose=${close} onPick=${(/** @type {string} */ id) => (setModelId(id), close())} />`}
    ${dialog?.kind === "settings" && html`<${Settings} settings=${settings} onChange=${setSettings} onClose=${close} />`}
    ${dialog?.kind === "key" && html`<${KeyPrompt} wasWrong=${dialog.wasWrong} onDone=${takeKey} />`}`;
}

/** @param {any} props */
function KeyPrompt({ wasWrong, onDone }) {
  const input = useRef(/** @type {any} */ (null));
  const onSubmit = (/** @type {Event} */ event) => (event.preventDefault(), onDone(input.current.value.trim() || null));
  return html`<${Dialog} title="Key" class="key" onClose=${() => onDone(null)}><form onSubmit=${onSubmit}>
    <label for="key">${wasWrong ? "The server does not accept this key." : "This server needs the key that it was started with (--api-key)."}</label>
    <input id="key" type="password" autocomplete="off" autofocus ref=${input} />
    <footer><button class="primary">Use it</button></footer></form></${Dialog}>`;
}

render(html`<${App} />`, document.body);
