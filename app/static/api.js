// The service's HTTP API. Whatever goes wrong becomes a Problem in the service's own words.

import { listen } from "./events.js";
import { fetchWithKey } from "./key.js";

export class Problem extends Error {
  constructor(body) {
    super(body.detail || body.title);
    this.title = body.title;
    this.errors = body.errors || [];
  }
}

async function refusal(response) {
  let body = { title: `The service answered ${response.status}`, detail: "It gave no further words." };
  try { body = await response.json(); } catch { /* a proxy in between may answer without JSON */ }
  if (response.status === 401) body.detail = "Without a key the page shows nothing. Load it again to be asked for one.";
  return new Problem(body);
}

// Of a body that could not be sent, the first file that the browser cannot read any more.
async function unreadable(body) {
  for (const file of body instanceof FormData ? body.values() : []) {
    try { await file.stream?.().getReader().read(); } catch {
      return new Problem({ title: "A file cannot be read", detail: `${file.name} is a folder, or was changed or moved since it was chosen. Choose it again.` });
    }
  }
  return null;
}

async function request(path, options) {
  let response;
  try {
    response = await fetchWithKey(path, options);
  } catch {
    throw await unreadable(options?.body) ?? new Problem({ title: "The service cannot be reached", detail: "It may be starting or stopped. Try again in a moment." });
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

// A seed has more digits than JavaScript's numbers, so it stays a text.
const parsed = (text) => JSON.parse(text.replace(/"seed":(\d+)/g, '"seed":"$1"'));

export const get = async (path) => parsed(await (await request(path)).text());
export const getBlob = async (path) => (await request(path)).blob();
export const post = async (path, body, headers) => {
  const ask = (event) => event.preventDefault(); // before the page is left, and with it what is not sent yet
  if (body instanceof FormData) addEventListener("beforeunload", ask);
  try {
    return parsed(await (await request(path, { method: "POST", body, headers })).text());
  } finally { removeEventListener("beforeunload", ask); }
};
export const remove = (path) => request(path, { method: "DELETE" });
export const postJson = (path, value) => post(path, JSON.stringify(value), { "Content-Type": "application/json" });

export async function all(path) {
  const items = [];
  let cursor = null;
  do {
    const page = await get(`${path}?limit=1000${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`);
    items.push(...page.items);
    cursor = page.next;
  } while (cursor);
  return items;
}

// Calls onChange with the job at every change, until it has ended, or onProblem if the service tells no more of it;
// returns a function that stops it.
export function follow(job, onChange, onProblem) {
  const stop = listen(job.links.events, (data) => {
    const changed = parsed(data);
    if (changed.finished_at) stop();
    onChange(changed);
  }, async (response) => onProblem(await refusal(response)));
  return stop;
}

// Lets the browser save what lies at the path: by a ticket, since it adds no key to what it downloads.
export async function save(path) {
  const { href } = await postJson("/tickets", { path });
  const link = document.createElement("a");
  link.href = href;
  link.download = ""; // reports would be shown instead of the page
  link.click();
}

export function showProblem(place, problem) {
  place.replaceChildren();
  const title = document.createElement("strong");
  title.textContent = problem.title || "Something went wrong";
  place.append(title);
  const lines = problem.errors?.length ? problem.errors : [{ field: "", detail: problem.message || problem.detail }];
  for (const { field, detail } of lines) {
    const line = document.createElement("span");
    if (field) {
      const name = document.createElement("code");
      name.textContent = field;
      line.append(name, " ");
    }
    line.append(detail);
    place.append(line);
  }
  place.hidden = false;
}
