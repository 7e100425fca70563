// Adding images to the chosen pool: sent in batches, each an import of its own, and followed as one.

import { follow, post, showProblem } from "./api.js";
import { refreshRecent } from "./jobs.js";
import { orProblem, refreshPools, requirePool } from "./pools.js";
import { plural, showReasons } from "./words.js";

const pool = document.getElementById("pool");
const files = document.getElementById("pool-files");
const crop = document.getElementById("pool-crop");
const importBox = document.getElementById("import");
const words = document.getElementById("import-words");
const bar = document.getElementById("import-progress");
const rejected = document.getElementById("import-rejected");
const outcomeWords = document.getElementById("import-outcome");
const problemBox = document.getElementById("pool-problem");

const BATCH_FILES = 100;
const BATCH_BYTES = 50_000_000; // a quarter of what a service takes at once unless it was told otherwise

let stop = () => {}; // following the last import: a browser has but six connections to a service

const isArchive = (file) => file.name.toLowerCase().endsWith(".zip");

// The files as single requests can carry them, in their order; an archive goes alone.
function batches(given) {
  const made = [];
  let bytes = 0;
  for (const file of given) {
    const last = made.at(-1);
    const isFull = last?.length === BATCH_FILES || bytes + file.size > BATCH_BYTES;
    if (!last || isFull || isArchive(file) || isArchive(last[0])) {
      made.push([]);
      bytes = 0;
    }
    made.at(-1).push(file);
    bytes += file.size;
  }
  return made;
}

function bodyOf(batch, region) {
  const form = new FormData();
  for (const file of batch) form.append(isArchive(file) ? "archive" : "images", file);
  if (region) form.append("region", region);
  return form;
}

async function addImages() {
  const given = [...files.files];
  files.value = ""; // the same files may be chosen again
  if (!given.length) return;
  requirePool(pool.value);
  const [path, region] = [`/pools/${encodeURIComponent(pool.value)}/images`, crop.checked ? "crop" : ""];
  stop();
  importBox.hidden = false;
  outcomeWords.textContent = "";
  rejected.hidden = true;
  bar.hidden = false;
  bar.removeAttribute("value");
  const jobs = [];
  let left = given.length;
  try {
    for (const batch of batches(given)) {
      words.textContent = left === given.length ? `Sending ${plural(left, "file")} ...` : `Sending the other ${plural(left, "file")} ...`;
      jobs.push(await post(path, bodyOf(batch, region)));
      left -= batch.length;
    }
  } finally { // where one batch is refused those before it go on
    importBox.hidden = !jobs.length;
    if (jobs.length) followAll(jobs);
    refreshRecent();
  }
}

// Follows one job after the other, and shows what became of them all.
function followAll(jobs) {
  stop(); // another import, if it was sent meanwhile
  showImport(jobs);
  const i = jobs.findIndex((job) => !job.finished_at);
  if (i < 0) return;
  stop = follow(jobs[i], (job) => {
    jobs[i] = job;
    if (job.finished_at) followAll(jobs);
    else showImport(jobs);
  }, (problem) => showProblem(problemBox, problem));
}

function showImport(jobs) {
  const sum = (count) => jobs.reduce((total, job) => total + count(job), 0);
  const [done, total] = [sum(({ progress }) => progress.done), sum(({ progress }) => progress.total)];
  const [stored, duplicates] = [sum((job) => job.stored), sum((job) => job.duplicates)];
  const refused = done - stored - duplicates; // each job's `rejected` names its first 1000
  const outcome = `${stored} stored, ${duplicates} there already, ${refused} refused`;
  const current = jobs.find((job) => !job.finished_at);
  bar.max = total || 1;
  if (total) bar.value = done;
  words.textContent = current ? underWay(current, done, total, outcome) : "";
  const title = `Why ${plural(refused, "file")} ${refused === 1 ? "was" : "were"} refused`;
  showReasons(rejected, title, jobs.flatMap((job) => job.rejected).map(({ name, detail }) => `${name}: ${detail}`));
  if (!current) showEnd(jobs, outcome);
}

function underWay({ status, progress }, done, total, outcome) {
  if (!done && status === "queued") return "Waiting for a worker ...";
  return progress.total ? `Reading ${done} of ${total}: ${outcome}.` : "Unpacking ...";
}

function showEnd(jobs, outcome) {
  const telling = jobs.find(({ status }) => status !== "succeeded") ?? jobs[0];
  outcomeWords.textContent = `Import ${telling.status}: ${outcome}.`;
  if (telling.error) showProblem(problemBox, telling.error);
  bar.hidden = true;
  refreshRecent();
  refreshPools().catch((problem) => showProblem(problemBox, problem));
}

export function setUpImports() {
  files.addEventListener("change", orProblem(addImages));
}
