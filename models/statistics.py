"""Giving one image the local mean and the spread of another: a guide's anatomy in the recipient's look."""

import torch
from torch import Tensor

from models.blending import dilate

_REACH_LATENT_PIXELS = 4.0  # sigma of the Gaussian by which a mean is local
_PRIOR_PIXELS = 16  # below about this many pixels the statistics are noise, and little is changed
_LARGEST_GAIN = 4.0
_LEAST_SPREAD = 1e-3
_LEAST_WEIGHT = 1e-300


def match_statistics(values: Tensor, reference: Tensor, where: Tensor, latent_pixel: int = 1) -> Tensor:
    """`values` with the reference's local mean along the border of the masked area, and its spread in the area.

    values, reference: (B, C, H, W); where: (B, 1, H, W) in {0, 1}; latent_pixel: how many of these pixels, a side,
    are one of a latent. The mean is taken where the area is at most a latent pixel deep, so of what surrounds the
    anatomy: one mean for all of it would leave a band that is too bright here and too dark there, and by which a
    segmenter finds the anatomy in samples, and in no other image.

    The change applies to all of (B, C, H, W), though only the masked area is matched, per row and channel. The spread
    of small areas is matched in part only. An empty area changes nothing.
    """
    border = where * dilate(1 - where, latent_pixel)
    sigma = _REACH_LATENT_PIXELS * latent_pixel
    mean, reference_mean = (_local_mean(image, border, sigma) for image in (values, reference))
    return ((values - mean) * _gain(values, reference, where) + reference_mean).to(values.dtype)


def match_spread(values: Tensor, reference: Tensor, where: Tensor) -> Tensor:
    """As `match_statistics`, but the standard deviation alone: zero stays zero."""
    return (values * _gain(values, reference, where)).to(values.dtype)


# All sums are in float64, so that their order (batches, threads) leaves no trace once rounded to float32.


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


def _local_mean(values: Tensor, where: Tensor, sigma: float) -> Tensor:
    """(B, C, H, W): around every pixel the mean of the masked area, weighed by a Gaussian; 0 if the area is empty."""
    weights = where.double()
    down, across = (_gaussian(size, sigma).to(weights) for size in values.shape[2:])
    return (down @ (values.double() * weights) @ across) / (down @ weights @ across).clamp(min=_LEAST_WEIGHT)


def _gaussian(size: int, sigma: float) -> Tensor:
    """(size, size): the weights of a line of pixels for each of them."""
    pixel = torch.arange(size, dtype=torch.float64)
    return torch.exp(-(((pixel[:, None] - pixel) / sigma) ** 2) / 2)


def _spread(values: Tensor, where: Tensor) -> Tensor:
    squares = (values.double() - _mean(values, where)) ** 2
    return _mean(squares, where).sqrt()
