"""Pixels as the networks take them."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_images(pixels: NDArray[np.uint8], device: torch.device) -> Tensor:
    """(B, H, W) uint8 -> (B, 1, H, W) float32 in [-1, 1]; `models.pixels.from_unit` undoes it exactly."""
    return torch.from_numpy(pixels).to(device).float()[:, None] / 127.5 - 1
