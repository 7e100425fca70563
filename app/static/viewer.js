// The samples' pictures, and one of them at full width: stepped through, with and without its outline, with its figures.

import { bitmap, blankCanvas, draw } from "./drawing.js";
import { fillFacts } from "./words.js";

const at = (id) => document.getElementById(id);

const MEANINGS = {
  canal_contrast: "gray levels by which the canal is darker than the bone around it",
  guide_canal_contrast: "the same in the guide",
  canal_retention: "their ratio: far below 1 the labeled canal is hardly seen",
  canal_correlation: "of the fine detail under the mask with the guide's, at most 1",
  alignment: "how well the moved guide fits here, at most 1: if it is low, look where the canal lies",
  background_ssim: "likeness to the pool image outside the blended band: 1 is the same",
  seam: "the step in gray at the band's border: above 1 it shows",
  training_distance: "0 is a copy of a training image, 1 as far from one as another patient",
};

let samples = []; // which can be stepped through; more may come while one is looked at
let place = 0; // among them, of the one that is shown
let repaint = () => {};

// A canvas of its own for a sample, which a late answer for another cannot paint over, and a note for its trouble.
// look() says whether the mask's outline is shown, and of which of the sample's links the picture is.
export function picture(sample, look) {
  const canvas = blankCanvas();
  const note = document.createElement("small");
  async function paint() {
    note.textContent = "";
    try {
      const { outline, link = "image" } = look();
      const [image, mask] = await Promise.all([bitmap(sample.links[link]), bitmap(sample.links.mask)]);
      draw(canvas, image, mask, { outline });
      for (const drawn of [image, mask]) drawn.close();
    } catch (problem) {
      note.textContent = `The picture cannot be read now: ${problem.message}`;
    }
  }
  paint();
  return { canvas, note, paint };
}

export function view(among, sample) {
  samples = among;
  show(samples.indexOf(sample));
  at("viewer").showModal();
}

function show(next) {
  place = (next + samples.length) % samples.length;
  const { quality, links, ...facts } = samples[place];
  at("viewer-title").textContent = `Sample ${facts.index}`;
  fillFacts(at("viewer-figures"), quality ?? {}, MEANINGS);
  fillFacts(at("viewer-facts"), facts);
  const { canvas, note, paint } = picture(samples[place], look);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-labelledby", "viewer-title");
  at("viewer-picture").replaceChildren(canvas, note);
  repaint = paint;
}

const look = () => ({ outline: at("viewer-outline").checked, link: at("viewer-unlabeled").checked ? "pool_image" : "image" });

const STEPS = { ArrowLeft: -1, ArrowRight: 1 };

export function setUpViewer() {
  at("viewer-previous").addEventListener("click", () => show(place - 1));
  at("viewer-next").addEventListener("click", () => show(place + 1));
  at("viewer").addEventListener("keydown", ({ key }) => { if (STEPS[key]) show(place + STEPS[key]); });
  for (const id of ["viewer-outline", "viewer-unlabeled"]) at(id).addEventListener("change", () => repaint());
}
