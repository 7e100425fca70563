// The result: one job followed live, its samples as they are made, and the recent jobs.

import { follow, get, post, save, showProblem } from "./api.js";
import { bitmap, blankCanvas, draw } from "./drawing.js";
import { showReport } from "./report.js";

const at = (id) => document.getElementById(id);
const PAGE = 24;
const MOST = 1000; // samples in the gallery, as many as one answer lists

let current = null; // the job that is shown
let stop = () => {};
let shown = []; // its samples in the gallery
let next = null; // cursor behind them
let wanted = PAGE;
let loading = Promise.resolve();

export async function openJob(job, { focus = false } = {}) {
  stop();
  current = job;
  shown = [];
  next = null;
  wanted = PAGE;
  at("gallery").replaceChildren();
  at("no-job").hidden = true;
  at("job-body").hidden = false;
  history.replaceState(null, "", `#${job.id}`);
  showJob(job);
  if (!job.finished_at) stop = follow(job, showJob);
  if (focus) at("result").focus({ preventScroll: false });
  await refreshRecent();
}

function showJob(job) {
  if (job.id !== current.id) return;
  current = job;
  const { done, total } = job.progress;
  at("job-status").textContent = job.status;
  at("job-status").dataset.status = job.status;
  at("job-words").textContent = inWords(job);
  at("job-progress").max = total || 1;
  at("job-progress").value = job.status === "succeeded" ? total || 1 : done;
  at("job-progress").hidden = Boolean(job.finished_at);
  at("cancel").hidden = !["queued", "running"].includes(job.status);
  at("download").hidden = !(job.status === "succeeded" && job.links.dataset);
  at("job-error").hidden = !job.error;
  if (job.error) showProblem(at("job-error"), job.error);
  fillFacts(at("job-parameters").querySelector("dl"), job.parameters);
  showReport(job, () => job.id === current.id).catch((problem) => showProblem(at("job-error"), problem));
  if (job.links.samples) loading = loading.then(() => loadSamples(job)).catch(() => {});
  if (job.finished_at) refreshRecent();
}

function inWords(job) {
  const { done, total } = job.progress;
  if (job.kind === "pool_import") return `${job.stored} stored, ${job.duplicates} there already, ${done - job.stored - job.duplicates} refused`;
  const parts = [`${done} of ${total} ${job.kind === "evaluation" ? "training runs" : "samples"}`];
  if (job.status === "running" && job.stage) parts.unshift(job.stage);
  if (job.eta_seconds !== null) parts.push(`about ${duration(job.eta_seconds)} left`);
  return parts.join(", ");
}

const duration = (seconds) => (seconds < 90 ? `${Math.ceil(seconds)} s` : `${Math.round(seconds / 60)} min`);

function fillFacts(list, facts) {
  list.replaceChildren(...Object.entries(facts).flatMap(([name, value]) => {
    const [term, detail] = [document.createElement("dt"), document.createElement("dd")];
    term.textContent = name.replaceAll("_", " ");
    detail.textContent = Array.isArray(value) ? value.map((item) => item?.name ?? item).join("; ") : typeof value === "number" && !Number.isInteger(value) ? value.toFixed(3) : String(value);
    return [term, detail];
  }));
}

// Samples may be finished out of order, so the list is asked for anew; what is there already stays.
async function loadSamples(job) {
  const page = await get(`${job.links.samples}?limit=${wanted}`);
  if (job.id !== current.id) return;
  const known = new Set(shown.map((sample) => sample.index));
  for (const sample of page.items.filter(({ index }) => !known.has(index))) {
    const place = shown.findIndex(({ index }) => index > sample.index);
    const item = galleryItem(sample);
    at("gallery").insertBefore(item, place < 0 ? null : at("gallery").children[place]);
    shown.splice(place < 0 ? shown.length : place, 0, sample);
  }
  next = page.next;
  at("more").hidden = !next || wanted === MOST;
  at("outline-toggle").hidden = !shown.length;
}

function galleryItem(sample) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  const canvas = blankCanvas();
  const words = document.createElement("small");
  button.type = "button";
  button.title = `${sample.guide} on ${sample.pool_image}`;
  words.textContent = `#${sample.index}  ${sample.guide} on ${sample.pool_image}, rank ${sample.rank}, SSIM ${sample.ssim.toFixed(3)}`;
  button.append(canvas, words);
  button.addEventListener("click", () => view(sample));
  item.append(button);
  item.paint = () => paint(canvas, sample);
  item.paint();
  return item;
}

async function paint(canvas, sample) {
  const [image, mask] = await Promise.all([bitmap(sample.links.image), bitmap(sample.links.mask)]);
  draw(canvas, image, mask, { outline: at("outline").checked });
}

async function view(sample) {
  const { quality, links, ...facts } = sample;
  at("viewer-title").textContent = `Sample ${sample.index}`;
  fillFacts(at("viewer-facts"), { ...facts, ...quality });
  at("viewer").showModal();
  await paint(at("viewer-canvas"), sample);
}

export async function refreshRecent() {
  const { items } = await get("/jobs?limit=10");
  const entries = items.map((job) => {
    const item = document.createElement("li");
    const button = document.createElement("button");
    const [status, what, when] = ["span", "span", "time"].map((tag) => document.createElement(tag));
    button.type = "button";
    button.setAttribute("aria-current", String(job.id === current?.id));
    status.className = "status";
    status.dataset.status = status.textContent = job.status;
    what.textContent = {
      synthesis: () => `${job.progress.total} samples from pool ${job.parameters.pool}`,
      pool_import: () => `Import into ${job.parameters.pool}`,
      evaluation: () => `Evaluation of ${job.parameters.arms.length} arms`,
    }[job.kind]();
    when.dateTime = job.created_at;
    when.textContent = new Date(job.created_at).toLocaleString([], { dateStyle: "short", timeStyle: "short" });
    button.append(status, what, when);
    button.addEventListener("click", () => openJob(job, { focus: true }));
    item.append(button);
    return item;
  });
  const none = document.createElement("li");
  none.className = "empty";
  none.textContent = "None yet.";
  at("recent").replaceChildren(...(entries.length ? entries : [none]));
}

export function setUpJobs() {
  at("cancel").addEventListener("click", async () => {
    try { showJob(await post(current.links.cancel)); } catch (problem) { showProblem(at("job-error"), problem); }
  });
  at("download").addEventListener("click", async () => {
    try { await save(current.links.dataset); } catch (problem) { showProblem(at("job-error"), problem); }
  });
  at("outline").addEventListener("change", () => [...at("gallery").children].forEach((item) => item.paint()));
  at("more").addEventListener("click", () => {
    wanted = Math.min(wanted + PAGE, MOST);
    loading = loading.then(() => loadSamples(current)).catch(() => {});
  });
}

export async function openAddressed() {
  const id = location.hash.slice(1);
  if (/^[0-9a-f]{32}$/.test(id)) await openJob(await get(`/jobs/${id}`)).catch(() => {});
}
