// @ts-check
/** A text whose tokens are tinted by their probability, and the card that explains a token. */

import { brokenBytes, describeToken, isText, percent, tint } from "./tokens.js";
import { Component, html, useLayoutEffect, useRef, useState } from "./vendor/preact-htm.js";

const BLOCK = 128; // tokens that are drawn again only if one of them changes

/** Lies below the text field, letter for letter: it draws the colors, the field the text. @param {any} props */
export function TintedText({ text, tokens, isWriting }) {
  const blocks = [];
  let from = 0;
  for (let first = 0; first < tokens.length; first += BLOCK) {
    const part = tokens.slice(first, first + BLOCK);
    const end = part.at(-1).end;
    blocks.push(html`<${Block} key=${first} first=${first} from=${from} text=${text.slice(from, end)} tokens=${part} />`);
    from = end;
  }
  return html`<div class="tinted ${isWriting ? "busy" : ""}" aria-hidden="true">${blocks}${text.slice(from)}<i class="caret"></i></div>`;
}

// a span for each of thousands of tokens takes a browser 60 ms to draw: only blocks near the window have them
const observer = new IntersectionObserver(
  (entries) => entries.forEach(({ target, isIntersecting }) => /** @type {any} */ (target).block.setState({ isNear: isIntersecting })),
  /** @type {any} */ ({ scrollMargin: "100% 0px" }),
);

class Block extends Component {
  constructor() {
    super();
    this.state = { isNear: true };
  }

  componentDidMount() {
    const { base } = /** @type {any} */ (this);
    base.block = this;
    observer.observe(base);
  }

  componentWillUnmount() {
    observer.unobserve(/** @type {any} */ (this).base);
  }

  /** @param {any} next @param {any} state */
  shouldComponentUpdate(next, state) {
    const { text, from, tokens } = /** @type {any} */ (this).props;
    return state.isNear !== this.state.isNear || text !== next.text || from !== next.from || tokens.length !== next.tokens.length
      || tokens.some((/** @type {any} */ token, /** @type {number} */ i) => token !== next.tokens[i]);
  }

  /** @param {any} props @param {any} state */
  render({ first, from, text, tokens }, { isNear }) {
    if (!isNear) return html`<span>${text}</span>`;
    /** @type {any[]} */
    const parts = [];
    let at = from;
    tokens.forEach((/** @type {any} */ token, /** @type {number} */ i) => {
      if (token.end <= at) return; // another token of the same character, or a control token
      if (token.start > at) parts.push(text.slice(at - from, token.start - from));
      const level = tint(jointLogprob(tokensAt(tokens, i)));
      parts.push(html`<span data-token=${first + i} class=${level < 0 ? "" : `t${level}`}>${text.slice(token.start - from, token.end - from)}</span>`);
      at = token.end;
    });
    return html`<span>${parts}</span>`;
  }
}

/** Return the tokens that make the same character. @param {any[]} tokens @param {number} index */
function tokensAt(tokens, index) {
  let end = index + 1;
  while (end < tokens.length && tokens[end].start === tokens[index].start && brokenBytes(tokens[end].text)) end++;
  return tokens.slice(index, end);
}

/** @param {any[]} tokens */
function jointLogprob(tokens) {
  return tokens.some((token) => token.logprob === null) ? null : tokens.reduce((sum, token) => sum + token.logprob, 0);
}

/** Return the token that is drawn at a point of the window. @param {number} x @param {number} y */
export function tokenUnder(x, y) {
  const span = /** @type {HTMLElement | undefined} */ (document.elementsFromPoint(x, y).find((e) => e instanceof HTMLElement && e.dataset.token));
  if (!span) return null;
  // a token at the end of a line may have a part on the next
  const rects = [...span.getClientRects()];
  return { index: Number(span.dataset.token), rect: rects.find((r) => r.top <= y && y <= r.bottom) ?? rects[0] };
}

/** A token's probability and its alternatives. @param {any} props */
export function TokenCard({ tokens, index, rect, onPick, onEnter, onLeave, onClose }) {
  const [place, setPlace] = useState({ left: "0px", top: "0px" });
  const [nth, setNth] = useState(0);
  const ref = useRef(/** @type {any} */ (null));
  const group = tokensAt(tokens, index);
  const token = group[nth] ?? group[0];
  useLayoutEffect(() => {
    const { width, height } = ref.current.getBoundingClientRect();
    const isBelow = rect.bottom + height < innerHeight || rect.top < height;
    setPlace({
      left: `${Math.max(8, Math.min(rect.left - 16, innerWidth - width - 8))}px`,
      top: `${isBelow ? rect.bottom : rect.top - height}px`,
    });
  }, [rect, nth]);
  return html`<div class="card" ref=${ref} role="group" aria-label="Token ${describeToken(token.text)}" style=${place} onMouseEnter=${onEnter} onMouseLeave=${onLeave}
      onClick=${(/** @type {Event} */ event) => event.target === ref.current && onClose()}>
    <div class="inner"><header><code>${describeToken(token.text)}</code><b>${token.logprob === null ? "no probability" : percent(token.logprob)}</b></header>
    ${group.length > 1 && html`<div class="seg" role="group" aria-label="Tokens of this character">${group.map((part, i) => html`<button type="button" key=${i}
      aria-pressed=${i === nth} onClick=${() => setNth(i)}><code>${describeToken(part.text)}</code></button>`)}</div>`}
    ${brokenBytes(token.text) && html`<small>${group.length > 1 ? `Bytes of a character that ${group.length} tokens make.` : "Bytes that are not a whole character."}</small>`}
    <ul aria-label="Alternatives">${token.top.map((/** @type {any} */ other) => {
      const isChosen = other.text === token.text;
      const canPick = onPick && !isChosen && nth === 0 && isText(other.text);
      return html`<li key=${other.text}><button type="button" aria-current=${isChosen} disabled=${!canPick} onClick=${() => onPick(token, other)}
        title=${isChosen ? "This token is in the text" : isText(other.text) ? "Go on from here with this token" : "This token cannot be written as text"}>
        <code>${describeToken(other.text)}</code><i style=${{ width: `${100 * Math.exp(other.logprob)}%` }}></i><span>${percent(other.logprob)}</span></button></li>`;
    })}</ul></div></div>`;
}
