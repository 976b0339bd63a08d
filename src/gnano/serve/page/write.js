// @ts-check
/**
 * Documents that a model continues. Each token of the model is tinted by its probability; another
 * token can be chosen in its place, from which the text goes on as a branch of the document's tree.
 */

import { postJson, streamText } from "./api.js";
import { samplingFields } from "./settings.js";
import { loadItems, newItem, removeItem, saveItem, saveOnLeave, saveSoon } from "./store.js";
import { TintedText, TokenCard, tokenUnder } from "./tinted_text.js";
import { bitsPerByte, keepUnchanged, placeTokens, readPromptTokens, readTokens } from "./tokens.js";
import { activePath, addNode, composeDocument, createTree, endAt, pathTo, walkBranches } from "./tree.js";
import { CopyButton, ErrorNote, Icon, IconButton, Sidebar, formatCount, isComposing, useFollow, useRedraw, useSaved } from "./ui.js";
import { html, useEffect, useRef, useState } from "./vendor/preact-htm.js";

const ALTERNATIVES = 10;
const REASONS = { stop: "the model ended the text", length: "reached the length", stopped: "stopped", interrupted: "interrupted by a reload" };
const LEGEND = ["≥ 50 %", "20–50 %", "5–20 %", "< 5 %"];

const newDocument = () => ({ ...newItem("document"), tree: createTree() });

/** Return the text, or the ids of its end if it leaves no room in the context.
 * @param {string} text @param {any} model @param {number} length @param {AbortSignal} signal */
async function fitPrompt(text, model, length, signal) {
  const { context } = model.x_gnano;
  const budget = Math.max(context - length, Math.floor(context / 2));
  // a token has at least one byte; one more token starts the document
  if (new TextEncoder().encode(text).length < budget) return text;
  const { tokens } = await postJson("/tokenize", { model: model.id, content: text }, { signal, isLogged: false });
  return tokens.length < budget ? text : tokens.slice(-budget);
}

/** Return the tokens of a text with their probabilities. A text that is longer than the context is
 * read in windows that overlap: behind the first window, each token comes after half a context.
 * @param {string} text @param {any} model @param {AbortSignal} signal */
async function scoreText(text, model, signal) {
  const { context } = model.x_gnano;
  const ask = async (/** @type {string | number[]} */ prompt, isLogged = true) => {
    const body = { model: model.id, prompt, max_tokens: 0, echo: true, logprobs: ALTERNATIVES };
    return (await postJson("/v1/completions", body, { signal, isLogged })).choices[0];
  };
  const content = { model: model.id, content: text, with_pieces: true };
  const { tokens: ids, pieces } = await postJson("/tokenize", content, { signal, isLogged: false });
  if (ids.length < context) return placeTokens(text, readPromptTokens(await ask(text)));
  const places = placeTokens(text, pieces.map((/** @type {string} */ piece) => ({ text: piece })));
  // the first window is text, which starts a document; it ends before a word, whose tokens stay
  let at = context - 1;
  while (at > context / 2 && !/^\s/.test(pieces[at])) at--;
  const head = text.slice(0, places[at].start);
  const scored = placeTokens(head, readPromptTokens(await ask(head)));
  const half = Math.floor(context / 2);
  while (at < ids.length) {
    const first = at - half;
    const found = readTokens(await ask(ids.slice(first, first + context), false)).slice(half);
    for (const token of found) scored.push({ ...token, start: places[at].start, end: places[at++].end });
  }
  return scored;
}

/** @param {{app: any, isShown: boolean}} props */
export function Write({ app, isShown }) {
  const { model } = app;
  const [documents, setDocuments] = useState(/** @type {any[] | null} */ (null));
  const [currentId, setCurrentId] = useSaved("document", "");
  const [open, setOpen] = useState(""); // on a narrow screen: the list or the branches
  const [error, setError] = useState(/** @type {any} */ (null));
  const running = useRef(/** @type {Map<string, AbortController>} */ (new Map()));
  const latest = useRef(/** @type {any[] | null} */ (null));
  const redraw = useRedraw();
  latest.current = documents;

  useEffect(() => {
    loadItems("document").then((loaded) => {
      for (const { tree } of loaded) {
        for (const node of Object.values(tree.nodes)) if (/** @type {any} */ (node).status === "writing") /** @type {any} */ (node).status = "interrupted";
      }
      setDocuments(loaded.length ? loaded : [newDocument()]);
    });
    const saveAll = () => saveOnLeave("document", (latest.current ?? []).filter((item) => running.current.has(item.id)));
    addEventListener("pagehide", saveAll);
    return () => removeEventListener("pagehide", saveAll);
  }, []);
  const item = documents?.find((d) => d.id === currentId) ?? documents?.[0];
  const follow = useFollow(`${item?.id} ${isShown}`);
  if (!documents || !item) return null;

  // handlers call it again: several events may come before the next drawing
  const current = () => {
    const path = activePath(item.tree);
    return { path, last: path.at(-1), ...composeDocument(path) };
  };
  const { path, last, text, tokens } = current();
  const abort = running.current.get(item.id);
  const changed = () => {
    item.updated = Date.now();
    item.title = composeDocument(activePath(item.tree).slice(0, 2)).text.trim().slice(0, 60) || item.title;
    saveSoon(item);
    redraw();
  };
  /** Run a request that Escape stops. @param {(signal: AbortSignal) => Promise<void>} work */
  const run = async (work) => {
    const controller = new AbortController();
    running.current.set(item.id, controller);
    setError(null);
    changed();
    try {
      await work(controller.signal);
    } catch (reason) {
      if (!controller.signal.aborted) setError({ item: item.id, message: /** @type {any} */ (reason).message, requestId: /** @type {any} */ (reason).requestId });
    }
    running.current.delete(item.id);
    changed();
    saveItem(item);
  };

  /** Write on from a position of a node's document. @param {string} parent @param {number} from
   * @param {number | null} seed @param {any} [head] the first token, where it is chosen */
  const write = (parent, from, seed, head) => run(async (signal) => {
    const fields = samplingFields(app.settings);
    if (seed !== null) fields.seed = seed;
    const before = composeDocument(pathTo(item.tree, parent)).text.slice(0, from);
    const placed = head ? { ...head, start: from, end: from + head.text.length } : null;
    const node = addNode(item.tree, parent, { kind: "model", from, text: head?.text ?? "", tokens: placed ? [placed] : [], head, status: "writing", model: model.id, seed: fields.seed });
    changed();
    saveItem(item); // what was typed is not lost, whatever happens next
    follow.toEnd();
    let firstAt = 0;
    try {
      const prompt = await fitPrompt(before + node.text, model, fields.max_tokens, signal);
      if (typeof prompt !== "string") node.read = prompt.length;
      for await (const part of streamText({ model: model.id, prompt, ...fields, logprobs: ALTERNATIVES }, signal)) {
        firstAt ||= performance.now();
        // a text field has no carriage returns, and positions must stay
        const piece = part.text.replace(/\r/g, "\n");
        node.tokens.push(...placeTokens(piece, part.tokens.map((t) => ({ ...t, text: t.text.replace(/\r/g, "\n") })), from + node.text.length));
        node.text += piece;
        node.model = part.from;
        node.reason = part.reason ?? node.reason;
        node.usage = part.usage ?? node.usage;
        changed();
      }
      node.status = "done";
    } catch (reason) {
      node.status = signal.aborted ? "stopped" : "error";
      throw reason;
    } finally {
      const count = node.usage?.completion_tokens;
      if (count > 1) node.speed = (1000 * (count - 1)) / (performance.now() - firstAt);
    }
  });
  const canRun = Boolean(model) && !abort;
  const goOn = () => {
    const { last, text } = current();
    return canRun && write(last?.id ?? "root", text.length, null);
  };
  const again = () => {
    // a fixed seed would write the same text
    const seed = app.settings.seed === "" ? null : Number(app.settings.seed) + item.tree.nodes[last.parent].children.length;
    write(last.parent, last.from, seed, last.head);
  };
  const branch = (/** @type {any} */ token, /** @type {any} */ alternative) => {
    const owner = path.findLast((node) => node.from <= token.start);
    const parent = owner.from === token.start && owner.kind === "model" ? owner.parent : owner.id;
    write(parent, token.start, owner.seed ?? null, { ...alternative, top: token.top });
  };
  const score = () => canRun && run(async (signal) => {
    last.scored = await scoreText(text, model, signal);
    last.score = { ...bitsPerByte(text, last.scored), model: model.id };
  });
  const edit = (/** @type {string} */ value) => {
    const { last, text } = current();
    let same = 0;
    while (same < text.length && text[same] === value[same]) same++;
    if (last?.kind === "you" && !last.children.length) {
      // what was typed is one node, also where it reaches back into an earlier text
      last.from = Math.min(last.from, same);
      last.text = value.slice(last.from);
      if (last.scored) last.scored = keepUnchanged(last.scored, text, value);
      last.score = undefined;
    } else addNode(item.tree, last?.id ?? "root", { kind: "you", from: same, text: value.slice(same), tokens: [] });
    if (!documents.includes(item)) documents.unshift(item);
    changed();
  };

  const start = () => {
    const blank = documents.find((d) => !d.tree.count) ?? newDocument();
    setDocuments([blank, ...documents.filter((d) => d !== blank)]);
    setCurrentId(blank.id);
  };
  const remove = (/** @type {string} */ id) => {
    running.current.get(id)?.abort();
    removeItem(id);
    const rest = documents.filter((d) => d.id !== id);
    setDocuments(rest.length ? rest : [newDocument()]);
  };
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    if (isComposing(event)) return;
    if (event.key === "Escape") abort?.abort();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) (event.preventDefault(), goOn());
  };
  const branches = [...walkBranches(item.tree)];
  const hasBranches = branches.some(([, indent]) => indent > 0);

  return html`<div class="with-sidebar ${hasBranches ? "with-branches" : ""}" onKeyDown=${onKey}>
    <${Sidebar} title="Documents" noun="document" items=${documents} current=${item.id} onOpen=${setCurrentId} onNew=${start} onRemove=${remove}
      isOpen=${open === "list"} onClose=${() => setOpen("")} />
    <section class="column" aria-label="Document">
      <div class="scroll" ref=${follow.ref} onScroll=${follow.onScroll}><div class="sheet">
        <div class="narrow-bar"><${IconButton} icon="list" label="Documents" class="quiet narrow-only opener" onClick=${() => setOpen("list")} />
          ${hasBranches && html`<button type="button" class="medium-only" onClick=${() => setOpen("branches")}>Branches</button>`}</div>
        ${model?.x_gnano.has_chat_template && !text && html`<p class="note">${model.id} is tuned to chat. It continues text, too; a base model does it best.</p>`}
        <${Field} key=${item.id} text=${text} tokens=${tokens} isBusy=${Boolean(abort)} isShown=${isShown} model=${model} onEdit=${edit} onBranch=${canRun ? branch : null} scroller=${follow.ref} />
        ${error?.item === item.id && html`<${ErrorNote} error=${error} onRetry=${last?.status === "error" && canRun ? again : null} />`}
      </div></div>
      ${!follow.isFollowing && html`<button type="button" class="to-end" aria-label="Scroll to the end" onClick=${follow.toEnd}><${Icon} name="down" /></button>`}
      <div class="bar"><div class="actions">
        ${abort ? html`<button type="button" class="primary" title="Stop (Esc)" onClick=${() => abort.abort()}><${Icon} name="stop" />Stop</button>`
          : html`<button type="button" class="primary" title="Continue (Ctrl+Enter)" disabled=${!model} onClick=${goOn}>Continue</button>`}
        <button type="button" title="Write another continuation; this one stays a branch" disabled=${!canRun || last?.kind !== "model"} onClick=${again}>Again</button>
        <button type="button" title="How well the model predicts each token of this text" disabled=${!canRun || !text} onClick=${score}>Score my text</button>
        <${CopyButton} text=${text} label="Copy the document" />
        <ul class="tint-legend" aria-label="Probability of a token">${LEGEND.map((label, i) => html`<li key=${label}><i class="t${i}"></i>${label}</li>`)}</ul></div>
        <p class="status" role="status">${describe(last, text, Boolean(abort))}</p></div>
    </section>
    ${hasBranches && html`<${Branches} branches=${branches} path=${path} isOpen=${open === "branches"} onClose=${() => setOpen("")} isBusy=${Boolean(abort)}
      onPick=${(/** @type {string} */ id) => (endAt(item.tree, id), changed())} />`}</div>`;
}

/** @param {any} node @param {string} text @param {boolean} isBusy */
function describe(node, text, isBusy) {
  if (isBusy) return node?.status === "writing" ? "Writing. Esc stops." : "Scoring. Esc stops.";
  if (node?.score) {
    const { bits, bytes, tokens, model } = node.score;
    return html`<b>${bits.toFixed(3)} bits per byte</b> · ${formatCount(bytes)} bytes · ${formatCount(tokens)} tokens · ${model}`;
  }
  if (/[ \t]$/.test(text)) return "The text ends with a space. Most tokens begin with theirs: remove it for a likelier continuation.";
  if (node?.kind !== "model") return "Ctrl+Enter continues the text.";
  return [
    node.model,
    REASONS[/** @type {keyof typeof REASONS} */ (node.status === "done" ? node.reason : node.status)],
    node.usage && `${formatCount(node.usage.completion_tokens)} tokens`,
    node.speed && `${node.speed.toFixed(node.speed < 10 ? 1 : 0)} tokens/s`,
    node.read && `read the last ${formatCount(node.read)} tokens`,
    `seed ${node.seed}`,
  ].filter(Boolean).join(" · ");
}

/** The text field over the tinted text, and the card of the token that is pointed at. @param {any} props */
function Field({ text, tokens, isBusy, isShown, model, onEdit, onBranch, scroller }) {
  const [at, setAt] = useState(/** @type {{index: number, rect: DOMRect} | null} */ (null));
  const input = useRef(/** @type {any} */ (null));
  const timer = useRef(0);
  const later = (/** @type {any} */ next, delay = 180) => {
    clearTimeout(timer.current);
    timer.current = setTimeout(() => setAt(next), delay);
  };
  const close = () => later(null, 0);
  useEffect(() => {
    if (isShown && matchMedia("(hover: hover)").matches) input.current.focus();
  }, [isShown]);
  useEffect(() => {
    scroller.current?.addEventListener("scroll", close);
    return () => (clearTimeout(timer.current), scroller.current?.removeEventListener("scroll", close));
  }, []);
  const onPoint = (/** @type {any} */ event) => {
    const found = tokenUnder(event.clientX, event.clientY);
    if (found?.index !== at?.index) later(found, event.type === "click" ? 0 : 180);
    else clearTimeout(timer.current);
  };
  const onCaret = (/** @type {KeyboardEvent} */ event) => {
    if (!/^(Arrow|Home|End|Page)/.test(event.key) || input.current.selectionStart !== input.current.selectionEnd) return;
    const caret = input.current.selectionStart;
    const index = tokens.findIndex((/** @type {any} */ t) => t.start <= caret && caret < t.end);
    const span = input.current.parentElement.querySelector(`[data-token="${index}"]`);
    later(span && { index, rect: span.getClientRects()[0] }, 0);
  };
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    if (event.key === "Escape" && at) (input.current.focus(), close());
  };
  const pick = (/** @type {any} */ token, /** @type {any} */ alternative) => {
    close();
    input.current.focus();
    onBranch(token, alternative);
  };
  const token = at && tokens[at.index];
  return html`<div class="field" onKeyDown=${onKey}>
    <${TintedText} text=${text} tokens=${tokens} isWriting=${isBusy} current=${at?.index} />
    <textarea ref=${input} aria-label="Document" spellcheck="false" readonly=${isBusy} aria-busy=${isBusy} value=${text}
      placeholder=${model ? `Begin a text; ${model.id} continues it.` : "No model is served."}
      onInput=${(/** @type {any} */ event) => (close(), onEdit(event.target.value))} onMouseMove=${onPoint} onMouseLeave=${() => later(null, 300)}
      onClick=${(/** @type {any} */ event) => event.pointerType === "touch" && onPoint(event)} onKeyUp=${onCaret}></textarea>
    ${token && html`<${TokenCard} key=${at.index} tokens=${tokens} index=${at.index} rect=${at.rect} onPick=${onBranch && pick}
      onEnter=${() => clearTimeout(timer.current)} onLeave=${() => later(null, 300)} onClose=${close} />`}</div>`;
}

/** @param {any} props */
function Branches({ branches, path, isOpen, onClose, isBusy, onPick }) {
  const current = path.at(-1)?.id;
  return html`<aside class="branches ${isOpen ? "open" : ""}" aria-label="Branches"><header><h2>Branches</h2>
      <${IconButton} icon="close" label="Close the branches" class="quiet medium-only" onClick=${onClose} /></header>
    <ul>${branches.filter(([node]) => node.text.trim()).map(([node, indent]) => html`<li key=${node.id} style=${{ paddingLeft: `${0.8 * Math.min(indent, 8)}rem` }}>
      <button type="button" class=${path.includes(node) ? "active" : ""} aria-current=${node.id === current} disabled=${isBusy} title=${node.kind === "model" ? `${node.model} · seed ${node.seed}` : "Your text"}
        onClick=${() => (onPick(node.id), onClose())}><i class=${node.kind}></i><span>${node.text.trim().slice(0, 80)}</span></button></li>`)}</ul></aside>`;
}
