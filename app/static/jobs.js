// The result: one job followed live, its samples as they are made, and the recent jobs.

import { follow, get, post, remove, save, showProblem } from "./api.js";
import { showReport } from "./report.js";
import { picture, setUpViewer, view } from "./viewer.js";
import { fillFacts, plural, showReasons } from "./words.js";

const at = (id) => document.getElementById(id);
const PAGE = 24;
const TELLING = ["canal_retention", "alignment", "seam"]; // the figures that a sample of the gallery shows
const MOST = 1000; // samples in the gallery, or recent jobs: as many as one answer lists

let current = null; // the job that is shown
let stop = () => {};
let shown = []; // its samples in the gallery
let wanted = PAGE;
let loading = Promise.resolve(); // one list of samples is asked for at a time
let opened = 0; // how many openings were asked for
let listed = 10; // of the recent jobs

export function openJob(job, { focus = false } = {}) {
  clear();
  current = job;
  at("job-body").hidden = false;
  history.replaceState(null, "", `#${job.id}`);
  showJob(job);
  if (!job.finished_at) stop = follow(job, showJob, (problem) => { if (isShown(job)) showNone(problem); });
  if (focus) at("result").focus();
}

// The job as it is now: a list may show one that was deleted since.
async function openById(id, options) {
  const turn = ++opened;
  const job = await get(`/jobs/${id}`).catch((problem) => { if (turn === opened) showNone(problem); });
  if (job && turn === opened) openJob(job, options);
}

function showNone(problem) {
  clear();
  hide(at("job-body"), true, at("result"));
  at("no-job").hidden = Boolean(problem);
  if (problem) showProblem(at("no-job-problem"), problem);
  refreshRecent();
}

function clear() {
  opened += 1;
  stop();
  current = null;
  shown = [];
  wanted = PAGE;
  loading = Promise.resolve(); // what the job before still asks for keeps no other waiting
  at("gallery").replaceChildren();
  at("job-status").textContent = "";
  for (const id of ["no-job", "no-job-problem", "outline-toggle", "more", "rest"]) at(id).hidden = true;
}

const isShown = (job) => job.id === current?.id;

function showJob(job) {
  if (!isShown(job)) return;
  current = job;
  const { done, total } = job.progress;
  if (at("job-status").textContent !== job.status) { // else it would be read out again
    at("job-status").textContent = job.status;
    refreshRecent();
  }
  at("job-status").dataset.status = job.status;
  at("job-words").textContent = inWords(job);
  at("job-progress").max = total || 1;
  at("job-progress").value = done;
  at("job-progress").hidden = Boolean(job.finished_at);
  hide(at("cancel"), !["queued", "running"].includes(job.status), at("result"));
  hide(at("delete"), !job.finished_at, at("result"));
  at("download").hidden = !(job.status === "succeeded" && job.links.dataset);
  at("job-error").hidden = !job.error;
  if (job.error) showProblem(at("job-error"), job.error);
  showLeftOut(job);
  fillFacts(at("job-parameters").querySelector("dl"), job.parameters);
  showReport(job, () => isShown(job)).catch((problem) => showJobProblem(job, problem));
  if (job.links.samples) requestSamples();
}

// What the job's words only count.
function showLeftOut(job) {
  if (job.rejected) showReasons(at("job-left-out"), "Why files were refused", job.rejected.map(({ name, detail }) => `${name}: ${detail}`));
  else showReasons(at("job-left-out"), "Why samples could not be made", (job.failed_samples ?? []).map(({ index, detail }) => `#${index}: ${detail}`));
}

function showJobProblem(job, problem) {
  if (isShown(job)) showProblem(at("job-error"), problem);
}

// The focus of what is hidden goes to its heir; the browser would take it to the top of the page.
function hide(element, isHidden, heir) {
  if (isHidden && element.contains(document.activeElement)) heir.focus({ preventScroll: true });
  element.hidden = isHidden;
}

function inWords(job) {
  const { done, total } = job.progress;
  if (job.kind === "pool_import") return `${job.stored} stored, ${job.duplicates} there already, ${done - job.stored - job.duplicates} refused`;
  const parts = [`${done} of ${plural(total, job.kind === "evaluation" ? "training run" : "sample")}`];
  const failed = job.failed_samples?.length;
  if (failed) parts.push(`${failed === MOST ? `${MOST} or more` : failed} could not be made`);
  const { dropped = 0, redrawn = 0 } = job.quality_summary ?? {};
  if (dropped) parts.push(`${dropped} dropped by the thresholds`);
  if (redrawn) parts.push(`${redrawn} made anew`);
  if (job.status === "running" && job.stage) parts.unshift(job.stage);
  if (job.eta_seconds !== null) parts.push(`about ${duration(job.eta_seconds)} left`);
  return parts.join(", ");
}

const duration = (seconds) => (seconds < 90 ? `${Math.ceil(seconds)} s` : `${Math.round(seconds / 60)} min`);

function requestSamples() {
  const job = current;
  loading = loading.then(() => job === current && loadSamples(job)) // else a newer state of it waits, or another job
    .catch((problem) => showJobProblem(job, problem));
}

// Samples may be finished out of order, so the list is asked for anew; what is there already stays.
async function loadSamples(job) {
  const page = await get(`${job.links.samples}?limit=${wanted}`);
  if (!isShown(job)) return;
  const known = new Set(shown.map((sample) => sample.index));
  for (const sample of page.items.filter(({ index }) => !known.has(index))) {
    const place = shown.findIndex(({ index }) => index > sample.index);
    const item = galleryItem(sample);
    at("gallery").insertBefore(item, place < 0 ? null : at("gallery").children[place]);
    shown.splice(place < 0 ? shown.length : place, 0, sample);
  }
  hide(at("more"), !page.next || wanted === MOST, at("gallery").lastElementChild?.firstElementChild);
  at("rest").hidden = !page.next || wanted < MOST;
  at("outline-toggle").hidden = !shown.length;
}

function galleryItem(sample) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  const { canvas, note, paint } = picture(sample, () => ({ outline: at("outline").checked }));
  const [origin, figures] = ["small", "small"].map((tag) => document.createElement(tag));
  button.type = "button";
  origin.textContent = `#${sample.index}  ${sample.guide} on ${sample.pool_image}`;
  figures.textContent = TELLING.filter((name) => Number.isFinite(sample.quality?.[name]))
    .map((name) => `${name.split("_").pop()} ${sample.quality[name].toFixed(2)}`).join(", ");
  button.append(canvas, origin, figures, note);
  button.addEventListener("click", () => view(shown, sample));
  item.append(button);
  item.paint = paint;
  return item;
}

// The recent jobs as they are now; a list that can't be read is left as it is, the next look is not far.
export async function refreshRecent() {
  const asked = listed;
  const { items, next } = await get(`/jobs?limit=${asked}`).catch(() => ({}));
  if (!items || asked !== listed) return;
  const list = document.createElement("ol");
  list.append(...(items.length ? items.map(recentItem) : [noneYet()]));
  if (list.innerHTML !== at("recent").innerHTML) replaceRecent(list);
  hide(at("older"), !next || listed === MOST, at("recent").querySelector("li:last-child button"));
}

function replaceRecent(list) {
  const focused = document.activeElement?.dataset.job;
  at("recent").replaceChildren(...list.children);
  if (focused) (at("recent").querySelector(`[data-job="${focused}"]`) ?? at("recent").querySelector("button"))?.focus();
}

function recentItem(job) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  const [status, what, when] = ["span", "span", "time"].map((tag) => document.createElement(tag));
  button.type = "button";
  button.dataset.job = job.id;
  button.setAttribute("aria-current", String(isShown(job)));
  status.className = "status";
  status.dataset.status = status.textContent = job.status;
  what.textContent = {
    synthesis: () => `${plural(job.progress.total, "sample")} by ${job.parameters.preset} from pool ${job.parameters.pool}`,
    pool_import: () => `Import into ${job.parameters.pool}`,
    evaluation: () => `Evaluation of ${plural(job.parameters.arms.length, "arm")}`,
  }[job.kind]();
  when.dateTime = job.created_at;
  when.textContent = new Date(job.created_at).toLocaleString([], { dateStyle: "short", timeStyle: "short" });
  button.append(status, what, when);
  item.append(button);
  return item;
}

function noneYet() {
  const none = document.createElement("li");
  none.className = "empty";
  none.textContent = "None yet.";
  return none;
}

async function cancel() {
  const job = current;
  try { showJob(await post(job.links.cancel)); } catch (problem) { showJobProblem(job, problem); }
}

const LOST = { synthesis: "its guides and samples", evaluation: "its report", pool_import: "its list of files; the images stay in the pool" };

async function deleteJob() {
  const job = current;
  if (!confirm(`Delete this job and ${LOST[job.kind]}?`)) return;
  try {
    await remove(job.links.self);
    if (!isShown(job)) return refreshRecent();
    history.replaceState(null, "", location.pathname);
    showNone();
  } catch (problem) { showJobProblem(job, problem); }
}

async function download() {
  const job = current;
  try {
    await get(job.links.self); // of a job deleted since, the browser would save the refusal
    await save(job.links.dataset);
  } catch (problem) { showJobProblem(job, problem); }
}

export function setUpJobs() {
  setUpViewer();
  at("cancel").addEventListener("click", cancel);
  at("delete").addEventListener("click", deleteJob);
  at("download").addEventListener("click", download);
  at("outline").addEventListener("change", () => [...at("gallery").children].forEach((item) => item.paint()));
  at("more").addEventListener("click", () => {
    wanted = Math.min(shown.length + PAGE, MOST);
    requestSamples();
  });
  at("older").addEventListener("click", () => {
    listed = Math.min(listed + 40, MOST);
    refreshRecent();
  });
  at("recent").addEventListener("click", ({ target }) => {
    const button = target.closest("button");
    if (button) openById(button.dataset.job, { focus: true });
  });
  addEventListener("hashchange", openAddressed);
}

// Opens the job that the page's address names.
export async function openAddressed() {
  const id = location.hash.slice(1);
  if (/^[0-9a-f]{32}$/.test(id)) await openById(id);
}
