"""Soft-edged shapes on a 256x512 picture: every layer of a phantom is drawn at twice the size and reduced."""

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

HEIGHT = 256
WIDTH = 512
OVERSAMPLING = 2

Field = NDArray[np.float32]
Points = NDArray[np.float64]


@cache
def grid() -> tuple[Field, Field]:
    """Pixel centres in pixels: x (1, 512) and y (256, 1), float32; they broadcast to a picture."""
    return np.arange(WIDTH, dtype=np.float32)[None, :], np.arange(HEIGHT, dtype=np.float32)[:, None]


def blur(field: Field, sigma: float) -> Field:
    """Gaussian blur of a (256, 512) float32 field; a wide one at half size, which makes no visible difference."""
    if sigma < 3:
        return np.asarray(gaussian_filter(field, sigma, truncate=3.0), np.float32)
    half = (field[::2, ::2] + field[1::2, ::2] + field[::2, 1::2] + field[1::2, 1::2]) / 4
    half = gaussian_filter(half, sigma / 2, truncate=3.0)
    return np.repeat(np.repeat(half, 2, axis=0), 2, axis=1)


class Layer:
    """A drawing surface whose values lie in 0..1; a later shape covers an earlier one."""

    def __init__(self) -> None:
        self._image = Image.new("L", (WIDTH * OVERSAMPLING, HEIGHT * OVERSAMPLING))
        self._draw = ImageDraw.Draw(self._image)

    def polygon(self, points: Points, value: float = 1.0) -> None:
        """Fill the polygon `points` (N, 2), x and y in pixels."""
        self._draw.polygon(_flat(points), fill=_level(value))

    def line(self, points: Points, width: float, value: float = 1.0) -> None:
        """Stroke the polyline `points` (N, 2) with a pen of `width` pixels."""
        pen = max(1, round(width * OVERSAMPLING))
        self._draw.line(_flat(points), fill=_level(value), width=pen, joint="curve")

    def disc(self, centre: Points, radius_x: float, radius_y: float, value: float = 1.0) -> None:
        """Fill an upright ellipse around `centre` (2,)."""
        x, y = (float(v) * OVERSAMPLING + 0.5 for v in centre)
        rx, ry = radius_x * OVERSAMPLING, radius_y * OVERSAMPLING
        self._draw.ellipse((x - rx, y - ry, x + rx, y + ry), fill=_level(value))

    def ribbon(self, centre: Points, widths: Points, values: Points) -> None:
        """A band of changing width and value along `centre` (N, 2); `widths` and `values` are (N,)."""
        left, right = ribbon_sides(centre * OVERSAMPLING + 0.5, widths * OVERSAMPLING)
        quads = np.concatenate([left[:-1], left[1:], right[1:], right[:-1]], axis=1).tolist()
        levels = np.rint(np.clip(values[:-1] + values[1:], 0, 2) * 127.5).astype(int).tolist()
        for quad, level in zip(quads, levels, strict=True):
            self._draw.polygon(quad, fill=level)

    def coverage(self) -> Field:
        """The layer as (256, 512) float32 in 0..1."""
        return np.asarray(self._image.reduce(OVERSAMPLING), dtype=np.float32) / np.float32(255)


def ribbon_sides(centre: Points, widths: Points) -> tuple[Points, Points]:
    """The two edges of a band along `centre` (N, 2), each (N, 2)."""
    # Written out, not np.gradient and np.stack: a phantom has many bands, and their overhead was a tenth of its time.
    tangent = np.empty(centre.shape)
    tangent[1:-1] = (centre[2:] - centre[:-2]) / 2
    tangent[0], tangent[-1] = centre[1] - centre[0], centre[-1] - centre[-2]
    reach = widths / 2 / (np.sqrt((tangent * tangent).sum(axis=1)) + 1e-9)
    offset = np.empty(centre.shape)
    offset[:, 0], offset[:, 1] = -tangent[:, 1] * reach, tangent[:, 0] * reach
    return centre + offset, centre - offset


def smooth(points: Points, rounds: int = 3, closed: bool = False) -> Points:
    """Corner cutting (Chaikin): (N, 2) -> a rounder line of about N * 2 ** rounds points."""
    for _ in range(rounds):
        line = np.concatenate([points, points[:1]]) if closed else points
        quarter = (line[1:] - line[:-1]) / 4
        cut = np.empty((2 * len(quarter), 2))
        cut[0::2], cut[1::2] = line[:-1] + quarter, line[1:] - quarter
        points = cut if closed else np.concatenate([points[:1], cut, points[-1:]])
    return points


def resample(points: Points, count: int) -> Points:
    """`count` points at equal distances along the polyline `points` (N, 2)."""
    steps = points[1:] - points[:-1]
    travelled = np.zeros(len(points))
    np.cumsum(np.sqrt((steps * steps).sum(axis=1)), out=travelled[1:])
    at = np.linspace(0.0, travelled[-1], count)
    even = np.empty((count, 2))
    even[:, 0], even[:, 1] = np.interp(at, travelled, points[:, 0]), np.interp(at, travelled, points[:, 1])
    return even


def _flat(points: Points) -> list[float]:
    flat: list[float] = (points * OVERSAMPLING + 0.5).ravel().tolist()
    return flat


def _level(value: float) -> int:
    return round(255 * min(max(value, 0.0), 1.0))
