"""Pictures without a jaw, so that the region finder learns to find nothing: flat, grainy, cloudy, or in disorder."""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from models.segmenter import Labeled

SHARE = 8  # radiographs to one picture of nothing
_TILES = (8, 16)  # height and width of the pieces that `_disorder` shuffles

Pixels = NDArray[np.uint8]
Field = NDArray[np.float64]


def with_nothing(labeled: Labeled, seed: int) -> Labeled:
    """`labeled`, and one picture without a region for every 8 of its radiographs, of the same size."""
    count = max(1, len(labeled) // SHARE)
    random = np.random.default_rng([seed, len(labeled)])
    made = [_KINDS[n % len(_KINDS)](random, labeled.images[random.integers(len(labeled))]) for n in range(count)]
    return Labeled(
        np.concatenate([labeled.images, np.stack(made)]),
        np.concatenate([labeled.masks, np.zeros_like(labeled.masks[:count])]),
        labeled.groups + tuple(f"nothing {n}" for n in range(count)),
    )


def _flat(random: Generator, radiograph: Pixels) -> Pixels:
    level = random.choice([0.0, 255.0, random.uniform(0, 255)])
    return _levels(random.normal(level, random.uniform(0, 4), radiograph.shape))


def _grain(random: Generator, radiograph: Pixels) -> Pixels:
    return _levels(random.normal(random.uniform(40, 210), random.uniform(10, 90), radiograph.shape))


def _clouds(random: Generator, radiograph: Pixels) -> Pixels:
    return _levels(_smooth(random, radiograph.shape, random.uniform(1, 20)))


def _disc(random: Generator, radiograph: Pixels) -> Pixels:
    """A round picture on black, as a microscope or an eye camera gives."""
    height, width = radiograph.shape
    y, x = np.mgrid[:height, :width]
    centre = random.uniform(0.3, 0.7, 2) * (height, width)
    radii = random.uniform(0.2, 0.6, 2) * (height, width)
    inside = ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 < 1
    return _levels(np.where(inside, _smooth(random, radiograph.shape, random.uniform(1, 10)), random.uniform(0, 20)))


def _disorder(random: Generator, radiograph: Pixels) -> Pixels:
    """A radiograph's pieces, shuffled."""
    height, width = radiograph.shape
    rows, columns = height // _TILES[0], width // _TILES[1]
    tiles = radiograph.reshape(rows, _TILES[0], columns, _TILES[1]).swapaxes(1, 2).reshape(-1, *_TILES)
    mixed = random.permutation(tiles).reshape(rows, columns, *_TILES)
    return np.ascontiguousarray(mixed.swapaxes(1, 2).reshape(height, width))


def _negative(_random: Generator, radiograph: Pixels) -> Pixels:
    """Turned over and inverted: nothing that a scanner gives."""
    return np.ascontiguousarray(255 - radiograph[::-1])


_KINDS: tuple[Callable[[Generator, Pixels], Pixels], ...] = (_flat, _grain, _clouds, _disc, _disorder, _negative)


def _smooth(random: Generator, shape: tuple[int, ...], sigma: float) -> Field:
    field: Field = gaussian_filter(random.standard_normal(shape), sigma)
    field = (field - field.mean()) / max(float(field.std()), 1e-9)
    return random.uniform(60, 190) + random.uniform(10, 60) * field


def _levels(values: Field) -> Pixels:
    levels: Pixels = np.rint(values.clip(0, 255)).astype(np.uint8)
    return levels
