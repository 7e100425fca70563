"""Mandibular canals: their course in the plan, their shadow in the picture, and what resembles them."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from models.phantoms.anatomy import CANAL, SIDES, Jaw
from models.phantoms.canvas import Field, Layer, Points, blur, resample, ribbon_sides, smooth
from models.phantoms.texture import wander

POINTS_ALONG = 60
CLEARANCE_ABOVE_BORDER = 11


@dataclass(frozen=True)
class Canal:
    """One canal, from the mandibular to the mental foramen: centre (N, 2), widths and visibility (N,)."""

    centre: Points
    widths: Points
    visibility: Points
    wall: float


def draw_canals(rng: Generator, jaw: Jaw) -> list[Canal]:
    """The two canals of a jaw; they share a patient's habit and differ in detail."""
    depth = rng.normal(-4, 5)
    sag = rng.normal(0, 4)
    width = rng.uniform(3.4, 6.4)
    clarity = rng.uniform(0.55, 1.15)
    wall = rng.uniform(0.0, 1.0) ** 1.5
    return [_draw_canal(rng, jaw, side, depth, sag, width, clarity, wall) for side in SIDES]


def _draw_canal(
    rng: Generator, jaw: Jaw, side: int, depth: float, sag: float, width: float, clarity: float, wall: float
) -> Canal:
    course = CANAL.copy()
    body = np.clip((180 - course[:, 0]) / 40, 0, 1)
    middle = np.exp(-(((course[:, 0] - 125) / 35) ** 2))
    course[:, 1] += body * (depth + rng.normal(0, 2.5)) + middle * (sag + rng.normal(0, 2))
    front = np.clip((105 - course[:, 0]) / 30, 0, 1)
    course[:, 0] += rng.normal(0, 5) * (1 - body) + rng.normal(0, 6) * front
    course[0, 1] += rng.normal(0, 6)
    course[-1] += rng.normal(0, 2.5, 2)
    centre = resample(smooth(course), POINTS_ALONG)
    centre[:, 1] += wander(rng, POINTS_ALONG, 7) * 1.3
    lower = smooth(jaw.lower_border())
    limit = np.interp(centre[:, 0], lower[:, 0], lower[:, 1]) - CLEARANCE_ABOVE_BORDER
    centre[:, 1] = np.where(centre[:, 0] < 195, np.minimum(centre[:, 1], limit), centre[:, 1])

    along = np.linspace(0, 1, POINTS_ALONG)
    funnel = 1 + 0.4 * np.exp(-along * 12)
    widths = width * rng.normal(1, 0.08) * (1 + 0.1 * wander(rng, POINTS_ALONG, 6)) * funnel
    visibility = clarity * rng.normal(1, 0.12) * (0.9 + 0.4 * wander(rng, POINTS_ALONG, 6) - 0.2 * along**2)
    ends = np.minimum(1, np.minimum(along, 1 - along) * 14 + 0.35)
    return Canal(
        resample(jaw.place(side, centre), POINTS_ALONG),
        np.clip(widths, 3.0, 7.4),
        np.clip(visibility, 0.12, 1.3) * ends,
        float(np.clip(wall * rng.normal(1, 0.3), 0, 1.2)),
    )


def canal_mask(canals: list[Canal]) -> Field:
    """Where the canals run: (256, 512) float32 coverage in 0..1."""
    layer = Layer()
    for canal in canals:
        layer.ribbon(canal.centre, canal.widths, np.ones(POINTS_ALONG))
        layer.disc(canal.centre[-1], canal.widths[-1] * 0.55, canal.widths[-1] * 0.5)
    return layer.coverage()


def render_canals(rng: Generator, canals: list[Canal]) -> tuple[Field, Field]:
    """(shadow, walls), both (256, 512) float32 in 0..1.3: what to subtract from and to add to the bone."""
    shadow, walls = Layer(), Layer()
    for canal in canals:
        shadow.ribbon(canal.centre, canal.widths, canal.visibility / 1.3)
        end, width = canal.centre[-1], canal.widths[-1]
        shadow.disc(end, width * 0.6, width * 0.5, 0.7 * canal.visibility.mean())
        for edge in ribbon_sides(canal.centre, canal.widths + 1.6):
            seen = np.clip(0.55 + 0.5 * wander(rng, POINTS_ALONG, 9), 0, 1) * canal.wall * canal.visibility
            walls.ribbon(edge, np.full(POINTS_ALONG, 1.5), seen)
    return shadow.coverage() * np.float32(1.3), walls.coverage()


def render_distractors(rng: Generator, jaw: Jaw, canals: list[Canal]) -> tuple[Field, Field]:
    """Shadows that are not canals: (256, 512) float32 in 0..1 each, (thin and edged, wide and soft)."""
    thin, wide = Layer(), Layer()
    for _ in range(rng.integers(3, 14)):
        _nutrient_canal(rng, jaw, thin)
    for side, canal in zip(SIDES, canals, strict=True):
        if rng.random() < 0.6:
            _incisive_canal(rng, jaw, side, canal, thin)
        for _ in range(rng.integers(0, 3)):
            _false_tube(rng, jaw, side, thin)
        if rng.random() < 0.5:
            fossa = jaw.place(side, np.array([(rng.uniform(105, 150), rng.uniform(192, 204))]))[0]
            wide.disc(fossa, rng.uniform(14, 30), rng.uniform(5, 10), rng.uniform(0.3, 0.9))
    return thin.coverage(), blur(wide.coverage(), 5.0)


def _nutrient_canal(rng: Generator, jaw: Jaw, layer: Layer) -> None:
    side, lateral = rng.choice(SIDES), rng.uniform(4, 120)
    top = 158 + jaw.crest + rng.uniform(0, 12)
    path = np.array([(lateral, top), (lateral + rng.normal(0, 3), top + rng.uniform(14, 40))])
    layer.line(jaw.place(side, path), rng.uniform(0.7, 1.6), rng.uniform(0.2, 0.7))


def _incisive_canal(rng: Generator, jaw: Jaw, side: int, canal: Canal, layer: Layer) -> None:
    start, reach = rng.uniform(60, 68), rng.uniform(12, 40)
    path = np.array([(start, 200.0), (start - reach / 2, 206 + rng.normal(0, 3)), (start - reach, 207)])
    line = resample(smooth(jaw.place(side, path)), 20)
    layer.ribbon(line, np.full(20, canal.widths.mean() * 0.5), np.linspace(0.7, 0.1, 20))


def _false_tube(rng: Generator, jaw: Jaw, side: int, layer: Layer) -> None:
    lateral, y = rng.uniform(60, 185), rng.uniform(165, 215)
    if lateral > 150:
        y -= rng.uniform(20, 70)
    slope = rng.normal(0, 0.5)
    reach = rng.uniform(12, 36)
    middle = (lateral - reach / 2, y + slope * reach / 2 + rng.normal(0, 3))
    path = np.array([(lateral, y), middle, (lateral - reach, y + slope * reach)])
    line = resample(smooth(jaw.place(side, path)), 20)
    fade = np.sin(np.linspace(0, np.pi, 20)) * rng.uniform(0.25, 0.7)
    layer.ribbon(line, np.full(20, rng.uniform(1.5, 5)), fade)
