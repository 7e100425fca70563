// Step 1: choose or create a pool, and add images to it.

import { all, follow, post, postJson, Problem, remove, showProblem } from "./api.js";
import { refreshRecent } from "./jobs.js";
import { plural, showReasons } from "./words.js";

const select = document.getElementById("pool");
const row = document.getElementById("new-pool-row");
const nameInput = document.getElementById("new-pool-name");
const files = document.getElementById("pool-files");
const crop = document.getElementById("pool-crop");
const importBox = document.getElementById("import");
const words = document.getElementById("import-words");
const bar = document.getElementById("import-progress");
const rejected = document.getElementById("import-rejected");
const outcomeWords = document.getElementById("import-outcome");
const problemBox = document.getElementById("pool-problem");
const newPool = document.getElementById("new-pool");

let stop = () => {}; // following the last import: a browser has but six connections to a service

// The pools as they are now. Where the chosen one is gone none is chosen: the user says which takes its place.
export async function refreshPools(wanted) {
  const pools = await all("/pools");
  const first = pools.find(({ name }) => name === "default") ?? pools[0];
  const chosen = wanted ?? (select.options.length ? select.value : first?.name);
  const list = document.createElement("select");
  list.append(...pools.map(({ name, image_count }) => new Option(`${name} (${plural(image_count, "image")})`, name)));
  if (list.innerHTML !== select.innerHTML) select.replaceChildren(...list.children);
  select.value = chosen;
}

export function requirePool(name) {
  if (!name) throw new Problem({ title: "No pool is chosen", errors: [{ field: "pool", detail: "choose one in step 1, or make one with New pool" }] });
}

function showRow(isShown) {
  row.hidden = !isShown;
  newPool.setAttribute("aria-expanded", String(isShown));
  if (isShown) nameInput.focus();
}

async function createPool() {
  const name = nameInput.value.trim();
  await postJson("/pools", { name });
  showRow(false);
  nameInput.value = "";
  await refreshPools(name);
  select.focus();
}

async function deletePool() {
  requirePool(select.value);
  if (!confirm(`Delete the pool ${select.selectedOptions[0].text}? The datasets made from it stay.`)) return;
  await remove(`/pools/${encodeURIComponent(select.value)}`);
  await refreshPools();
}

async function addImages() {
  const given = [...files.files];
  files.value = ""; // the same files may be chosen again
  if (!given.length) return;
  requirePool(select.value);
  const form = new FormData();
  const isArchive = given.length === 1 && given[0].name.toLowerCase().endsWith(".zip");
  for (const file of given) form.append(isArchive ? "archive" : "images", file);
  if (crop.checked) form.append("region", "crop");
  stop();
  importBox.hidden = false;
  outcomeWords.textContent = "";
  rejected.hidden = true;
  bar.hidden = false;
  bar.removeAttribute("value");
  words.textContent = `Sending ${plural(given.length, "file")} ...`;
  let job;
  try {
    job = await post(`/pools/${encodeURIComponent(select.value)}/images`, form);
  } catch (problem) {
    importBox.hidden = true;
    throw problem;
  }
  refreshRecent();
  showImport(job);
  stop(); // another one, if it was sent meanwhile
  stop = follow(job, showImport, (problem) => showProblem(problemBox, problem));
}

function underWay({ status, progress: { done, total } }, outcome) {
  if (status === "queued") return "Waiting for a worker ...";
  return total ? `Reading ${done} of ${total}: ${outcome}.` : "Unpacking ...";
}

function showImport(job) {
  const { done, total } = job.progress;
  bar.max = total || 1;
  if (total) bar.value = done;
  const refused = done - job.stored - job.duplicates; // job.rejected names the first 1000
  const outcome = [`${job.stored} stored`, `${job.duplicates} there already`, `${refused} refused`].join(", ");
  words.textContent = job.finished_at ? "" : underWay(job, outcome);
  outcomeWords.textContent = job.finished_at ? `Import ${job.status}: ${outcome}.` : "";
  const title = `Why ${plural(refused, "file")} ${refused === 1 ? "was" : "were"} refused`;
  showReasons(rejected, title, job.rejected.map(({ name, detail }) => `${name}: ${detail}`));
  if (!job.finished_at) return;
  if (job.error) showProblem(problemBox, job.error);
  bar.hidden = true;
  refreshRecent();
  refreshPools().catch((problem) => showProblem(problemBox, problem));
}

function orProblem(action) {
  return async () => {
    problemBox.hidden = true;
    try { await action(); } catch (problem) { showProblem(problemBox, problem); }
  };
}

export function setUpPools() {
  newPool.addEventListener("click", () => showRow(row.hidden));
  document.getElementById("delete-pool").addEventListener("click", orProblem(deletePool));
  document.getElementById("create-pool").addEventListener("click", orProblem(createPool));
  nameInput.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault(); // Enter here makes the pool, and does not submit the synthesis
    orProblem(createPool)();
  });
  files.addEventListener("change", orProblem(addImages));
}
