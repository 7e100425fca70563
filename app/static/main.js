// The page: parameters, submission, and whether the service is ready.

import { get, post, Problem, showProblem } from "./api.js";
import { chosen, refuseStrayFiles, setUpDrop, setUpPreviews } from "./guides.js";
import { setUpImports } from "./imports.js";
import { openAddressed, openJob, refreshRecent, setUpJobs } from "./jobs.js";
import { declined } from "./key.js";
import { refreshPools, requirePool, setUpPools } from "./pools.js";

const at = (id) => document.getElementById(id);
const form = at("synthesis");
let presets = {};
let loading = null; // the loading that is under way
let loaded = false; // whether there is all to choose from
let sent = { content: [], key: "" }; // the last submission that was not accepted

async function showReadiness() {
  const ready = at("ready");
  let [words, reasons] = ["ready", []];
  try {
    await get("/readyz");
    ready.dataset.state = "ok";
  } catch ({ title, message, errors }) {
    ready.dataset.state = "away";
    [words, reasons] = [errors.length ? message : title, errors];
  }
  ready.title = reasons.map(({ field, detail }) => `${field}: ${detail}`).join("\n");
  if (ready.textContent !== words) ready.textContent = words; // else it would be read out every few seconds
}

// What is left empty comes from the preset, so its values are shown as placeholders.
function showPreset() {
  const preset = presets[at("preset").value] ?? {};
  for (const [name, value] of Object.entries(preset)) {
    const control = form.elements[name];
    if (control.tagName === "INPUT") control.placeholder = String(value);
    else control.options[0].textContent = `preset: ${typeof value === "boolean" ? (value ? "on" : "off") : value}`;
  }
}

async function fillChoices() {
  if (at("model").value) return; // a choice is made perhaps
  const [known, models] = await Promise.all([get("/presets"), get("/models")]);
  presets = known;
  at("preset").replaceChildren(...Object.keys(presets).map((name) => new Option(name, name)));
  at("model").replaceChildren(...models.items.map(({ name }) => new Option(name, name, false, name === "default")));
  showPreset();
}

function collected() {
  const body = new FormData();
  for (const control of form.elements) {
    if (control.name && control.type !== "file" && control.value.trim() !== "") body.append(control.name, control.value.trim());
  }
  for (const name of ["image", "mask"]) chosen(at(name)).forEach((file) => body.append(name, file));
  return body;
}

// A repeated submission has the same key as the one before, so that it cannot become a second job.
function idempotencyKey(body) {
  const content = [...body].flat();
  if (content.length !== sent.content.length || content.some((value, i) => value !== sent.content[i])) {
    const bytes = crypto.getRandomValues(new Uint8Array(16)); // randomUUID is missing where there is no https
    sent = { content, key: Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("") };
  }
  return sent.key;
}

async function accepted() {
  const pool = at("pool").value; // what was seen when the button was pressed
  if (!loaded) await load();
  requirePool(pool);
  const body = collected();
  const job = await post("/synthesize", body, { "Idempotency-Key": idempotencyKey(body) });
  sent = { content: [], key: "" };
  return job;
}

function markFields(errors) {
  for (const control of form.elements) control.removeAttribute("aria-invalid");
  for (const { field } of errors) {
    form.elements[field]?.setAttribute("aria-invalid", "true");
    form.elements[field]?.closest("details")?.setAttribute("open", "");
  }
}

// What was refused, by what its fields are called on the page.
function inThePagesWords({ title, message, errors }) {
  const label = (field) => form.elements[field]?.labels?.[0]?.firstChild.textContent.trim();
  return { title, message, errors: errors.map(({ field, detail }) => ({ field: label(field) ?? field, detail })) };
}

async function submit(event) {
  event.preventDefault();
  at("problem").hidden = true;
  markFields([]);
  at("submit").disabled = true;
  at("submit").textContent = "Sending ...";
  try {
    openJob(await accepted(), { focus: true });
  } catch (error) {
    const problem = error instanceof Problem ? error : new Problem({ title: "The page made a mistake", detail: String(error) });
    showProblem(at("problem"), inThePagesWords(problem));
    markFields(problem.errors);
    at("problem").focus();
  } finally {
    at("submit").disabled = false;
    at("submit").textContent = "Synthesize";
  }
}

// Fills what there is to choose from, and opens the job of the page's address.
function load() {
  loading ??= Promise.all([fillChoices(), refreshPools(), refreshRecent()]).then(() => {
    loaded = true;
    at("pool-problem").hidden = true;
    return openAddressed();
  }).finally(() => { loading = null; });
  return loading;
}

function keepUp() {
  showReadiness();
  if (declined) return;
  if (loaded) refreshRecent();
  else load().catch(() => {}); // its words are on the page since the first time
}

for (const select of form.querySelectorAll("[data-boolean]")) {
  select.replaceChildren(new Option("", ""), new Option("on", "true"), new Option("off", "false"));
}
form.addEventListener("submit", submit);
at("preset").addEventListener("change", showPreset);
setUpPools();
setUpImports();
setUpJobs();
setUpPreviews(at("image"), at("mask"), at("previews"));
for (const box of document.querySelectorAll(".drop")) setUpDrop(box);
refuseStrayFiles();
showReadiness();
setInterval(keepUp, 10_000);
addEventListener("focus", () => { if (loaded && !declined) refreshPools().catch(() => {}); }); // others fill pools, too
load().catch((problem) => showProblem(at("pool-problem"), problem));
