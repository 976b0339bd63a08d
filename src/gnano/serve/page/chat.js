// @ts-check
/**
 * Chats with a tuned model. A chat is a tree: an edited question or another answer is a branch.
 *
 * All of a chat is saved while it is written, so that a reload or a crash loses nothing.
 */

import { postJson, streamText } from "./api.js";
import { Markdown } from "./markdown.js";
import { samplingFields } from "./settings.js";
import { loadItems, newItem, removeItem, saveItem, saveOnLeave, saveSoon } from "./store.js";
import { activate, activePath, addNode, createTree, pathTo } from "./tree.js";
import { CopyButton, ErrorNote, Icon, IconButton, Sidebar, download, formatCount, isComposing, useFollow, useRedraw, useSaved } from "./ui.js";
import { html, useEffect, useLayoutEffect, useRef, useState } from "./vendor/preact-htm.js";

const REASONS = { stop: "ended", length: "reached the length", stopped: "stopped", interrupted: "interrupted by a reload" };

const CUT = ["stopped", "interrupted", "error"]; // training can leave out such answers

const newChat = () => ({ ...newItem("chat"), system: "", tree: createTree() });

/** Return messages as the API takes them, without questions that got no answer.
 * @param {any} chat @param {any[]} path @param {(node: any) => any} describe further fields of a message */
function toMessages(chat, path, describe = () => ({})) {
  const system = chat.system.trim() ? [{ role: "system", content: chat.system.trim() }] : [];
  const said = path.filter((node, i) => node.content.trim() && (path[i + 1] ?? node).content.trim());
  return [...system, ...said.map((node) => ({ role: node.role, content: node.content, ...describe(node) }))];
}

/**
 * Drop the oldest exchanges until the rest leaves room for an answer, as `gnano chat` does.
 * @param {any} chat @param {any[]} path @param {any} model @param {number} length @param {AbortSignal} signal
 */
async function fitContext(chat, path, model, length, signal) {
  const { context } = model.x_gnano;
  const budget = Math.max(context - length, Math.floor(context / 2));
  // what an earlier answer did not see stays forgotten
  let first = Math.max(0, ...path.map((node) => node.forgotten ?? 0));
  for (; first + 2 < path.length; first += 2) {
    const messages = toMessages(chat, path.slice(first));
    const { tokens } = await postJson("/apply-template", { model: model.id, messages }, { signal, isLogged: false });
    if (tokens.length <= budget) break;
  }
  return first;
}

/** Return training records of finished exchanges, one chat a line, as `gnano sft` reads them. @param {any[]} chats */
function exportRecords(chats) {
  return chats.map((chat) => {
    const path = activePath(chat.tree);
    while (path.length && !(path.at(-1).role === "assistant" && path.at(-1).content.trim())) path.pop();
    const messages = toMessages(chat, path, (node) => (CUT.includes(node.status) ? { stopped: true } : {}));
    return path.length ? `${JSON.stringify({ messages })}\n` : "";
  }).join("");
}

/** Return the chats of a file of training records. @param {string} text */
function importRecords(text) {
  return text.split("\n").filter((line) => line.trim()).map((line) => {
    const chat = newChat();
    let parent = "root";
    for (const { role, content, stopped } of JSON.parse(line).messages) {
      if (role === "system") chat.system = content;
      else parent = addNode(chat.tree, parent, { role, content, status: stopped ? "stopped" : "done" }).id;
    }
    chat.title = activePath(chat.tree)[0]?.content.slice(0, 60) ?? "";
    return chat;
  });
}

/** @param {{app: any, isShown: boolean}} props */
export function Chat({ app, isShown }) {
  const { model } = app;
  const [chats, setChats] = useState(/** @type {any[] | null} */ (null));
  const [currentId, setCurrentId] = useSaved("chat", "");
  const [isListOpen, setListOpen] = useState(false);
  const [editing, setEditing] = useState("");
  const [note, setNote] = useState("");
  const running = useRef(/** @type {Map<string, AbortController>} */ (new Map()));
  const redraw = useRedraw();

  useEffect(() => {
    loadItems("chat").then((loaded) => {
      for (const chat of loaded) {
        const cut = Object.values(chat.tree.nodes).filter((node) => node.status === "writing");
        for (const node of cut) node.status = "interrupted";
        if (cut.length) saveItem(chat);
      }
      setChats(loaded.length ? loaded : [newChat()]);
    });
    const saveAll = () => saveOnLeave("chat", (latest.current ?? []).filter((chat) => running.current.has(chat.id)));
    addEventListener("pagehide", saveAll);
    return () => removeEventListener("pagehide", saveAll);
  }, []);
  const latest = useRef(/** @type {any[] | null} */ (null));
  latest.current = chats;
  const chat = chats?.find((c) => c.id === currentId) ?? chats?.[0];
  useEffect(() => {
    // wherever the focus is, but for a dialog, which Escape closes
    const onKey = (/** @type {KeyboardEvent} */ event) => {
      if (event.key === "Escape" && isShown && !isComposing(event) && !document.querySelector("dialog[open]")) running.current.get(chat?.id)?.abort();
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, [chat?.id, isShown]);
  const follow = useFollow(`${chat?.id} ${isShown}`);
  if (!chats || !chat) return null;

  const path = activePath(chat.tree);
  const abort = running.current.get(chat.id);
  const changed = () => {
    chat.updated = Date.now();
    saveSoon(chat);
    redraw();
  };

  /** Write an answer below a question. @param {string} parent */
  const answer = async (parent) => {
    const asked = pathTo(chat.tree, parent);
    const fields = samplingFields(app.settings);
    const node = addNode(chat.tree, parent, { role: "assistant", content: "", status: "writing", model: model.id, seed: fields.seed });
    const controller = new AbortController();
    running.current.set(chat.id, controller);
    changed();
    saveItem(chat); // the question is not lost, whatever happens next
    follow.toEnd();
    let firstAt = 0;
    try {
      node.forgotten = await fitContext(chat, asked, model, fields.max_tokens, controller.signal);
      const messages = toMessages(chat, asked.slice(node.forgotten));
      for await (const part of streamText({ model: model.id, messages, ...fields }, controller.signal)) {
        if (part.text) firstAt ||= performance.now();
        node.content += part.text;
        node.model = part.from;
        node.reason = part.reason ?? node.reason;
        node.usage = part.usage ?? node.usage;
        changed();
      }
      node.status = "done";
    } catch (error) {
      const { message, requestId } = /** @type {any} */ (error);
      node.status = controller.signal.aborted ? "stopped" : "error";
      if (node.status === "error") node.error = { message, requestId };
    }
    const seconds = (performance.now() - firstAt) / 1000;
    if (node.usage?.completion_tokens > 1 && firstAt) node.speed = (node.usage.completion_tokens - 1) / seconds;
    running.current.delete(chat.id);
    changed();
    saveItem(chat);
  };
  const ask = (/** @type {string} */ content, /** @type {string} */ parent) => {
    const node = addNode(chat.tree, parent, { role: "user", content, status: "done" });
    chat.title ||= content.slice(0, 60);
    if (!chats.includes(chat)) chats.unshift(chat);
    answer(node.id);
  };
  const start = () => {
    const blank = chats.find((c) => !c.tree.count) ?? newChat();
    setChats([blank, ...chats.filter((c) => c !== blank)]);
    setCurrentId(blank.id);
  };
  const remove = (/** @type {string} */ id) => {
    running.current.get(id)?.abort();
    removeItem(id);
    const rest = chats.filter((c) => c.id !== id);
    setChats(rest.length ? rest : [newChat()]);
  };
  const importFile = async (/** @type {any} */ event) => {
    try {
      const read = importRecords(await event.target.files[0].text());
      await Promise.all(read.map(saveItem));
      setChats([...read, ...chats]);
      setCurrentId(read[0].id);
      setNote("");
    } catch {
      setNote("This file has no lines of the form {\"messages\": [{\"role\", \"content\"}, …]}.");
    }
    event.target.value = "";
  };
  const forgotten = path.findLast((node) => node.forgotten !== undefined)?.forgotten ?? 0;
  const lastUsage = path.findLast((node) => node.usage)?.usage;
  const lastQuestion = path.findLast((node) => node.role === "user");

  return html`<div class="with-sidebar">
    <${Sidebar} title="Chats" noun="chat" items=${chats} current=${chat.id} onOpen=${setCurrentId} onNew=${start} onRemove=${remove}
      isOpen=${isListOpen} onClose=${() => setListOpen(false)}>
      <button type="button" onClick=${() => download(`${chat.id}.jsonl`, exportRecords([chat]))}>Export this chat</button>
      <button type="button" onClick=${() => download("chats.jsonl", exportRecords(chats))}>Export all</button>
      <label class="button">Import<input type="file" accept=".jsonl,.json" class="offscreen" onChange=${importFile} /></label>
      <small>One JSON record a line, as gnano sft reads them.</small>
      ${note && html`<p class="error" role="alert">${note}</p>`}
    </${Sidebar}>
    <section class="column" aria-label="Chat">
      <div class="scroll" ref=${follow.ref} onScroll=${follow.onScroll}><div class="messages">
        <${IconButton} icon="list" label="Chats" class="quiet narrow-only opener" onClick=${() => setListOpen(true)} />
        ${model && !model.x_gnano.has_chat_template && html`<p class="note">${model.id} is a base model: it continues text and has not learned to answer. <a href="#write">Write</a> with it, or choose a tuned model.</p>`}
        <details class="system" open=${Boolean(chat.system)}><summary>System text</summary>
          <textarea aria-label="System text" rows="2" placeholder="What the model is told before the first question" value=${chat.system}
            onInput=${(/** @type {any} */ e) => ((chat.system = e.target.value), changed())}></textarea></details>
        ${!path.length && html`<div class="welcome"><h1>${model ? `Ask ${model.id}` : app.isLoaded ? "No model is served" : ""}</h1><p>Everything stays in this browser and on this server.</p></div>`}
        ${path.map((node, i) => html`<${Message} key=${node.id} node=${node} chat=${chat} isLast=${i === path.length - 1} isBusy=${Boolean(abort)}
          isForgotten=${i < forgotten} isFirstSeen=${i > 0 && i === forgotten} isEditing=${editing === node.id}
          onEdit=${setEditing} onAnswer=${answer} onAsk=${ask} onSelect=${(/** @type {string} */ id) => (activate(chat.tree, id), changed())} />`)}
      </div></div>
      ${!follow.isFollowing && html`<button type="button" class="to-end" aria-label="Scroll to the end" onClick=${follow.toEnd}><${Icon} name="down" /></button>`}
      <${Composer} key=${chat.id} model=${model} isBusy=${Boolean(abort)} onStop=${() => abort?.abort()} usage=${lastUsage} isShown=${isShown} isEditing=${Boolean(editing)}
        onSend=${(/** @type {string} */ text) => ask(text, path.at(-1)?.id ?? "root")} onEditLast=${() => lastQuestion && setEditing(lastQuestion.id)} />
      <${Announcer} node=${path.at(-1)} />
    </section></div>`;
}

/** @param {any} props */
function Composer({ model, isBusy, onSend, onStop, onEditLast, usage, isShown, isEditing }) {
  const [text, setText] = useState("");
  const input = useRef(/** @type {any} */ (null));
  useEffect(() => {
    // on a phone, the keyboard would cover the page
    if (isShown && !isEditing && matchMedia("(hover: hover)").matches) input.current.focus();
  }, [isShown, isEditing]);
  const send = () => {
    if (!text.trim() || isBusy || !model) return;
    onSend(text.trim());
    setText("");
  };
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    if (isComposing(event)) return;
    if (event.key === "Enter" && !event.shiftKey) (event.preventDefault(), send());
    if (event.key === "ArrowUp" && !text && !isBusy) (event.preventDefault(), onEditLast());
  };
  const used = usage ? usage.prompt_tokens + usage.completion_tokens : 0;
  return html`<form class="composer" onSubmit=${(/** @type {Event} */ e) => (e.preventDefault(), send())}>
    <div class="box"><textarea ref=${input} rows="1" aria-label="Question" placeholder="Ask something" value=${text} enterkeyhint="send"
      onInput=${(/** @type {any} */ e) => setText(e.target.value)} onKeyDown=${onKey}></textarea>
    ${isBusy
      ? html`<button type="button" class="round primary" aria-label="Stop" title="Stop (Esc)" onClick=${onStop}><${Icon} name="stop" /></button>`
      : html`<button class="round primary" aria-label="Send" title="Send (Enter)" disabled=${!text.trim() || !model}><${Icon} name="up" /></button>`}</div>
    <footer><span class="wide-only">Enter sends · Shift+Enter: new line · ↑ edits · Esc stops</span>
      ${usage && model && html`<span class="gauge" title="Tokens of the context that this chat takes"><meter aria-label="Context used" min="0" max=${model.x_gnano.context} high=${0.8 * model.x_gnano.context} value=${used}></meter> ${formatCount(used)} / ${formatCount(model.x_gnano.context)}</span>`}</footer>
  </form>`;
}

/** @param {any} props */
function Message({ node, chat, isLast, isBusy, isForgotten, isFirstSeen, isEditing, onEdit, onAnswer, onAsk, onSelect }) {
  const siblings = chat.tree.nodes[node.parent].children;
  const at = siblings.indexOf(node.id);
  const isUser = node.role === "user";
  if (isEditing) {
    return html`<${Editor} text=${node.content} onCancel=${() => onEdit("")} onDone=${(/** @type {string} */ text) => (onEdit(""), onAsk(text, node.parent))} />`;
  }
  return html`<article class="message ${node.role} ${isForgotten ? "forgotten" : ""}" aria-label=${isUser ? "Your question" : "Answer"}>
    ${isFirstSeen && html`<small class="mark">The context had no room for what is above.</small>`}
    ${isUser ? html`<p class="text">${node.content}</p>` : html`<div class="text ${node.status === "writing" ? "writing" : ""}"><${Markdown} text=${node.content} /></div>`}
    ${node.status === "error" && html`<${ErrorNote} error=${node.error} onRetry=${isBusy ? null : () => onAnswer(node.parent)} />`}
    <footer>
      ${siblings.length > 1 && html`<span class="siblings"><${IconButton} icon="left" label="Previous version" disabled=${at === 0} onClick=${() => onSelect(siblings[at - 1])} />
        ${at + 1}/${siblings.length}<${IconButton} icon="right" label="Next version" disabled=${at === siblings.length - 1} onClick=${() => onSelect(siblings[at + 1])} /></span>`}
      <${CopyButton} text=${node.content} />
      ${isUser ? html`<${IconButton} icon="edit" label="Edit as a branch" disabled=${isBusy} onClick=${() => onEdit(node.id)} />`
        : html`<${IconButton} icon="again" label="Answer again" disabled=${isBusy} onClick=${() => onAnswer(node.parent)} />`}
      ${!isUser && node.status !== "writing" && html`<small>${describeAnswer(node)}</small>`}
    </footer></article>`;
}

/** @param {any} node */
function describeAnswer(node) {
  const { usage } = node;
  const cached = usage?.prompt_tokens_details?.cached_tokens;
  return [
    node.model,
    node.status === "error" ? "" : REASONS[/** @type {keyof typeof REASONS} */ (node.status === "done" ? node.reason : node.status)],
    usage && `${formatCount(usage.completion_tokens)} tokens`,
    node.speed && `${node.speed.toFixed(node.speed < 10 ? 1 : 0)} tokens/s`,
    usage && `prompt ${formatCount(usage.prompt_tokens)}${cached ? ` (${formatCount(cached)} cached)` : ""}`,
    node.seed !== undefined && `seed ${node.seed}`,
  ].filter(Boolean).join(" · ");
}

/** @param {any} props */
function Editor({ text, onDone, onCancel }) {
  const input = useRef(/** @type {any} */ (null));
  useLayoutEffect(() => input.current.focus(), []);
  const done = () => input.current.value.trim() && onDone(input.current.value.trim());
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    if (isComposing(event)) return;
    if (event.key === "Enter" && !event.shiftKey) (event.preventDefault(), done());
    if (event.key === "Escape") (event.stopPropagation(), onCancel());
  };
  return html`<div class="editor"><textarea ref=${input} aria-label="Edit the question" rows="3" onKeyDown=${onKey}>${text}</textarea>
    <footer><button type="button" onClick=${onCancel}>Cancel</button><button type="button" class="primary" onClick=${done}>Ask as a branch</button></footer></div>`;
}

/** Tells a screen reader whole sentences, not tokens. @param {any} props */
function Announcer({ node }) {
  const told = useRef({ id: "", length: 0 });
  if (!node || node.role === "user") return html`<div class="offscreen" aria-live="polite"></div>`;
  if (told.current.id !== node.id) told.current = { id: node.id, length: node.status === "writing" ? 0 : node.content.length };
  const rest = node.content.slice(told.current.length);
  const end = node.status === "writing" ? (/^[\s\S]*[.!?:\n](?=\s)/.exec(rest)?.[0].length ?? 0) : rest.length;
  const sentence = useRef("");
  if (end) sentence.current = rest.slice(0, end);
  told.current.length += end;
  return html`<div class="offscreen" aria-live="polite">${sentence.current}</div>`;
}
