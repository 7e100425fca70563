"""What lies before and behind the jaw on film: flesh, the spine's shadow, ghosts of the far side."""

import numpy as np
from numpy.random import Generator

from models.phantoms.anatomy import SIDES, Jaw
from models.phantoms.canvas import HEIGHT, WIDTH, Field, Layer, blur, grid, smooth
from models.phantoms.texture import clouds, wander


def render_soft_tissue(rng: Generator, jaw: Jaw) -> Field:
    """Flesh of face and neck with the air around it: (256, 512) float32, gray levels."""
    face = Layer()
    for side in SIDES:
        border = jaw.lower_border()
        border[:, 0] += np.clip(border[:, 0] - 150, 0, 40) * 0.5
        border[:, 1] += rng.uniform(2, 14)
        rest = np.array([(262.0, 140.0), (275, 60), (290, -60), (0, -60)])
        face.polygon(smooth(jaw.place(side, np.concatenate([border, rest]))))
    flesh = blur(face.coverage(), rng.uniform(3, 9)) * rng.uniform(46, 66)
    # Neck and collar fill the corners on some films, air blackens them on others.
    _, y = grid()
    corners = rng.uniform(4, 56) * np.clip(1.3 - (y / HEIGHT) * rng.uniform(0, 1), 0, 1)
    return np.asarray(np.maximum(flesh, 0) + corners + 7 * clouds(rng, 6), np.float32)


def render_ghosts(rng: Generator, jaw: Jaw) -> Field:
    """The spine, and the blurred far jaw that ends in a level edge: (256, 512) float32, gray levels."""
    x, y = grid()
    ghosts = _spine(rng, jaw)
    for side in SIDES:
        if rng.random() < 0.6:
            edge = jaw.centre_y + rng.uniform(5, 40) + rng.normal(0, 0.04) * (x - 256)
            sharpness = rng.uniform(0.8, 4)
            below = 1 / (1 + np.exp(np.clip((y - edge) / sharpness, -30, 30)))
            beyond = side * (x - jaw.midline) - rng.uniform(70, 150)
            outward = 1 / (1 + np.exp(-beyond / rng.uniform(8, 25)))
            rise = np.clip(1 - (edge - y) / rng.uniform(60, 140), 0, 1)
            ghosts = ghosts + rng.uniform(6, 24) * below * outward * rise
    return np.asarray(ghosts, np.float32)


def _spine(rng: Generator, jaw: Jaw) -> Field:
    x, y = grid()
    off = x - jaw.midline - rng.normal(0, 5)
    half = rng.uniform(34, 62)
    edge = rng.uniform(3, 14)
    column = 1 / (1 + np.exp(np.clip((np.abs(off) - half) / edge, -30, 30)))
    onset = np.clip((y - rng.uniform(20, 130)) / rng.uniform(60, 120), 0, 1)
    strength = rng.choice([rng.uniform(0, 12), rng.uniform(12, 52)])
    streaks = 1 + 0.24 * wander(rng, WIDTH, 50)[None, :] + 0.1 * wander(rng, HEIGHT, 6)[:, None]
    fine = np.exp(-(((off - rng.normal(0, 3)) / rng.uniform(4, 16)) ** 2)) * rng.uniform(-6, 40)
    return np.asarray(column * streaks * (strength * onset + 8) + fine * (0.5 + 0.5 * (y < 120)), np.float32)
