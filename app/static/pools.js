// Step 1: choose or create a pool, and add images to it.

import { all, follow, post, postJson, showProblem } from "./api.js";
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

export async function refreshPools(wanted) {
  const pools = await all("/pools");
  const choose = wanted ?? (select.value || "default");
  select.replaceChildren(...pools.map((pool) => {
    const label = `${pool.name} (${plural(pool.image_count, "image")})`;
    return new Option(label, pool.name, false, pool.name === choose);
  }));
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

async function addImages() {
  if (!files.files.length || !select.value) return;
  const form = new FormData();
  const isArchive = files.files.length === 1 && files.files[0].name.toLowerCase().endsWith(".zip");
  for (const file of files.files) form.append(isArchive ? "archive" : "images", file);
  if (crop.checked) form.append("region", "crop");
  stop();
  importBox.hidden = false;
  outcomeWords.textContent = "";
  rejected.hidden = true;
  bar.removeAttribute("value");
  words.textContent = `Sending ${plural(files.files.length, "file")} ...`;
  let job;
  try {
    job = await post(`/pools/${encodeURIComponent(select.value)}/images`, form);
  } catch (problem) {
    importBox.hidden = true;
    throw problem;
  } finally {
    files.value = "";
  }
  showImport(job);
  stop(); // another one, if it was sent meanwhile
  stop = follow(job, showImport, (problem) => showProblem(problemBox, problem));
}

function showImport(job) {
  const { done, total } = job.progress;
  bar.max = total || 1;
  if (total) bar.value = done;
  const refused = done - job.stored - job.duplicates; // job.rejected names the first 1000
  const outcome = [`${job.stored} stored`, `${job.duplicates} there already`, `${refused} refused`].join(", ");
  words.textContent = job.finished_at ? "" : `Reading ${done} of ${total}: ${outcome}.`;
  outcomeWords.textContent = job.finished_at ? `Import ${job.status}: ${outcome}.` : "";
  const title = `Why ${plural(refused, "file")} ${refused === 1 ? "was" : "were"} refused`;
  showReasons(rejected, title, job.rejected.map(({ name, detail }) => `${name}: ${detail}`));
  if (!job.finished_at) return;
  if (job.error) showProblem(problemBox, job.error);
  bar.value = bar.max;
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
  document.getElementById("create-pool").addEventListener("click", orProblem(createPool));
  nameInput.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault(); // Enter here makes the pool, and does not submit the synthesis
    orProblem(createPool)();
  });
  files.addEventListener("change", orProblem(addImages));
}
