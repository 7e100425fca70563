// Radiographs with the outline of their mask, on a canvas.

import { getBlob } from "./api.js";

const OUTLINE = [255, 122, 92];

// The mask's foreground as Uint8Array of width x height; whatever is not black is foreground.
function foreground(mask, width, height) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingEnabled = false;
  context.drawImage(mask, 0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height);
  const found = new Uint8Array(width * height);
  for (let i = 0; i < found.length; i++) found[i] = data[4 * i] | data[4 * i + 1] | data[4 * i + 2] ? 1 : 0;
  return found;
}

function isEdge(inside, i, width, height) {
  const x = i % width;
  const y = (i - x) / width;
  return x === 0 || y === 0 || x === width - 1 || y === height - 1 ||
    !inside[i - 1] || !inside[i + 1] || !inside[i - width] || !inside[i + width];
}

// Draws the image to fill the canvas and, if there is a mask, its edge (or a light fill under it).
export function draw(canvas, image, mask, { outline = true, fill = false } = {}) {
  const { width, height } = canvas;
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0, width, height);
  if (!mask || !outline) return;
  const inside = foreground(mask, width, height);
  const pixels = context.getImageData(0, 0, width, height);
  for (let i = 0; i < inside.length; i++) {
    if (!inside[i]) continue;
    const share = isEdge(inside, i, width, height) ? 1 : fill ? 0.25 : 0;
    for (let c = 0; c < 3; c++) pixels.data[4 * i + c] += share * (OUTLINE[c] - pixels.data[4 * i + c]);
  }
  context.putImageData(pixels, 0, 0);
}

export function blankCanvas(width = 512, height = 256) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return canvas;
}

// Samples and masks never change: the browser keeps what it has fetched once.
export const bitmap = async (path) => createImageBitmap(await getBlob(path));
