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

// Whether the pixel lies just outside: the outline hides nothing of what it surrounds.
function isAround(inside, i, width) {
  const x = i % width;
  return !inside[i] && (inside[i - width] || inside[i + width] || (x > 0 && inside[i - 1]) || (x < width - 1 && inside[i + 1]));
}

// Draws the image to fill the canvas and, if there is a mask, its outline (or a light fill within it).
export function draw(canvas, image, mask, { outline = true, fill = false } = {}) {
  const { width, height } = canvas;
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0, width, height);
  if (!mask || !outline) return;
  const inside = foreground(mask, width, height);
  const pixels = context.getImageData(0, 0, width, height);
  for (let i = 0; i < inside.length; i++) {
    const share = isAround(inside, i, width) ? 1 : inside[i] && fill ? 0.25 : 0;
    for (let c = 0; share && c < 3; c++) pixels.data[4 * i + c] += share * (OUTLINE[c] - pixels.data[4 * i + c]);
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
