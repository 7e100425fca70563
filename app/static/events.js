// Server-sent events by fetch: an EventSource could not send the key.

import { fetchWithKey } from "./key.js";

const RETRY_MILLISECONDS = 1000;

// The data of each event, as the stream brings it; `seen.id` becomes the id of the last.
async function* events(body, seen) {
  let rest = "";
  for await (const text of texts(body)) {
    const blocks = (rest + text).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const fields = Object.fromEntries(block.split("\n").map((line) => {
        const colon = line.indexOf(": ");
        return [line.slice(0, colon), line.slice(colon + 2)];
      }));
      if (fields.id) seen.id = fields.id;
      if (fields.data) yield fields.data;
    }
  }
}

async function* texts(body) { // a stream that can be iterated over is not in every browser
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    yield value;
  }
}

async function shown() {
  while (document.hidden) await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
}

// Calls onData with the data of every event until the server says that no more will come, or onRefused with its answer
// if it refuses; after a break it goes on where it was. Returns a function that stops it. A hidden page holds no stream:
// all pages together have but six connections to a service.
export function listen(path, onData, onRefused) {
  const seen = { id: "" };
  let connection = new AbortController();
  let stopped = false;
  async function once() {
    connection = new AbortController();
    const headers = seen.id ? { "Last-Event-ID": seen.id } : {};
    const response = await fetchWithKey(path, { headers, signal: connection.signal });
    if (response.status === 204) return true;
    if (response.status >= 400 && response.status < 500) {
      onRefused(response);
      return true;
    }
    if (response.ok) for await (const data of events(response.body, seen)) onData(data);
    return false;
  }
  const cut = () => connection.abort();
  (async () => {
    document.addEventListener("visibilitychange", cut);
    for (await shown(); !stopped; await shown()) {
      try {
        if (await once()) break;
      } catch { /* the service is away, the page was hidden, or we were stopped */ }
      await new Promise((resolve) => setTimeout(resolve, RETRY_MILLISECONDS));
    }
    document.removeEventListener("visibilitychange", cut);
  })();
  return () => {
    stopped = true;
    cut();
  };
}
