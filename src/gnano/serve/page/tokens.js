// @ts-check
/**
 * Tokens of a text with their log-probabilities, as the server reports them.
 *
 * @typedef {{text: string, logprob: number}} Alternative
 * @typedef {{text: string, logprob: number | null, top: Alternative[],
 *   start: number, end: number}} Token  `start` and `end` are positions in the document
 */

const BUCKETS = [0.5, 0.2, 0.05]; // a token below each probability is tinted more

/** Return 0 (likely) to 3 (surprising), or -1 without a probability. @param {number | null} logprob */
export function tint(logprob) {
  return logprob === null ? -1 : BUCKETS.filter((limit) => Math.exp(logprob) < limit).length;
}

/** Return the tokens of a choice of either endpoint, without positions. @param {any} choice */
export function readTokens(choice) {
  const found = choice.logprobs;
  if (!found) return [];
  const sorted = (/** @type {Alternative[]} */ top) => top.sort((a, b) => b.logprob - a.logprob);
  if (found.content) {
    return found.content.map((/** @type {any} */ t) => ({
      text: t.token,
      logprob: t.logprob,
      top: sorted((t.top_logprobs ?? []).map((/** @type {any} */ o) => ({ text: o.token, logprob: o.logprob }))),
    }));
  }
  return (found.tokens ?? []).map((/** @type {string} */ text, /** @type {number} */ i) => ({
    text,
    logprob: found.token_logprobs[i],
    top: sorted(
      Object.entries(found.top_logprobs?.[i] ?? {}).map(([text, logprob]) => ({ text, logprob })),
    ),
  }));
}

/** Return the bytes of a token that is not whole characters, else null. @param {string} text */
export function brokenBytes(text) {
  const found = /^bytes:((?:\\x[0-9a-f]{2})+)$/.exec(text);
  return found && found[1].split("\\x").slice(1).map((byte) => parseInt(byte, 16));
}

/** Whether a token can be written as text: not half a character, not a control token's name.
 * @param {string} text */
export const isText = (text) => !brokenBytes(text) && !/^<\|.*\|>$|^<\/?s>$|^<(unk|pad)>$/.test(text);

/** Return the tokens of a prompt that was sent with `echo`, without the one that starts a document.
 * @param {any} choice */
export function readPromptTokens(choice) {
  const tokens = readTokens(choice);
  const isStart = choice.logprobs.text_offset[1] === 0 && !brokenBytes(tokens[0].text);
  return isStart ? tokens.slice(1) : tokens;
}

/**
 * Place tokens in the text that they make. A character may be made of several tokens, whose own
 * texts are not in it: these share its position. A control token has no text, and an empty place.
 * @param {string} text @param {any[]} tokens @param {number} offset of the text in the document
 * @returns {Token[]}
 */
export function placeTokens(text, tokens, offset = 0) {
  let position = 0;
  /** @type {Token[]} */
  let group = [];
  /** @type {number[]} */
  let bytes = [];
  const closeGroup = () => {
    position = Math.min(text.length, position + new TextDecoder().decode(new Uint8Array(bytes)).length);
    for (const token of group) token.end = offset + position;
    group = [];
    bytes = [];
  };
  const placed = tokens.map((token) => {
    const broken = brokenBytes(token.text);
    if (!broken && group.length) closeGroup();
    const made = { ...token, start: offset + position, end: offset + position };
    if (broken) {
      group.push(made);
      bytes.push(...broken);
      if (isWhole(bytes)) closeGroup();
    } else {
      // a chat's answer is without the white space around it
      const own = text.startsWith(token.text, position) ? token.text : token.text.trimStart();
      if (text.startsWith(own, position)) position += own.length;
      made.end = offset + position;
    }
    return made;
  });
  closeGroup();
  return placed;
}

/** @param {number[]} bytes */
function isWhole(bytes) {
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(new Uint8Array(bytes));
    return true;
  } catch {
    return false;
  }
}

/** Return the tokens before the first difference: the others depend on what changed.
 * @param {Token[]} tokens @param {string} before @param {string} after */
export function keepUnchanged(tokens, before, after) {
  let same = 0;
  while (same < before.length && before[same] === after[same]) same++;
  return tokens.filter((token) => token.end <= same);
}

/** Return the first index at which the lists differ; the shortest length if none does.
 * @param {{text: string}[][]} lists */
export function firstDifference(lists) {
  const shortest = Math.min(...lists.map((list) => list.length));
  for (let i = 0; i < shortest; i++) {
    if (lists.some((list) => list[i].text !== lists[0][i].text)) return i;
  }
  return shortest;
}

/** Return bits per byte of the tokens that have a probability, and how many bytes these are.
 * @param {string} text @param {Token[]} tokens */
export function bitsPerByte(text, tokens) {
  const scored = tokens.filter((token) => token.logprob !== null);
  const bits = -scored.reduce((sum, token) => sum + Number(token.logprob), 0) / Math.LN2;
  // tokens that share a character share its position
  const spans = new Map(scored.map((token) => [token.start, token.end]));
  const encoder = new TextEncoder();
  let bytes = 0;
  for (const [start, end] of spans) bytes += encoder.encode(text.slice(start, end)).length;
  return { bits: bytes ? bits / bytes : NaN, bytes, tokens: scored.length };
}

/** Show white space and control characters. @param {string} text */
export function visible(text) {
  return text.replace(/ /g, "·").replace(/\n/g, "⏎").replace(/\t/g, "⇥") || "∅";
}

/** Show a token for a reader: its text with visible white space, or its bytes. @param {string} text */
export function describeToken(text) {
  return brokenBytes(text)?.map((byte) => byte.toString(16).toUpperCase().padStart(2, "0")).join(" ") ?? visible(text);
}

/** @param {number} logprob */
export function percent(logprob) {
  const share = 100 * Math.exp(logprob);
  return share >= 10 ? `${share.toFixed(0)} %` : share >= 0.1 ? `${share.toFixed(1)} %` : "< 0.1 %";
}
