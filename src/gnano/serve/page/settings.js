// @ts-check
/** How the next token is sampled: the settings that all views share, and their dialog. */

import { Dialog } from "./ui.js";
import { html } from "./vendor/preact-htm.js";

export const DEFAULTS = {
  temperature: 0.8,
  top_p: 1,
  min_p: 0,
  top_k: 0,
  repetition_penalty: 1,
  max_tokens: 256,
  seed: "", // a number, or "": another one each time
};

const FIELDS = [
  ["temperature", "Temperature", 0, 2, 0.05, "0 always takes the most likely token."],
  ["top_p", "Top-p", 0.05, 1, 0.05, "Only the most likely tokens that together reach this probability."],
  ["min_p", "Min-p", 0, 0.5, 0.01, "Only tokens with this share of the highest probability."],
  ["top_k", "Top-k", 0, 200, 1, "Only so many of the most likely tokens; 0 means all."],
  ["repetition_penalty", "Repetition penalty", 1, 2, 0.05, "Makes tokens that are in the text less likely."],
  ["max_tokens", "Length", 1, 2048, 1, "The most tokens that are written at once."],
];

/** Return the fields of a request; a seed that is not set is drawn here, so that it is known.
 * @param {typeof DEFAULTS} settings */
export function samplingFields(settings) {
  const seed = settings.seed === "" ? Math.floor(Math.random() * 2 ** 31) : Number(settings.seed);
  return { ...settings, seed };
}

/** @param {{settings: any, onChange: (settings: any) => void, onClose: () => void}} props */
export function Settings({ settings, onChange, onClose }) {
  const set = (/** @type {string} */ name, /** @type {any} */ value) => onChange({ ...settings, [name]: value });
  const setNumber = (/** @type {any} */ name, /** @type {number} */ least, /** @type {number} */ most) => (/** @type {any} */ event) => {
    const value = event.target.valueAsNumber;
    if (Number.isFinite(value)) set(name, Math.min(most, Math.max(least, value)));
  };
  return html`<${Dialog} title="Sampling" class="settings" onClose=${onClose}>
    ${FIELDS.map(([name, label, least, most, step, help]) => html`<div class="field" key=${name}>
      <label for=${name}>${label}</label>
      <input type="number" id=${name} min=${least} max=${name === "max_tokens" ? 1e6 : most} step=${step} value=${settings[name]}
        aria-describedby="${name}-help" onChange=${setNumber(name, Number(least), name === "max_tokens" ? 1e6 : Number(most))} />
      <input type="range" aria-label=${label} min=${least} max=${most} step=${step} value=${settings[name]} onInput=${setNumber(name, Number(least), Number(most))} />
      <small id="${name}-help">${help}</small></div>`)}
    <div class="field"><label for="seed">Seed</label>
      <input type="number" id="seed" min="0" step="1" placeholder="random" value=${settings.seed} aria-describedby="seed-help"
        onInput=${(/** @type {any} */ event) => set("seed", /^\d+$/.test(event.target.value) ? event.target.value : "")} />
      <small id="seed-help">The same seed and prompt give the same text; empty means another one each time.</small></div>
    <footer><button type="button" onClick=${() => onChange(DEFAULTS)}>Reset</button></footer>
  </${Dialog}>`;
}
