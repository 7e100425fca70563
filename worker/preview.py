"""The contact sheet of a dataset: guide, unlabeled image and synthetic image side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

CELL_HEIGHT, CELL_WIDTH = 192, 384
GAP, HEAD, CAPTION = 8, 24, 18
OUTLINE = (255, 196, 0)
TITLES = ("guide and its mask", "unlabeled pool image")


@dataclass(frozen=True)
class Row:
    """One sample: images (256, 512) uint8, the guide's mask and the sample's label (256, 512) bool."""

    guide: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    unlabeled: NDArray[np.uint8]
    synthetic: NDArray[np.uint8]
    label: NDArray[np.bool_]
    caption: str


def preview_png(rows: Sequence[Row], own_masks: bool) -> bytes:
    """A sheet of three columns, a row per sample, as PNG; the same rows give the same bytes.

    own_masks: the samples' labels are their own, not their guides'.
    """
    width = 3 * CELL_WIDTH + 4 * GAP
    height = HEAD + len(rows) * (CELL_HEIGHT + CAPTION + GAP) + GAP
    sheet = Image.new("RGB", (width, height), (24, 24, 24))
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13)
    lefts = [GAP + column * (CELL_WIDTH + GAP) for column in range(3)]
    titles = (*TITLES, "synthetic, with its mask" if own_masks else "synthetic, with the guide's mask")
    for left, title in zip(lefts, titles, strict=True):
        draw.text((left, 5), title, fill=(235, 235, 235), font=font)
    for number, row in enumerate(rows):
        top = HEAD + number * (CELL_HEIGHT + CAPTION + GAP)
        cells = (outlined(row.guide, row.mask), coloured(row.unlabeled), outlined(row.synthetic, row.label))
        for left, cell in zip(lefts, cells, strict=True):
            sheet.paste(Image.fromarray(cell).resize((CELL_WIDTH, CELL_HEIGHT), Image.Resampling.LANCZOS), (left, top))
        draw.text((GAP, top + CELL_HEIGHT + 1), row.caption, fill=(170, 170, 170), font=font)
    out = BytesIO()
    sheet.save(out, "PNG")
    return out.getvalue()


def outlined(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """(256, 512) -> (256, 512, 3): pixels just outside the mask are coloured, those inside left alone."""
    padded = np.pad(mask, 1)
    grown = padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    sheet = coloured(image)
    sheet[grown & ~mask] = OUTLINE
    return sheet


def coloured(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(256, 512) gray -> (256, 512, 3)."""
    return np.repeat(image[..., None], 3, axis=2)
