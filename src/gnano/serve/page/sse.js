// @ts-check
/** Parses server-sent events; their text may be split at any place between two reads. */

export class EventParser {
  constructor() {
    this.rest = "";
    /** @type {string[]} */
    this.data = [];
  }

  /** Return the data of the events that `text` completes. @param {string} text */
  push(text) {
    /** @type {string[]} */
    const events = [];
    const lines = (this.rest + text).split(/\r\n|\n|\r(?!$)/);
    this.rest = lines.pop() ?? "";
    for (const line of lines) {
      if (line === "" && this.data.length) events.push(this.data.splice(0).join("\n"));
      else if (line.startsWith("data:")) this.data.push(line.slice(line[5] === " " ? 6 : 5));
    }
    return events;
  }
}

/** Yield the data of each event of a response. @param {Response} response */
export async function* readEvents(response) {
  const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
  const decoder = new TextDecoder();
  const parser = new EventParser();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield* parser.push(decoder.decode(value, { stream: true }));
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
