// An evaluation's report: its table, the plot, and the files behind them.

import { get, getBlob, save, showProblem } from "./api.js";
import { plural } from "./words.js";

const at = (id) => document.getElementById(id);
const METRICS = { precision: "Precision", recall: "Recall", dice: "DSC", cldice: "clDice", hd95: "HD95 (px)" };

function heading(text, scope) {
  const made = document.createElement("th");
  made.scope = scope;
  made.textContent = text;
  return made;
}

// A figure with how sure it is below it: the table is narrow.
function figure(text, spread = "") {
  const made = document.createElement("td");
  const small = document.createElement("small");
  small.textContent = spread;
  made.append(text, small);
  return made;
}

const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`;
const digits = (metric) => (metric === "hd95" ? 1 : 3);

function row(arm, hasReference) {
  const made = document.createElement("tr");
  const images = Object.values(arm.training_images).reduce((sum, count) => sum + count, 0);
  made.append(heading(`${arm.name} (${images})`, "row"));
  for (const metric of Object.keys(METRICS)) {
    const { mean, sd } = arm.summary[metric];
    made.append(figure(mean.toFixed(digits(metric)), `± ${sd.toFixed(digits(metric))}`));
  }
  if (!hasReference) return made;
  const against = arm.against_real?.dice;
  made.append(against ? figure(signed(against.difference), `${signed(against.low)} to ${signed(against.high)}`) : figure("reference"));
  made.append(figure(against && against.p !== null ? String(Number(against.p.toPrecision(2))) : ""));
  return made;
}

function fillTable(report) {
  const hasReference = report.reference !== null;
  const heads = ["Training data (images)", ...Object.values(METRICS)];
  if (hasReference) heads.push("DSC − real, 95\u00a0% interval", "p");
  at("report-head").replaceChildren(...heads.map((head) => heading(head, "col")));
  at("report-rows").replaceChildren(...report.arms.map((arm) => row(arm, hasReference)));
  at("report-caption").textContent =
    `${plural(report.test_images, "test image")}, ${plural(report.seeds.length, "training run")} per arm; mean ± standard deviation over test images`;
}

// The address of a picture that was fetched with the key: an <img> could not send it.
const picture = async (path) => URL.createObjectURL(await getBlob(path));

async function download(path) {
  try { await save(path); } catch (problem) { showProblem(at("job-error"), problem); }
}

// Shows the report of a finished evaluation, unless another job is shown by then; hides the one shown before.
export async function showReport(job, isCurrent) {
  at("report").hidden = true;
  if (job.kind !== "evaluation" || job.status !== "succeeded") return;
  const [report, plot] = await Promise.all([get(job.links.report), picture(job.links.png)]);
  if (!isCurrent()) return URL.revokeObjectURL(plot);
  fillTable(report);
  URL.revokeObjectURL(at("report-plot").src);
  at("report-plot").src = at("report-large").href = plot;
  for (const form of ["csv", "md"]) at(`report-${form}`).onclick = () => download(job.links[form]);
  at("report").hidden = false;
}
