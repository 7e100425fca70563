"""One patient on film, before any device's processing: soft tissue, bone, teeth, canals, airways, ghosts."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from models.phantoms.anatomy import OBLIQUE_LINE, SIDES, Jaw, draw_jaw
from models.phantoms.canals import canal_mask, draw_canals, render_canals, render_distractors
from models.phantoms.canvas import Field, Layer, blur, grid, resample, smooth
from models.phantoms.dentition import ToothLayers, draw_mouth, render_teeth
from models.phantoms.skull import render_airways, render_skull
from models.phantoms.softtissue import render_ghosts, render_soft_tissue
from models.phantoms.texture import band_noise, clouds, wander


@dataclass(frozen=True)
class Scene:
    """`density` (256, 512) float32, about 0..255, bright where dense; `mask` and `region` (256, 512) bool."""

    density: Field
    mask: NDArray[np.bool_]
    region: NDArray[np.bool_]


def render_scene(rng: Generator) -> Scene:
    """Draw one patient; nothing here knows the look."""
    jaw = draw_jaw(rng)
    canals = draw_canals(rng, jaw)
    teeth = render_teeth(rng, jaw, draw_mouth(rng))
    mask = canal_mask(canals) >= 0.5
    bone = _mandible(jaw)

    density = render_soft_tissue(rng, jaw) + render_ghosts(rng, jaw)
    skull, lines = render_skull(rng, jaw)
    density += skull - render_airways(rng, jaw)
    density += _bone_density(rng, jaw, bone)

    # What has edges is summed first and blurred once: the focal spot blurs all of it alike.
    shadow, walls = render_canals(rng, canals)
    thin, wide = render_distractors(rng, jaw, canals)
    edged = lines + _cortex(rng, jaw) + _tooth_density(rng, teeth, bone)
    edged += walls * rng.uniform(12, 34) - shadow * rng.uniform(20, 31) - bone * thin * rng.uniform(10, 22)
    density += blur(edged, rng.uniform(0.75, 1.15)) - wide * rng.uniform(8, 17)
    return Scene(_metal(density, teeth), mask, _region(jaw, teeth, mask))


def _mandible(jaw: Jaw) -> Field:
    layer = Layer()
    for side in SIDES:
        layer.polygon(jaw.outline(side))
    return layer.coverage()


def _bone_density(rng: Generator, jaw: Jaw, bone: Field) -> Field:
    _, y = grid()
    trabeculae = band_noise(rng, rng.uniform(0.5, 1.0), rng.uniform(1.3, 2.6), rng.uniform(0.6, 1.3))
    patches = np.clip(0.8 + 0.5 * clouds(rng, 12), 0.1, 1.8)
    strength = rng.uniform(3.5, 8.5) * patches * (0.35 + 0.65 * np.clip((y - jaw.centre_y + 15) / 40, 0, 1))
    mottle = band_noise(rng, 1.5, 5.0) * rng.uniform(2.0, 4.5)
    # The rami are thin: they hardly stand out from the flesh, the body does.
    body = 1 / (1 + np.exp(-(y - jaw.centre_y - 5) / 18))
    spongy = rng.uniform(12, 22) + body * rng.uniform(8, 20) + trabeculae * strength + mottle
    spongy += 4 * clouds(rng, 8)
    edge = blur(bone, rng.uniform(1.0, 1.6)) * body + blur(bone, 3.0) * (1 - body)
    return np.asarray(edge * spongy, np.float32)


def _cortex(rng: Generator, jaw: Jaw) -> Field:
    layer, ridge = Layer(), Layer()
    thick = rng.uniform(3.0, 7.0)
    for side in SIDES:
        border = resample(smooth(jaw.place(side, jaw.lower_border())), 60)
        fade = np.clip(0.9 - 0.5 * np.linspace(0, 1, 60) + 0.15 * wander(rng, 60, 6), 0.15, 1)
        widths = thick * (1 - 0.55 * np.linspace(0, 1, 60)) + 0.4
        layer.ribbon(border - np.array([0, thick / 2 - 0.4]), widths, fade)
        rear = resample(smooth(jaw.place(side, jaw.rear_border())), 80)
        width, level = rng.uniform(1.6, 3), rng.uniform(0.1, 0.35)
        layer.ribbon(rear, np.full(80, width), np.clip(level + 0.18 * wander(rng, 80, 12), 0.0, 0.7))
        crest = resample(smooth(jaw.place(side, jaw.crest_line())), 40)
        layer.ribbon(crest, np.full(40, 1.5), np.clip(0.1 + 0.2 * wander(rng, 40, 8), 0, 0.6))
        line = resample(smooth(jaw.place(side, OBLIQUE_LINE + rng.normal(0, 2.5, 2))), 30)
        ridge.ribbon(line, np.linspace(3, 8, 30), np.linspace(0.8, 0.05, 30))
    cortex = layer.coverage() * rng.uniform(44, 74)
    return np.asarray(cortex + blur(ridge.coverage(), 3.0) * rng.uniform(8, 26), np.float32)


def _tooth_density(rng: Generator, teeth: ToothLayers, bone: Field) -> Field:
    even, odd = (layer.coverage() for layer in teeth.dentine)
    solid = np.maximum(even, odd) + 0.5 * np.minimum(even, odd)
    flat = np.minimum(solid, 1)
    ligament = np.clip(blur(flat, 1.5) - flat, 0, None)
    enamel, pulp = teeth.enamel.coverage(), teeth.pulp.coverage()
    level = rng.uniform(34, 56)
    density = solid * level * (1 - rng.uniform(0.25, 0.6) * bone)
    density += enamel * rng.uniform(26, 50) - pulp * rng.uniform(10, 28)
    return np.asarray(density - ligament * rng.uniform(10, 44), np.float32)


def _metal(density: Field, teeth: ToothLayers) -> Field:
    metal = np.clip(teeth.metal.coverage() * 1.1, 0, 1)
    return np.asarray(density * (1 - metal) + metal * 255, np.float32)


def _region(jaw: Jaw, teeth: ToothLayers, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    layer = Layer()
    for side in SIDES:
        low = jaw.lower_border() + np.array([0, 3])
        rest = [(229.0, 125.0), (230, 95), (226, 74), (165, 74), (145, 92), (125, 68), (60, 64), (0, 64)]
        layer.polygon(smooth(jaw.place(side, np.concatenate([low, np.array(rest)]))))
    region = blur(np.maximum(layer.coverage(), teeth.region.coverage()), 5.0) >= 0.5
    return np.asarray(region | binary_dilation(mask, iterations=4))
