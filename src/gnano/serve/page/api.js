// @ts-check
/** Requests to the server: the key, errors as sentences, streamed texts, and a log of them all. */

import { readEvents } from "./sse.js";
import { readTokens } from "./tokens.js";

const KEY = "gnano-key";
const MAX_LOGGED = 20;

/** What the page asked, newest first.
 * @type {{id: number, method: string, path: string, body: any, status: number | string,
 *   requestId: string, ms: number}[]} */
export const log = [];
const hooks = {
  /** @type {() => void} */ logged: () => {},
  /** @type {(isUp: boolean) => void} */ connected: () => {},
  /** @type {(wasWrong: boolean) => Promise<string | null>} */ askKey: async () => null,
};
/** @type {Promise<string | null> | null} */
let asking = null;
let count = 0;

/** Be told of new log entries, of the connection, and when a key is needed. @param {any} changes */
export function configure(changes) {
  Object.assign(hooks, changes);
}

export class ApiError extends Error {
  /** @param {string} message @param {{status?: number, code?: string | null, requestId?: string}} facts */
  constructor(message, facts = {}) {
    super(message);
    this.status = facts.status ?? 0; // 0: no answer
    this.code = facts.code ?? null;
    this.requestId = facts.requestId ?? "";
  }
}

export function savedKey() {
  try {
    return localStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}

/** @param {string} key */
export function saveKey(key) {
  try {
    if (key) localStorage.setItem(KEY, key);
    else localStorage.removeItem(KEY);
  } catch {
    // a browser that keeps nothing asks again
  }
}

/**
 * Return the response, or raise ApiError; a missing key is asked for once for all requests.
 * @param {string} method @param {string} path @param {any} [body]
 * @param {{signal?: AbortSignal, isLogged?: boolean}} [options]
 * @returns {Promise<Response>}
 */
export async function request(method, path, body, options = {}) {
  const key = savedKey();
  const started = performance.now();
  const entry = { id: ++count, method, path, body, status: /** @type {any} */ ("…"), requestId: "", ms: 0 };
  if (options.isLogged ?? method === "POST") {
    log.unshift(entry);
    log.length = Math.min(log.length, MAX_LOGGED);
  }
  const finish = (/** @type {any} */ status) => {
    Object.assign(entry, { status, ms: performance.now() - started });
    hooks.logged();
  };
  /** @type {Response} */
  let response;
  try {
    response = await fetch(path, {
      method,
      signal: options.signal,
      headers: {
        ...(body ? { "content-type": "application/json" } : {}),
        ...(key ? { authorization: `Bearer ${key}` } : {}),
      },
      body: body ? JSON.stringify(body) : undefined,
    });
  } catch (error) {
    finish(options.signal?.aborted ? "stopped" : "no answer");
    if (options.signal?.aborted) throw error;
    hooks.connected(false);
    throw new ApiError("The server does not answer.");
  }
  hooks.connected(true);
  entry.requestId = response.headers.get("x-request-id") ?? "";
  finish(response.status);
  if (response.status === 401) {
    asking ??= hooks.askKey(key !== "").finally(() => (asking = null));
    if (await asking) return request(method, path, body, options);
  }
  if (!response.ok) throw await readError(response, entry.requestId);
  return response;
}

/** @param {Response} response @param {string} requestId */
async function readError(response, requestId) {
  const text = await response.text().catch(() => "");
  const facts = { status: response.status, requestId };
  try {
    const { message, code } = JSON.parse(text).error;
    return new ApiError(message, { ...facts, code });
  } catch {
    return new ApiError(text.slice(0, 200) || `The server answered with status ${response.status}.`, facts);
  }
}

/** @param {string} path @param {{signal?: AbortSignal, isLogged?: boolean}} [options] */
export async function getJson(path, options) {
  return (await request("GET", path, undefined, options)).json();
}

/** @param {string} path @param {any} body @param {{signal?: AbortSignal, isLogged?: boolean}} [options] */
export async function postJson(path, body, options) {
  return (await request("POST", path, body, options)).json();
}

/**
 * Yield the parts of a streamed text; the last has the reason and the usage.
 * @param {{messages?: any[], prompt?: string | number[], [field: string]: any}} body
 * @param {AbortSignal} [signal]
 * @returns {AsyncGenerator<{text: string, tokens: any[], reason: string | null, usage: any, from: string}>}
 */
export async function* streamText(body, signal) {
  const path = body.messages ? "/v1/chat/completions" : "/v1/completions";
  const whole = { ...body, stream: true, stream_options: { include_usage: true } };
  const response = await request("POST", path, whole, { signal });
  const requestId = response.headers.get("x-request-id") ?? "";
  let hasEnded = false;
  try {
    for await (const data of readEvents(response)) {
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ApiError(chunk.error.message, { code: chunk.error.code, requestId });
      const choice = chunk.choices?.[0] ?? {};
      hasEnded ||= Boolean(choice.finish_reason);
      yield {
        text: choice.delta?.content ?? choice.text ?? "",
        tokens: readTokens(choice),
        reason: choice.finish_reason ?? null,
        usage: chunk.usage ?? null,
        from: chunk.system_fingerprint, // the checkpoint, where the name is that of a run
      };
    }
  } catch (error) {
    if (error instanceof ApiError || signal?.aborted) throw error;
    hooks.connected(false);
    throw new ApiError("The connection broke while the answer was being written.", { requestId });
  }
  if (!hasEnded) throw new ApiError("The server ended the answer early.", { requestId });
}
