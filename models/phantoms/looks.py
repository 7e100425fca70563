"""Looks: what a device and its processing make of the same patient."""

from collections.abc import Callable
from zlib import crc32

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from models.phantoms.canvas import HEIGHT, WIDTH, Field, Layer, Points, blur, grid
from models.phantoms.texture import band_noise, clouds

PLAIN = "plain"


def _plain(rng: Generator, image: Field) -> Field:
    image = _tone(image, gamma=rng.uniform(0.9, 1.12), gain=rng.uniform(0.92, 1.1))
    return _grain(rng, blur(image, rng.uniform(0.3, 0.8)), rng.uniform(1.2, 3.2))


def _equalised(rng: Generator, image: Field) -> Field:
    noisy = _grain(rng, blur(image, rng.uniform(0.4, 0.9)), rng.uniform(0.8, 1.8))
    clip, rows, columns = rng.uniform(1.5, 3.2), int(rng.integers(2, 5)), int(rng.integers(4, 9))
    even = _equalise(noisy, clip, rows, columns)
    share = rng.uniform(0.5, 0.9)
    return even * share + noisy * (1 - share)


def _high_key(rng: Generator, image: Field) -> Field:
    image = _tone(image, gamma=rng.uniform(0.6, 0.8), gain=rng.uniform(1.0, 1.15))
    return _grain(rng, blur(image + rng.uniform(2, 20), rng.uniform(0.4, 0.9)), rng.uniform(1.5, 3.5))


def _low_key(rng: Generator, image: Field) -> Field:
    image = _tone(image - rng.uniform(2, 12), gamma=rng.uniform(1.3, 1.7), gain=rng.uniform(0.85, 1.05))
    return _grain(rng, blur(image, rng.uniform(0.4, 0.9)), rng.uniform(1.0, 2.5))


def _sharpened(rng: Generator, image: Field) -> Field:
    image = _tone(image, gamma=rng.uniform(0.85, 1.2), gain=rng.uniform(0.9, 1.05))
    noisy = _grain(rng, blur(image, rng.uniform(0.3, 0.6)), rng.uniform(1.0, 2.8))
    columns = rng.standard_normal((1, WIDTH), dtype=np.float32) * np.float32(rng.uniform(0, 0.9))
    banded: Field = noisy + columns
    return banded + rng.uniform(0.6, 1.5) * (banded - blur(banded, rng.uniform(1.2, 3.0)))


def _low_contrast(rng: Generator, image: Field) -> Field:
    middle = rng.uniform(85, 125)
    image = middle + (_tone(image, gamma=0.9, gain=1.0) - 95) * rng.uniform(0.4, 0.62)
    return _grain(rng, blur(image, rng.uniform(0.7, 1.3)), rng.uniform(1.0, 2.5))


def _framed(rng: Generator, image: Field) -> Field:
    image = _tone(image, gamma=rng.uniform(0.8, 1.3), gain=rng.uniform(0.9, 1.1))
    image = _grain(rng, blur(image, rng.uniform(0.3, 0.8)), rng.uniform(1.0, 2.5))
    x, y = grid()
    left, right, top, bottom = rng.uniform(0, 18, 4) * (rng.random(4) < 0.75)
    inside = (x >= left) & (x < WIDTH - right) & (y >= top) & (y < HEIGHT - bottom)
    paper = rng.choice([0.0, 0.0, 16.0, 235.0, 255.0])
    return _letters(rng, np.where(inside, image, np.float32(paper)))


def _film(rng: Generator, image: Field) -> Field:
    curve = 255 / (1 + np.exp(-(image - rng.uniform(90, 125)) / rng.uniform(38, 54)))
    uneven = curve * (1 + 0.1 * clouds(rng, 3)) + 5 * clouds(rng, 2)
    mottled = uneven + band_noise(rng, 0.4, 1.2) * rng.uniform(1.5, 4.0)
    return _grain(rng, blur(np.asarray(mottled, np.float32), rng.uniform(0.7, 1.2)), rng.uniform(0.8, 2.0))


_LOOKS: dict[str, Callable[[Generator, Field], Field]] = {
    PLAIN: _plain,
    "equalised": _equalised,
    "high_key": _high_key,
    "low_key": _low_key,
    "sharpened": _sharpened,
    "low_contrast": _low_contrast,
    "framed": _framed,
    "film": _film,
}
LOOKS: tuple[str, ...] = tuple(_LOOKS)


def develop(density: Field, look: str, seed: int) -> NDArray[np.uint8]:
    """Density (256, 512) float32 in gray levels -> the look's picture (256, 512) uint8."""
    # The name's checksum, not its place in LOOKS: a look added later must not change the others' pictures.
    rng = np.random.default_rng([seed, crc32(look.encode())])
    picture = _LOOKS[look](rng, density)
    if rng.random() < 0.15:
        picture = _letters(rng, picture)
    return np.asarray(np.clip(np.rint(picture), 0, 255), np.uint8)


def _tone(image: Field, gamma: float, gain: float) -> Field:
    return np.asarray(255 * np.clip(image / 255, 0, None) ** np.float32(gamma) * np.float32(gain), np.float32)


def _grain(rng: Generator, image: Field, sd: float) -> Field:
    return image + rng.standard_normal((HEIGHT, WIDTH), dtype=np.float32) * np.float32(sd)


def _equalise(image: Field, clip: float, rows: int, columns: int) -> Field:
    """Contrast-limited adaptive histogram equalisation; image in gray levels, result 0..255."""
    bins = 64
    level = np.clip(image / 256 * bins, 0, bins - 1e-3)
    x, y = grid()
    at_row = np.clip((y + 0.5) / HEIGHT * rows - 0.5, 0, rows - 1)
    at_column = np.clip((x + 0.5) / WIDTH * columns - 0.5, 0, columns - 1)

    tile = np.rint(at_row).astype(int) * columns + np.rint(at_column).astype(int)
    counts = np.bincount((tile * bins + level.astype(int)).ravel(), minlength=rows * columns * bins)
    share = counts.reshape(rows * columns, bins) / counts.reshape(rows * columns, bins).sum(1, keepdims=True)
    capped = np.minimum(share, clip / bins)
    capped += (1 - capped.sum(1, keepdims=True)) / bins
    curves = np.concatenate([np.zeros((rows * columns, 1)), np.cumsum(capped, axis=1)], axis=1) * 255

    low_row, low_column = np.floor(at_row).astype(int), np.floor(at_column).astype(int)
    below, right = at_row - low_row, at_column - low_column
    bin_low = level.astype(int)
    within = level - bin_low
    result = np.zeros_like(image)
    for row, row_weight in ((low_row, 1 - below), (np.minimum(low_row + 1, rows - 1), below)):
        for column, weight in ((low_column, 1 - right), (np.minimum(low_column + 1, columns - 1), right)):
            place = row * columns + column
            value = curves[place, bin_low] * (1 - within) + curves[place, bin_low + 1] * within
            result += (row_weight * weight * value).astype(np.float32)
    return result


def _letters(rng: Generator, image: Field) -> Field:
    """Burn an R, an L or a stamp into a margin."""
    layer = Layer()
    size = rng.uniform(5, 9)
    pen = rng.uniform(0.8, 2.0)
    height = rng.uniform(20, 230)
    if rng.random() < 0.75:
        _stroke(layer, _R, np.array([rng.uniform(6, 34), height]), size, pen)
    if rng.random() < 0.4:
        _stroke(layer, _L, np.array([rng.uniform(478, 502), height]), size, pen)
    if rng.random() < 0.25:
        for i in range(rng.integers(4, 12)):
            glyph = rng.uniform(0, 1, (4, 2))
            _stroke(layer, [glyph], np.array([12 + i * 6.0, 10.0]), 4.5, 0.8)
    ink = layer.coverage()
    return image * (1 - ink) + ink * np.float32(rng.uniform(190, 255))


_R = [
    np.array([(0, 1), (0, 0), (0.6, 0), (0.75, 0.25), (0.6, 0.5), (0, 0.5)], float),
    np.array([(0.35, 0.5), (0.75, 1)], float),
]
_L = [np.array([(0, 0), (0, 1), (0.65, 1)], float)]


def _stroke(layer: Layer, glyph: list[Points], at: Points, size: float, pen: float) -> None:
    for line in glyph:
        layer.line(at + line * (size, size * 1.3), pen)
