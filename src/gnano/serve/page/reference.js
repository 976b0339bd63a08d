// @ts-check
/** The reference of the server's routes and fields, from its own `/openapi.json`. */

import { getJson } from "./api.js";
import { ErrorNote } from "./ui.js";
import { html, useEffect, useState } from "./vendor/preact-htm.js";

/** Follow a reference within the document. @param {any} document @param {any} schema */
function resolve(document, schema) {
  const path = schema.$ref?.split("/").slice(1) ?? [];
  return path.reduce((/** @type {any} */ found, /** @type {string} */ key) => found[key], schema.$ref ? document : schema);
}

/** Describe the type of a schema: text, list of integer, 0 to 1. @param {any} document @param {any} schema @returns {string} */
function describeType(document, schema) {
  const { anyOf, type, items, enum: values, minimum, maximum } = resolve(document, schema);
  if (anyOf) return [...new Set(anyOf.map((/** @type {any} */ one) => describeType(document, one)))].filter(Boolean).join(" or ");
  if (values) return values.join(", ");
  const name = [type].flat().filter((one) => one !== "null").map((one) => (one === "string" ? "text" : one === "array" ? "list" : one)).join(" or ");
  if (items) return `${name} of ${describeType(document, { ...items, minimum: undefined })}`;
  const range = minimum !== undefined && maximum !== undefined ? `${minimum} to ${maximum}` : minimum !== undefined ? `at least ${minimum}` : "";
  return [name, range].filter(Boolean).join(", ");
}

/** @param {any} props */
function Operation({ document, method, path, operation }) {
  const schema = operation.requestBody?.content["application/json"].schema;
  const fields = [
    ...(operation.parameters ?? []).map((/** @type {any} */ one) => ({ ...one, isRequired: one.required })),
    ...Object.entries(schema?.properties ?? {}).map(([name, one]) => ({ name, schema: one, isRequired: schema.required?.includes(name) })),
  ];
  return html`<details><summary><b>${method.toUpperCase()}</b> <code>${path}</code> <small>${operation.summary}</small></summary>
    ${fields.length > 0 && html`<div class="wide"><table><thead><tr><th>Field</th><th>Value</th><th>Default</th><th></th></tr></thead>
      <tbody>${fields.map(({ name, schema: field, isRequired }) => html`<tr key=${name}><td><code>${name}</code></td><td>${describeType(document, field)}</td>
        <td>${isRequired ? "required" : JSON.stringify(resolve(document, field).default)}</td><td>${resolve(document, field).description}</td></tr>`)}</tbody></table></div>`}</details>`;
}

export function Reference() {
  const [document, setDocument] = useState(/** @type {any} */ (null));
  const [error, setError] = useState(/** @type {any} */ (null));
  useEffect(() => {
    getJson("/openapi.json", { isLogged: false }).then(setDocument, setError);
  }, []);
  return html`<section class="reference" aria-label="Reference"><header><h2>Reference</h2></header>
    ${error && html`<${ErrorNote} error=${error} />`}
    ${document && Object.entries(document.paths).flatMap(([path, item]) => Object.entries(item).map(([method, operation]) => html`<${Operation} key="${method} ${path}"
      document=${document} method=${method} path=${path} operation=${operation} />`))}
    <p><small>An error is an object with <code>message</code>, <code>type</code>, <code>param</code> and <code>code</code>. <a href="/openapi.json" target="_blank" rel="noopener">openapi.json</a> has the same for programs.</small></p></section>`;
}
