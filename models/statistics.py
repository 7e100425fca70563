"""Giving one image the local mean and spread of another: a guide's anatomy in the recipient's look."""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.blending import LATENT_PIXEL, dilate

_REACH_LATENT_PIXELS = 4.0  # sigma of the Gaussian by which a brightness is local
_PRIOR_PIXELS = 16  # below about this many pixels the statistics are noise, and little is changed
_LARGEST_GAIN = 4.0
_LEAST_SPREAD = 1e-3
_LEAST_WEIGHT = 1e-300


def match_brightness(images: Tensor, reference: Tensor, where: Tensor) -> Tensor:
    """`images`, brightened or darkened until along the border of the masked area they are as bright as the reference.

    images, reference: (B, 1, 256, 512); where: a latent mask (B, 1, 32, 64) in {0, 1}. What is added changes smoothly
    from place to place. It is the difference in the area's outermost latent pixels, which show what surrounds the
    anatomy. One number for all of the area would leave a band that is too bright here and too dark there, by which a
    segmenter finds the anatomy in samples, and in no other image. Where the area is empty nothing changes.
    """
    border = (where * dilate(1 - where, 1)).double()
    difference = F.avg_pool2d(reference.double() - images.double(), LATENT_PIXEL)
    down, across = (_gaussian(size).to(border) for size in where.shape[2:])
    local = (down @ (difference * border) @ across) / (down @ border @ across).clamp(min=_LEAST_WEIGHT)
    smooth = F.interpolate(local.to(images.dtype), scale_factor=LATENT_PIXEL, mode="bilinear", align_corners=False)
    return images + smooth


def match_statistics(values: Tensor, reference: Tensor, where: Tensor) -> Tensor:
    """`values` with the reference's mean and standard deviation in the masked area, per row and channel.

    values, reference: (B, C, H, W); where: (B, 1, H, W) in {0, 1}. The change applies to all of (B, C, H, W),
    though only the masked area is matched. Small areas are matched in part only, empty ones not at all.
    """
    mean, reference_mean = _mean(values, where), _mean(reference, where)
    shifted_mean = mean + _trust(where) * (reference_mean - mean)
    matched = (values - mean) * _gain(values, reference, where) + shifted_mean
    return matched.to(values.dtype)


def match_spread(values: Tensor, reference: Tensor, where: Tensor) -> Tensor:
    """As `match_statistics`, but the standard deviation alone: zero stays zero."""
    return (values * _gain(values, reference, where)).to(values.dtype)


# All sums are in float64, so that their order (batches, threads) leaves no trace once rounded to float32.


def _gaussian(size: int) -> Tensor:
    """(size, size): for each of a line of latent pixels the weights of all."""
    place = torch.arange(size, dtype=torch.float64)
    return torch.exp(-(((place[:, None] - place) / _REACH_LATENT_PIXELS) ** 2) / 2)


def _gain(values: Tensor, reference: Tensor, where: Tensor) -> Tensor:
    """The factor (B, C, 1, 1) from one standard deviation to the other; near 1 if the area is small."""
    spread = _spread(values, where).clamp(min=_LEAST_SPREAD)
    reference_spread = _spread(reference, where).clamp(min=_LEAST_SPREAD)
    gain = (reference_spread / spread).clamp(1 / _LARGEST_GAIN, _LARGEST_GAIN)
    return gain ** _trust(where)


def _trust(where: Tensor) -> Tensor:
    """(B, 1, 1, 1) in [0, 1): how much the statistics of an area are worth, by its size."""
    pixels = where.double().sum(dim=(2, 3), keepdim=True)
    return pixels / (pixels + _PRIOR_PIXELS)


def _mean(values: Tensor, where: Tensor) -> Tensor:
    weights = where.double()
    pixels = weights.sum(dim=(2, 3), keepdim=True).clamp(min=1)
    return (values.double() * weights).sum(dim=(2, 3), keepdim=True) / pixels


def _spread(values: Tensor, where: Tensor) -> Tensor:
    squares = (values.double() - _mean(values, where)) ** 2
    return _mean(squares, where).sqrt()
