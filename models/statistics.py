"""Giving one image the local mean and spread of another: a guide's anatomy in the recipient's look."""

from torch import Tensor

_PRIOR_PIXELS = 16  # below about this many pixels the statistics are noise, and little is changed
_LARGEST_GAIN = 4.0
_LEAST_SPREAD = 1e-3


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
