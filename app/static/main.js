// The page: parameters, submission, and whether the service is ready.

import { get, post, Problem, showProblem } from "./api.js";
import { chosen, setUpDrop, setUpPreviews } from "./guides.js";
import { openAddressed, openJob, refreshRecent, setUpJobs } from "./jobs.js";
import { refreshPools, setUpPools } from "./pools.js";

const at = (id) => document.getElementById(id);
const form = at("synthesis");
let presets = {};

async function showReadiness() {
  const ready = at("ready");
  try {
    await get("/readyz");
    ready.dataset.state = "ok";
    ready.textContent = "ready";
    ready.title = "";
  } catch (problem) {
    ready.dataset.state = "away";
    ready.textContent = problem.message;
    ready.title = problem.errors?.map(({ field, detail }) => `${field}: ${detail}`).join("\n") ?? "";
  }
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
  for (const select of form.querySelectorAll("[data-boolean]")) {
    select.replaceChildren(new Option("", ""), new Option("on", "true"), new Option("off", "false"));
  }
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

function markFields(errors) {
  for (const control of form.elements) control.removeAttribute("aria-invalid");
  for (const { field } of errors) {
    form.elements[field]?.setAttribute("aria-invalid", "true");
    form.elements[field]?.closest("details")?.setAttribute("open", "");
  }
}

async function submit(event) {
  event.preventDefault();
  at("problem").hidden = true;
  markFields([]);
  at("submit").disabled = true;
  at("submit").textContent = "Sending ...";
  try {
    await openJob(await post("/synthesize", collected()), { focus: true });
  } catch (error) {
    const problem = error instanceof Problem ? error : new Problem({ title: "The page made a mistake", detail: String(error) });
    showProblem(at("problem"), problem);
    markFields(problem.errors);
    at("problem").focus();
  } finally {
    at("submit").disabled = false;
    at("submit").textContent = "Synthesize";
  }
}

form.addEventListener("submit", submit);
at("preset").addEventListener("change", showPreset);
setUpPools();
setUpJobs();
setUpPreviews(at("image"), at("mask"), at("previews"));
for (const box of document.querySelectorAll(".drop")) setUpDrop(box);
showReadiness();
setInterval(showReadiness, 10_000);
try {
  await Promise.all([fillChoices(), refreshPools("default"), refreshRecent()]);
  await openAddressed();
} catch (problem) {
  showProblem(at("problem"), problem);
}
