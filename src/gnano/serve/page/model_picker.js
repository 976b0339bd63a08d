// @ts-check
/** The served models: what each is, and the dialog to choose one. */

import { Dialog, formatCount } from "./ui.js";
import { html, useEffect, useState } from "./vendor/preact-htm.js";

/** @typedef {{id: string, x_gnano: {context: number, vocab_size: number, parameters: number,
 *   step: number | null, run: string | null, has_chat_template: boolean, dtype: string,
 *   is_loaded: boolean}}} Model */

/** @param {Model} model */
export function describeModel(model) {
  const { step, parameters, has_chat_template, context } = model.x_gnano;
  const size = parameters >= 1e9 ? `${(parameters / 1e9).toFixed(2)} B` : parameters >= 1e6 ? `${(parameters / 1e6).toFixed(1)} M` : `${(parameters / 1e3).toFixed(0)} K`;
  return [
    has_chat_template ? "tuned" : "base",
    step !== null && step !== undefined && `step ${formatCount(step)}`,
    `${size} parameters`,
    `context ${formatCount(context)}`,
  ].filter(Boolean).join(" · ");
}

/** @param {any} props */
export function ModelPicker({ models, current, onPick, onClose }) {
  const [query, setQuery] = useState("");
  const found = models.filter((/** @type {Model} */ m) => `${m.id} ${describeModel(m)}`.toLowerCase().includes(query.toLowerCase()));
  const [at, setAt] = useState(Math.max(0, models.findIndex((/** @type {Model} */ m) => m.id === current)));
  const index = Math.min(at, found.length - 1);
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    const moved = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (moved) setAt(Math.max(0, Math.min(found.length - 1, index + moved)));
    else if (event.key === "Enter" && found[index]) onPick(found[index].id);
    else return;
    event.preventDefault();
  };
  useEffect(() => document.getElementById(`model-${index}`)?.scrollIntoView({ block: "nearest" }), [index]);
  return html`<${Dialog} title="Model" class="models" onClose=${onClose}>
    <input type="search" role="combobox" aria-expanded="true" aria-controls="model-list" aria-activedescendant="model-${index}" autofocus
      aria-label="Find a model" placeholder="Find a run or a step" value=${query} onKeyDown=${onKey} onInput=${(/** @type {any} */ e) => (setQuery(e.target.value), setAt(0))} />
    <ul role="listbox" id="model-list">${found.map((/** @type {Model} */ m, /** @type {number} */ i) => html`
      <li role="option" id="model-${i}" key=${m.id} aria-selected=${i === index} class=${m.id.includes("@") ? "step" : ""} onClick=${() => onPick(m.id)}>
        <b>${m.id}</b><small>${describeModel(m)}${m.x_gnano.is_loaded ? " · loaded" : ""}</small></li>`)}
      ${!found.length && html`<p class="note">No served model matches.</p>`}</ul></${Dialog}>`;
}
