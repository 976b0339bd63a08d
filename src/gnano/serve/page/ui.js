// @ts-check
/** Small parts that several views share. */

import { html, useLayoutEffect, useReducer, useRef, useState } from "./vendor/preact-htm.js";

const ICONS = {
  copy: "M9 9h10v12H9zM5 15V3h10",
  done: "M4 13l5 5L20 6",
  again: "M20 11a8 8 0 1 0-2.3 6.2M20 4v7h-7",
  edit: "M4 20h4L19 9l-4-4L4 16zM13 7l4 4",
  close: "M6 6l12 12M18 6L6 18",
  left: "M15 5l-7 7 7 7",
  right: "M9 5l7 7-7 7",
  down: "M12 5v14M5 12l7 7 7-7",
  up: "M12 19V5M5 12l7-7 7 7",
  stop: "M7 7h10v10H7z",
  plus: "M12 5v14M5 12h14",
  bin: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  list: "M4 6h16M4 12h16M4 18h10",
  sliders: "M4 7h9M19 7h1M4 17h1M11 17h9M16 4.5v5M8 14.5v5",
  light: "M12 4V2M12 22v-2M4 12H2M22 12h-2M6 6L5 5M19 19l-1-1M6 18l-1 1M19 5l-1 1M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8z",
  dark: "M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5z",
  auto: "M12 3a9 9 0 1 0 0 18zM12 3a9 9 0 0 1 0 18",
};

/** @param {{name: keyof typeof ICONS}} props */
export function Icon({ name }) {
  return html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true"><path d=${ICONS[name]} /></svg>`;
}

/** A button that shows an icon; its label is for screen readers and the tooltip.
 * @param {any} props */
export function IconButton({ icon, label, ...rest }) {
  return html`<button type="button" class="quiet" aria-label=${label} title=${label} ...${rest}><${Icon} name=${icon} /></button>`;
}

/** Copy text also over http, where the browser has no clipboard object. @param {string} text */
export async function copyText(text) {
  if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea");
  const focused = /** @type {HTMLElement | null} */ (document.activeElement);
  area.value = text;
  area.className = "offscreen";
  // inside an open dialog: outside of it nothing can be selected
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
  focused?.focus();
}

/** @param {{text: string, label?: string}} props */
export function CopyButton({ text, label = "Copy" }) {
  const [isDone, setDone] = useState(false);
  const copy = async () => {
    await copyText(text);
    setDone(true);
    setTimeout(() => setDone(false), 1500);
  };
  return html`<${IconButton} icon=${isDone ? "done" : "copy"} label=${isDone ? "Copied" : label} onClick=${copy} />`;
}

/** A modal dialog; the browser keeps the focus inside and closes it on Escape. @param {any} props */
export function Dialog({ title, onClose, children, ...rest }) {
  const ref = useRef(/** @type {any} */ (null));
  // before the next key, which belongs to the dialog
  useLayoutEffect(() => {
    const dialog = ref.current;
    dialog.showModal();
    return () => {
      dialog.close();
      // Chromium gives the focus back, but what is typed goes nowhere until it is given again
      const focused = /** @type {HTMLElement | null} */ (document.activeElement);
      focused?.blur();
      focused?.focus();
    };
  }, []);
  const onClick = (/** @type {MouseEvent} */ event) => event.target === ref.current && onClose();
  return html`<dialog ref=${ref} aria-label=${title} onCancel=${onClose} onClick=${onClick} ...${rest}>
    <header><h2>${title}</h2><${IconButton} icon="close" label="Close" onClick=${onClose} /></header>${children}</dialog>`;
}

/** A state that the browser keeps. @template T @param {string} name @param {T} initial
 * @returns {[T, (value: T) => void]} */
export function useSaved(name, initial) {
  const [value, setValue] = useState(() => {
    try {
      const saved = JSON.parse(localStorage.getItem(`gnano-${name}`) ?? "null");
      if (saved === null) return initial;
      return typeof initial === "object" && !Array.isArray(initial) ? { ...initial, ...saved } : saved;
    } catch {
      return initial;
    }
  });
  const save = (/** @type {T} */ next) => {
    setValue(next);
    try {
      localStorage.setItem(`gnano-${name}`, JSON.stringify(next));
    } catch {
      // it lasts as long as the page
    }
  };
  return [value, save];
}

/** Return a function that draws the component again, at most once a frame. */
export function useRedraw() {
  const [, redraw] = useReducer((/** @type {number} */ n) => n + 1, 0);
  const frame = useRef(0);
  return () => {
    // a hidden tab has no frames
    if (document.hidden) redraw(0);
    else frame.current ||= requestAnimationFrame(() => ((frame.current = 0), redraw(0)));
  };
}

/** Keep an element scrolled to its end until the reader scrolls up; return its ref and handler.
 * @param {string} key of what is shown; a new one starts at the end */
export function useFollow(key) {
  const ref = useRef(/** @type {any} */ (null));
  const [isFollowing, setFollowing] = useState(true);
  const toEnd = () => {
    if (!ref.current) return; // nothing is loaded yet
    ref.current.scrollTop = ref.current.scrollHeight;
    setFollowing(true);
  };
  useLayoutEffect(toEnd, [key]);
  useLayoutEffect(() => {
    if (isFollowing && ref.current) ref.current.scrollTop = ref.current.scrollHeight;
  });
  const last = useRef(0);
  const onScroll = () => {
    const { scrollTop, scrollHeight, clientHeight } = ref.current;
    if (scrollHeight - scrollTop - clientHeight < 24) setFollowing(true);
    else if (scrollTop < last.current) setFollowing(false);
    last.current = scrollTop;
  };
  return { ref, onScroll, isFollowing, toEnd };
}

/** An error of a request with its id, and a button. @param {any} props */
export function ErrorNote({ error, onRetry }) {
  return html`<div class="error" role="alert"><p>${error.message}</p>
    <footer>${error.requestId && html`<small>request <code>${error.requestId}</code></small>`}
    ${onRetry && html`<button type="button" onClick=${onRetry}>Retry</button>`}</footer></div>`;
}

/** The items in a list at the side, with buttons to open, add and remove. @param {any} props */
export function Sidebar({ title, noun, items, current, onOpen, onNew, onRemove, isOpen, onClose, children }) {
  return html`<aside class=${isOpen ? "sidebar open" : "sidebar"} aria-label=${title}>
    <header><button type="button" class="new" onClick=${() => (onNew(), onClose())}><${Icon} name="plus" />New ${noun}</button>
      <${IconButton} icon="close" label="Close the list" class="quiet narrow-only" onClick=${onClose} /></header>
    <ul>${items.map((/** @type {any} */ item) => html`<li key=${item.id} class=${item.id === current ? "current" : ""}>
      <button type="button" aria-current=${item.id === current} onClick=${() => (onOpen(item.id), onClose())}>${item.title || `New ${noun}`}</button>
      <${IconButton} icon="bin" label="Delete “${item.title || `New ${noun}`}”" onClick=${() => confirm(`Delete “${item.title || `this ${noun}`}” with all its branches?`) && onRemove(item.id)} />
    </li>`)}</ul>
    <footer>${children}</footer></aside>`;
}

/** Offer a file to the reader. @param {string} name @param {string} text */
export function download(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/x-ndjson" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Whether Enter belongs to an input method that is composing a character. @param {KeyboardEvent} event */
export const isComposing = (event) => event.isComposing || event.keyCode === 229;

/** @param {number} value */
export const formatCount = (value) => value.toLocaleString("en-US");

/** Resolve a custom property, for a canvas. @param {string} name */
export function cssColor(name) {
  const probe = document.createElement("i");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const color = getComputedStyle(probe).color;
  probe.remove();
  return color;
}
