"""The region of interest: the tooth-bearing jaw that a small SegFormer finds, and the box around it."""

from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy import ndimage
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from models.batches import FixedBatches
from models.segmenter import Segmenter
from models.tensors import to_images
from models.weights import WeightsError, read_json, verify_files, write_manifest

KIND = "region"
FILES = ("config.json", "model.safetensors")
HEIGHT, WIDTH = 64, 128  # the region is large and smooth: it is found in a small picture
MIN_SHARE = 0.2  # of the picture; a jaw fills about half of it, so less is a part of one, or none
MARGIN = 0.05  # of the region's box, on each side
ASPECTS = (1.6, 2.5)  # width over height of a crop; it is then brought to 2, so nothing is stretched by more than 1.25


@dataclass(frozen=True)
class Box:
    """A crop, in pixels of the original, which has `frame_width` x `frame_height`.

    found: whether a region was; otherwise the box is the whole frame.
    """

    left: int
    top: int
    width: int
    height: int
    frame_width: int
    frame_height: int
    found: bool

    def cut(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """The part of an array (frame_height, frame_width) that lies in the box, as a view."""
        if pixels.shape != (self.frame_height, self.frame_width):
            raise ValueError(f"pixels are {pixels.shape}; the box is of ({self.frame_height}, {self.frame_width})")
        return pixels[self.top : self.top + self.height, self.left : self.left + self.width]


def save_region(folder: Path, segmenter: Segmenter, facts: dict[str, Any]) -> None:
    """Write a region finder: the files that `save_pretrained` writes, in float16, and a manifest of them."""
    folder.mkdir(parents=True, exist_ok=True)
    segmenter.network.config.to_json_file(folder / FILES[0])
    halves = {
        name: value.half().contiguous() if value.is_floating_point() else value
        for name, value in segmenter.network.state_dict().items()
    }
    save_file(halves, folder / FILES[1], {"format": "pt"})
    manifest = {"kind": KIND, "input": {"height": HEIGHT, "width": WIDTH}, "training": facts}
    write_manifest(folder, manifest, [folder / name for name in FILES])


def load_region(folder: Path) -> Segmenter:
    """The region finder in `folder`, on the CPU, in float32. Raises WeightsError."""
    manifest, _ = read_json(folder)
    if manifest.get("kind") != KIND or set(manifest.get("files", ())) != set(FILES):
        train = f"pansynth train region --data FOLDER --out {quote(str(folder))}"
        raise WeightsError(f"{folder} holds no region finder; train one: {train}")
    verify_files(folder, manifest["files"])
    network = SegformerForSemanticSegmentation(SegformerConfig.from_json_file(folder / FILES[0]))
    network.load_state_dict(load_file(folder / FILES[1]))
    return Segmenter(network).eval().requires_grad_(False)


def reduce_image(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(H, W) in [0, 1] -> (64, 128) uint8: the mean of each cell."""
    source = Image.fromarray(np.ascontiguousarray(image, np.float32))
    reduced: NDArray[np.float32] = np.asarray(source.resize((WIDTH, HEIGHT), Image.Resampling.BOX))
    levels: NDArray[np.uint8] = np.rint(reduced.clip(0, 1) * 255).astype(np.uint8)
    return levels


def reduce_region(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(H, W) -> (64, 128): the cells of which at least half is region."""
    half: NDArray[np.bool_] = reduce_image(region.astype(np.float32)) >= 128
    return half


def find_region(segmenter: Segmenter, image: NDArray[np.float32]) -> NDArray[np.bool_] | None:
    """(H, W) in [0, 1] -> the largest connected region, filled, (64, 128) bool; None if it is less than MIN_SHARE.

    On the CPU the same image has the same region on any number of cores.
    """
    device = next(segmenter.parameters()).device
    with FixedBatches(threads=1) as batches:
        logits = batches.run(segmenter, to_images(reduce_image(image)[None], device))[0].cpu().numpy()
    labels, count = ndimage.label(logits[1] > logits[0])
    if count == 0:
        return None
    largest = labels == 1 + np.bincount(labels.ravel())[1:].argmax()
    region: NDArray[np.bool_] = ndimage.binary_fill_holes(largest)
    return region if region.mean() >= MIN_SHARE else None


def crop_box(region: NDArray[np.bool_] | None, shape: tuple[int, int], anatomy: NDArray[np.bool_] | None = None) -> Box:
    """The box of a region (64, 128) in a frame of `shape` (height, width), with a margin.

    It is widened until it holds every pixel of `anatomy`, a mask of that shape, and until its aspect lies within
    ASPECTS, as far as the frame allows. Without a region it is the whole frame.
    """
    height, width = shape
    if region is None:
        return Box(0, 0, width, height, width, height, found=False)
    rows, columns = (_with_margin(_extent(region, axis, length)) for axis, length in enumerate(shape))
    if anatomy is not None and anatomy.any():
        rows = _around(rows, _extent(anatomy, 0, height))
        columns = _around(columns, _extent(anatomy, 1, width))
    rows, columns = _inside(rows, height), _inside(columns, width)
    narrowest, widest = ASPECTS
    columns = _at_least(columns, narrowest * (rows[1] - rows[0]), width)
    rows = _at_least(rows, (columns[1] - columns[0]) / widest, height)
    (top, bottom), (left, right) = ((int(a), int(b)) for a, b in (rows, columns))
    return Box(left, top, right - left, bottom - top, width, height, found=True)


Span = tuple[float, float]  # first pixel, and the one after the last


def _extent(mask: NDArray[np.bool_], axis: int, length: int) -> Span:
    """From the first to the last place of a mask along an axis, on a scale of `length`."""
    places = np.nonzero(mask)[axis]
    scale = length / mask.shape[axis]
    return float(places.min()) * scale, float(places.max() + 1) * scale


def _with_margin(span: Span) -> Span:
    margin = MARGIN * (span[1] - span[0])
    return span[0] - margin, span[1] + margin


def _around(span: Span, other: Span) -> Span:
    return min(span[0], other[0]), max(span[1], other[1])


def _inside(span: Span, length: int) -> Span:
    return float(max(0, np.floor(span[0]))), float(min(length, np.ceil(span[1])))


def _at_least(span: Span, wanted: float, length: int) -> Span:
    """Grown on both sides to a length of `wanted`; where one side is at the frame's edge the other grows more."""
    wanted = min(float(np.ceil(wanted)), float(length))
    if span[1] - span[0] >= wanted:
        return span
    first = np.floor((span[0] + span[1] - wanted) / 2)
    first = float(min(max(0, first), length - wanted))
    return first, first + wanted
