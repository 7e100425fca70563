// The guides' previews: image and mask side by side in one picture, before anything is sent.

import { blankCanvas, draw } from "./drawing.js";

const byName = (a, b) => a.name.localeCompare(b.name, undefined, { numeric: true });
const MOST_PREVIEWS = 12;

const stem = ({ name }) => name.replace(/\.[^.]*$/, "");

export const chosen = (input) => [...input.files].sort(byName);

async function decoded(file) {
  try { return await createImageBitmap(file); } catch { return null; } // TIFF and DICOM, which browsers do not read
}

// Image and mask by their order. Where some bear the same name all should: else a file was forgotten.
function paired(images, masks) {
  const maskStems = new Set(masks.map(stem));
  const areNamedAlike = images.some((image) => maskStems.has(stem(image)));
  return Array.from({ length: Math.max(images.length, masks.length) }, (_, i) => {
    const [image, mask] = [images[i], masks[i]];
    if (!image || !mask) return { image, mask, doubt: `The ${image ? "mask" : "image"} is missing.` };
    return { image, mask, doubt: areNamedAlike && stem(image) !== stem(mask) ? "By their names these two are no pair." : "" };
  });
}

async function preview({ image, mask, doubt }) {
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  const [picture, label] = await Promise.all([image && decoded(image), mask && decoded(mask)]);
  if (picture) {
    const canvas = blankCanvas(512, Math.max(64, Math.round((512 * picture.height) / picture.width)));
    draw(canvas, picture, label, { fill: true });
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${image.name}${label ? " with its mask" : ""}`);
    figure.append(canvas);
  }
  caption.append(`${image?.name ?? "no image"} + ${mask?.name ?? "no mask"}`);
  const trouble = doubt ? { words: doubt } : wrong(picture, label);
  if (trouble) {
    const words = document.createElement("div");
    words.className = trouble.hint ? "" : "bad";
    words.textContent = trouble.words;
    caption.append(words);
  }
  figure.append(caption);
  for (const bitmap of [picture, label]) bitmap?.close(); // a radiograph takes tens of megabytes
  return figure;
}

function wrong(picture, label) {
  if (!picture || !label) return { hint: true, words: "No preview for this format; the service reads it." };
  if (picture.width !== label.width || picture.height !== label.height) {
    return { words: `The image is ${picture.width}x${picture.height}, the mask ${label.width}x${label.height}.` };
  }
  return null;
}

export function setUpPreviews(imageInput, maskInput, place) {
  let latest = 0;
  async function refresh() {
    const turn = ++latest;
    const pairs = paired(chosen(imageInput), chosen(maskInput));
    pairs.sort((a, b) => Boolean(b.doubt) - Boolean(a.doubt)); // the doubtful first, for only so many are shown
    const figures = [];
    for (const pair of pairs.slice(0, MOST_PREVIEWS)) figures.push(await preview(pair));
    if (turn !== latest) return; // other files were chosen meanwhile
    if (pairs.length > MOST_PREVIEWS) {
      const rest = document.createElement("p");
      rest.className = "hint";
      rest.textContent = `and ${pairs.length - MOST_PREVIEWS} more`;
      figures.push(rest);
    }
    place.replaceChildren(...figures);
  }
  imageInput.addEventListener("change", refresh);
  maskInput.addEventListener("change", refresh);
  addEventListener("pageshow", refresh); // a browser that comes back to the page may have kept the files
}

// A file that misses its box would otherwise be opened in place of the page.
export function refuseStrayFiles() {
  for (const kind of ["dragover", "drop"]) {
    addEventListener(kind, (event) => { if (event.dataTransfer?.types.includes("Files")) event.preventDefault(); });
  }
}

// Lets files be dropped on the box around a file input.
export function setUpDrop(box) {
  const input = box.querySelector("input");
  const over = (event) => { event.preventDefault(); box.classList.add("over"); };
  box.addEventListener("dragenter", over);
  box.addEventListener("dragover", over);
  box.addEventListener("dragleave", () => box.classList.remove("over"));
  box.addEventListener("drop", (event) => {
    event.preventDefault();
    box.classList.remove("over");
    input.files = event.dataTransfer.files;
    input.dispatchEvent(new Event("change"));
  });
}
