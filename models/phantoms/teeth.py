"""One tooth's shape: crown, roots and pulp in its own coordinates, and its way into the picture."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from models.phantoms.anatomy import OCCLUSAL, Jaw
from models.phantoms.canvas import Points

LOWER_WIDTHS = (11.5, 12.5, 14.5, 16.0, 17.0, 27.0, 26.0, 24.0)
UPPER_WIDTHS = (17.5, 14.5, 16.0, 15.5, 15.5, 23.5, 22.0, 19.0)
ROOT_LENGTHS = (35.0, 36.0, 43.0, 37.0, 36.0, 33.0, 31.0, 25.0)
CROWN_HEIGHTS = (20.0, 19.5, 21.0, 18.5, 18.0, 18.5, 18.0, 17.0)
CANINE = 2
FIRST_PREMOLAR = 3
FIRST_MOLAR = 5
WISDOM = 7

ROOT_LEVELS = 5


@dataclass(frozen=True)
class Tooth:
    """One tooth: u across (mesial negative), v from the biting edge to the apex, in pixels of the template.

    `number` counts from 0 at the midline to 7, the wisdom tooth.
    """

    number: int
    upper: bool
    lateral: float
    width: float
    crown: float
    root: float
    angle: float
    bend: float
    edge: float

    def box(self) -> Points:
        """A generous frame around crown and roots."""
        half, length = self.width * 0.6, self.crown + self.root + 3
        return np.array([(-half, -3), (half, -3), (half, length), (-half, length)])

    def crown_outline(self) -> Points:
        """Outline of the crown, from neck to neck over the biting edge."""
        if self.number < CANINE:
            top = [(-0.44, 0.02), (0.44, 0.0)]
        elif self.number == CANINE:
            top = [(-0.44, 0.22), (-0.1, 0.0), (0.08, 0.0), (0.44, 0.24)]
        elif self.number < FIRST_MOLAR:
            top = [(-0.42, 0.16), (-0.16, 0.0), (0.05, 0.07), (0.2, 0.04), (0.42, 0.18)]
        else:
            top = [(-0.45, 0.14), (-0.28, 0.0), (0.0, 0.13), (0.26, 0.02), (0.45, 0.16)]
        neck = 0.4 if self.number < FIRST_MOLAR else 0.43
        flank = [(0.5, 0.4), (0.47, 0.65), (neck, 1.0)]
        shape = np.array([(-u, v) for u, v in reversed(flank)] + top + flank)
        return np.stack([shape[:, 0] * self.width, shape[:, 1] * self.crown], axis=1)

    def roots(self) -> list[Points]:
        """Outlines of the roots, each (2 * ROOT_LEVELS, 2); they begin inside the crown."""
        if self.number < FIRST_MOLAR:
            return [self._root(0.0, 0.0, 0.4)]
        if self.number == WISDOM:
            return [self._root(-0.1, -0.06, 0.26), self._root(0.12, 0.12, 0.24)]
        spread = 0.34 if self.upper else 0.3
        pair = [self._root(-0.2, -spread, 0.2), self._root(0.2, spread, 0.19)]
        return [*pair, self._root(0.0, 0.02, 0.2)] if self.upper else pair

    def _root(self, start: float, end: float, half: float) -> Points:
        fall = np.array([0.0, 0.1, 0.4, 0.75, 0.97])
        v = self.crown + self.root * fall
        v[0] = 0.7 * self.crown
        middle = (start + (end - start) * fall) * self.width + self.bend * fall**2
        halves = half * self.width * np.array([1.0, 0.97, 0.84, 0.6, 0.24])
        return band_outline(middle, halves, v)

    def pulp(self, root: Points, size: float) -> Points:
        """Outline of the pulp in one of `roots()`, with its share of the chamber; `size` about 0.5..1."""
        line = root_axis(root)
        chamber = np.array([(line[0, 0] * 0.8, 0.5 * self.crown)])
        line = np.concatenate([chamber, line])
        return band_outline(line[:, 0], size * np.array([1.4, 1.7, 1.5, 1.1, 0.8, 0.5]), line[:, 1])


@dataclass(frozen=True)
class PlacedTooth:
    """A tooth in its socket; called, it takes the tooth's own points (N, 2) to the picture's."""

    jaw: Jaw
    side: int
    tooth: Tooth

    def __call__(self, points: Points) -> Points:
        tooth = self.tooth
        u, v = points[:, 0], points[:, 1] - tooth.crown
        cos, sin = np.cos(tooth.angle), np.sin(tooth.angle)
        u, v = u * cos - v * sin, u * sin + v * cos + tooth.crown
        y = OCCLUSAL - tooth.edge - v if tooth.upper else OCCLUSAL + tooth.edge + v
        turned = np.empty(points.shape)
        turned[:, 0], turned[:, 1] = tooth.lateral + u, y
        return self.jaw.place(self.side, turned)


def draw_tooth(rng: Generator, number: int, lateral: float, width: float, upper: bool, bite: float) -> Tooth:
    """A tooth of an arch from `rng`; a wisdom tooth may lie impacted."""
    angle = rng.normal(0, 0.05)
    lean = 0.02 if upper else rng.normal(-0.035, 0.015)
    angle += lean * number * (0.6 if number < FIRST_MOLAR else 1.0)
    edge = bite + rng.normal(0, 1.3)
    if number == WISDOM and rng.random() < 0.35:
        angle += rng.uniform(0.2, 0.7) if upper else rng.uniform(-1.5, -0.3)
        edge += rng.uniform(4, 14)
    crown = CROWN_HEIGHTS[number] * rng.normal(1, 0.05) * (1.05 if upper else 0.95)
    root = ROOT_LENGTHS[number] * rng.normal(1, 0.08)
    bend = rng.normal(0.1, 0.1) * width
    return Tooth(number, upper, lateral, width, crown, root, angle, bend, edge)


def root_axis(root: Points) -> Points:
    """Middle line (ROOT_LEVELS, 2) of a root's outline, crown to apex."""
    return (root[:ROOT_LEVELS] + root[: ROOT_LEVELS - 1 : -1]) / 2


def band_outline(middle: Points, halves: Points, v: Points) -> Points:
    """Outline (2N, 2) of an upright band: down its left edge, up its right; all arguments (N,)."""
    left, right = np.stack([middle - halves, v], axis=1), np.stack([middle + halves, v], axis=1)
    return np.concatenate([left, right[::-1]])
