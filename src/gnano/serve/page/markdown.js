// @ts-check
/** Markdown as elements: marked reads it, and no HTML of the model ever reaches the page. */

import { lexer } from "./vendor/marked.js";
import { Component, html } from "./vendor/preact-htm.js";
import { CopyButton } from "./ui.js";

/** @param {any[]} tokens @returns {any} */
const inline = (tokens) => (tokens ?? []).map(renderInline);

/** @param {any} token */
function renderInline(token) {
  switch (token.type) {
    case "strong": return html`<strong>${inline(token.tokens)}</strong>`;
    case "em": return html`<em>${inline(token.tokens)}</em>`;
    case "del": return html`<del>${inline(token.tokens)}</del>`;
    case "codespan": return html`<code>${token.text}</code>`;
    case "br": return html`<br />`;
    case "link":
      if (!/^(https?|mailto):/i.test(token.href)) return token.raw;
      return html`<a href=${token.href} target="_blank" rel="noopener noreferrer">${inline(token.tokens)}</a>`;
    case "text": return token.tokens ? inline(token.tokens) : token.text;
    case "escape": return token.text;
    default: return token.raw; // images and HTML are shown as they were written
  }
}

/** @param {any} token @returns {any} */
function renderBlock(token) {
  switch (token.type) {
    case "space": case "def": return null;
    case "hr": return html`<hr />`;
    case "heading": return html`<p class="heading" role="heading" aria-level=${token.depth + 2}>${inline(token.tokens)}</p>`;
    case "code":
      return html`<div class="code"><${CopyButton} text=${token.text} /><pre><code>${token.text}</code></pre></div>`;
    case "blockquote": return html`<blockquote>${token.tokens.map(renderBlock)}</blockquote>`;
    case "list": {
      const items = token.items.map((/** @type {any} */ item) => html`<li>
        ${item.task && html`<input type="checkbox" disabled checked=${item.checked} />`}
        ${item.tokens.map(renderBlock)}</li>`);
      return token.ordered ? html`<ol start=${token.start}>${items}</ol>` : html`<ul>${items}</ul>`;
    }
    case "table":
      return html`<div class="wide"><table><thead><tr>${token.header.map(renderCell("th"))}</tr></thead>
        <tbody>${token.rows.map((/** @type {any} */ row) => html`<tr>${row.map(renderCell("td"))}</tr>`)}</tbody></table></div>`;
    case "paragraph": return html`<p>${inline(token.tokens)}</p>`;
    case "text": return token.tokens ? inline(token.tokens) : token.text;
    case "checkbox": return null;
    default: return html`<p class="raw">${token.raw}</p>`;
  }
}

/** @param {string} tag */
const renderCell = (tag) => (/** @type {any} */ cell) => html`<${tag}>${inline(cell.tokens)}</${tag}>`;

/** A block that is drawn again only if its text has changed. */
class Block extends Component {
  shouldComponentUpdate(/** @type {any} */ next) {
    return next.token.raw !== this.props.token.raw;
  }

  render() {
    return renderBlock(this.props.token);
  }
}

export class Markdown extends Component {
  shouldComponentUpdate(/** @type {any} */ next) {
    return next.text !== this.props.text;
  }

  render() {
    return lexer(this.props.text, { gfm: true, breaks: true }).map(
      (/** @type {any} */ token, /** @type {number} */ i) => html`<${Block} key=${i} token=${token} />`,
    );
  }
}
