"""Random fields: trabeculae, clouds of soft tissue, film grain, and curves that wander."""

from functools import cache

import numpy as np
import scipy.fft
from numpy.random import Generator

from models.phantoms.canvas import HEIGHT, WIDTH, Field, Points


def band_noise(rng: Generator, fine: float, coarse: float, stretch: float = 1.0) -> Field:
    """Noise with structures between `fine` and `coarse` pixels: (256, 512) float32, mean 0, sd 1.

    `stretch` above 1 lengthens the structures along x.
    """
    white = rng.standard_normal((HEIGHT, WIDTH), dtype=np.float32)
    gain = _lowpass(fine, stretch) - _lowpass(coarse, stretch)
    field = scipy.fft.irfft2(scipy.fft.rfft2(white) * gain, s=(HEIGHT, WIDTH))
    return np.asarray(field / field.std(), dtype=np.float32)


def _lowpass(sigma: float, stretch: float) -> Field:
    """A Gaussian's gain on the half spectrum of a picture: (256, 257) float32."""
    down = np.exp(-2 * (np.pi * sigma * scipy.fft.fftfreq(HEIGHT)) ** 2)
    across = np.exp(-2 * (np.pi * sigma * stretch * scipy.fft.rfftfreq(WIDTH)) ** 2)
    return np.asarray(down[:, None] * across[None, :], dtype=np.float32)


def clouds(rng: Generator, cells: int) -> Field:
    """Slow changes over the picture, about `cells` of them across: (256, 512) float32, sd about 1."""
    coarse = rng.standard_normal((cells // 2 + 3, cells + 3))
    across = _spread(coarse.shape[1], WIDTH)
    down = _spread(coarse.shape[0], HEIGHT)
    rows = np.einsum("yi,ij->yj", down, coarse).astype(np.float32)
    return np.asarray(np.einsum("yi,xi->yx", rows, across.astype(np.float32)), dtype=np.float32)


def wander(rng: Generator, count: int, knots: int) -> Points:
    """A smooth random curve of `count` values with `knots` bends, sd about 1."""
    # einsum, since BLAS wakes a thread per core for these small products and costs more than it saves.
    knot_values = rng.standard_normal(knots + 3)
    return np.asarray(np.einsum("ck,k->c", _spread(knots + 3, count), knot_values))


@cache
def _spread(knots: int, count: int) -> Points:
    """Uniform cubic B-spline weights (count, knots), scaled so that white knots give sd about 1."""
    at = np.linspace(1.0, knots - 2.0, count)[:, None]
    distance = np.abs(at - np.arange(knots)[None, :])
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    weights = np.where(distance < 1, near, far)
    return np.asarray(weights / np.sqrt((weights**2).sum(axis=1, keepdims=True)))
