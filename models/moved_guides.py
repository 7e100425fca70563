"""Guides moved to their recipients, in pixels: what a synthesis with `align` is given instead of the guides."""

import numpy as np
import torch
from numpy.typing import NDArray

from models import pixels
from models.alignment import align
from models.tensors import to_images

_DECIMALS = 4

Images = NDArray[np.uint8]
Masks = NDArray[np.bool_]


def move_guides(
    guides: Images, masks: Masks, unlabeled: Images, device: torch.device
) -> tuple[Images, Masks, list[float | None]]:
    """`models.alignment.align` for (B, 256, 512) uint8 and bool -> guides and masks moved, and their fits.

    The moved guide is rounded to gray levels once, so the synthesis and the figures of quality see the same image.
    Where nothing of a mask is left in the frame its guide stays where it was, and its fit is None.
    """
    found = align(to_images(guides, device), torch.from_numpy(masks).to(device)[:, None], to_images(unlabeled, device))
    moved_masks = found.masks[:, 0].cpu().numpy()
    there = np.array([mask.any() for mask in moved_masks])
    moved = pixels.from_unit(found.images[:, 0].cpu().numpy())
    fits = [round(fit, _DECIMALS) if kept else None for fit, kept in zip(found.fit.tolist(), there, strict=True)]
    chosen = there[:, None, None]
    return np.where(chosen, moved, guides), np.where(chosen, moved_masks, masks), fits
