"""The jaw as a plan: where one patient's borders, arches and canals lie, before any pixel is drawn.

Template coordinates: `lateral` distance from the midline (0 at the chin, about 250 at the condyle) and `y`,
both in pixels of a 512x256 picture; `Jaw.place` moves them into one patient's picture, side by side.
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from models.phantoms.canvas import Points, smooth

LEFT, RIGHT = -1, 1
SIDES = (LEFT, RIGHT)
OCCLUSAL = 128.0

LOWER_BORDER = np.array(
    [(0, 246), (45, 244), (80, 236), (110, 224), (140, 210), (170, 197), (196, 185), (213, 170), (222, 150)],
    float,
)
POSTERIOR_BORDER = np.array([(226, 120), (229, 90), (237, 55), (247, 34)], float)
CONDYLE = np.array([(252, 18), (248, 6), (240, 3), (230, 9), (225, 28)], float)
NOTCH_AND_CORONOID = np.array([(213, 49), (201, 56), (189, 51), (178, 32), (171, 17), (164, 20)], float)
ANTERIOR_BORDER = np.array([(162, 45), (161, 80), (160, 108), (151, 125)], float)
OBLIQUE_LINE = np.array([(161, 90), (157, 118), (146, 140), (127, 158), (105, 168)], float)
RAMUS_CANAL = np.array([(192, 88), (187, 110), (179, 134), (166, 156), (148, 175)], float)
BODY_CANAL = np.array([(127, 190), (106, 200), (90, 201), (79, 196), (73, 187)], float)
CANAL = np.concatenate([RAMUS_CANAL, BODY_CANAL])


@dataclass(frozen=True)
class Jaw:
    """One patient's proportions; `place` turns template coordinates into picture coordinates."""

    midline: float
    centre_y: float
    widths: tuple[float, float]  # left, right: asymmetry comes from the head's turn
    height: float
    smile: float  # pixels by which the arch ends rise
    tilt: float
    chin: float  # pixels by which the chin hangs lower than the template's
    gonial: float  # pixels by which the angle hangs lower
    crest: float  # pixels of alveolar bone lost
    bite: float  # half the opening between the arches

    def place(self, side: int, points: Points) -> Points:
        """Template points (N, 2) of one side -> picture points (N, 2)."""
        lateral, y = points[:, 0], points[:, 1]
        reach = lateral / 130
        # The rise levels off beyond the last molar: a film curves the arch, it does not fold the rami.
        lift = self.smile * np.tanh(reach**2 * 1.2) * np.clip((y - 20) / 110, 0, 1)
        x = self.midline + side * lateral * self.widths[0 if side == LEFT else 1]
        placed_y = self.centre_y + (y - 150) * self.height - lift + side * self.tilt * reach
        placed = np.empty(points.shape)
        placed[:, 0], placed[:, 1] = x, placed_y
        return placed

    def lower_border(self) -> Points:
        """Template points of the inferior border, chin to above the angle."""
        border = LOWER_BORDER.copy()
        border[:, 1] += self.chin * np.exp(-((border[:, 0] / 90) ** 2))
        border[:, 1] += self.gonial * np.exp(-(((border[:, 0] - 195) / 40) ** 2))
        return border

    def rear_border(self) -> Points:
        """Template points of the ramus, from above the angle over condyle and coronoid to the last molar."""
        rear = [POSTERIOR_BORDER, CONDYLE, NOTCH_AND_CORONOID, ANTERIOR_BORDER]
        return np.concatenate([self.lower_border()[-1:], *rear])

    def crest_line(self) -> Points:
        """Template points of the alveolar crest, from the ramus to the midline."""
        lateral = np.array([140.0, 120, 95, 70, 45, 20, 0])
        return np.stack([lateral, 145 + self.bite + self.crest - 6 * (lateral / 140) ** 4], axis=1)

    def outline(self, side: int) -> Points:
        """Picture outline of one half of the mandible, a closed polygon."""
        half = np.concatenate([self.lower_border()[:-1], self.rear_border(), self.crest_line()])
        return smooth(self.place(side, half))


def draw_jaw(rng: Generator) -> Jaw:
    """A patient's proportions from `rng`."""
    # Some films crop the rami: there the same jaw is larger.
    cropped = rng.random() < 0.4
    wide = rng.uniform(1.03, 1.17) if cropped else rng.normal(0.985, 0.025)
    turn = rng.normal(0.0, 0.02)
    lost = rng.uniform(6, 16) if rng.random() < 0.06 else rng.uniform(-1, 4)
    return Jaw(
        midline=256 + rng.normal(0, 6),
        centre_y=145 + rng.normal(0, 6),
        widths=(wide - turn, wide + turn),
        height=rng.normal(1.0, 0.04),
        smile=rng.uniform(6, 24) if cropped else rng.uniform(-4, 14),
        tilt=rng.normal(0, 2),
        chin=rng.normal(0, 4),
        gonial=rng.normal(0, 5),
        crest=lost,
        bite=rng.uniform(-0.5, 5.5),
    )
