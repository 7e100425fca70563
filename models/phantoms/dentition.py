"""Both arches of one mouth: which teeth are there, and what dentists did to them."""

from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator

from models.phantoms.anatomy import SIDES, Jaw
from models.phantoms.canvas import Layer, Points, smooth
from models.phantoms.teeth import (
    FIRST_PREMOLAR,
    LOWER_WIDTHS,
    UPPER_WIDTHS,
    WISDOM,
    PlacedTooth,
    band_outline,
    draw_tooth,
    root_axis,
)


@dataclass(frozen=True)
class ToothLayers:
    """What the teeth leave on film, a layer per density; even and odd teeth apart, since overlaps add up."""

    dentine: tuple[Layer, Layer] = field(default_factory=lambda: (Layer(), Layer()))
    enamel: Layer = field(default_factory=Layer)
    pulp: Layer = field(default_factory=Layer)
    metal: Layer = field(default_factory=Layer)
    region: Layer = field(default_factory=Layer)


@dataclass(frozen=True)
class Mouth:
    """Habits of one patient's teeth; `missing` to `bridge` and `wisdom` are chances per tooth."""

    missing: float
    filled: float
    crowned: float
    root_filled: float
    implant: float
    bridge: float
    wisdom: float
    braces: bool
    scale: float
    pulp: float


def draw_mouth(rng: Generator) -> Mouth:
    """A dental history from `rng`."""
    missing = float(rng.choice([0.01, 0.08, 0.3, 0.65, 1.0], p=[0.52, 0.28, 0.12, 0.05, 0.03]))
    treated = rng.random() ** 2
    implant = float(rng.choice([0.0, 0.5], p=[0.8, 0.2]))
    braces = rng.random() < 0.05
    return Mouth(
        missing=missing,
        filled=0.75 * treated,
        crowned=0.15 * treated,
        root_filled=0.15 * treated,
        implant=implant,
        # A bridge needs teeth to stand on.
        bridge=0.3 * treated if missing < 0.6 else 0.0,
        wisdom=float(rng.choice([0.1, 0.9])),
        braces=braces,
        scale=rng.normal(1.0, 0.04),
        pulp=rng.uniform(0.5, 1.1),
    )


def render_teeth(rng: Generator, jaw: Jaw, mouth: Mouth) -> ToothLayers:
    """Draw both arches of a mouth."""
    layers = ToothLayers()
    for upper in (False, True):
        for side in SIDES:
            brackets = _render_quadrant(rng, jaw, mouth, layers, side, upper)
            if mouth.braces and len(brackets) > 2:
                _render_braces(np.stack(brackets[:7]), layers.metal)
    return layers


def _render_quadrant(
    rng: Generator, jaw: Jaw, mouth: Mouth, layers: ToothLayers, side: int, upper: bool
) -> list[Points]:
    """Draw one quadrant; returns where brackets would sit, one point (2,) a tooth."""
    lateral = rng.uniform(0.0, 1.0)
    brackets = []
    for number, typical in enumerate(UPPER_WIDTHS if upper else LOWER_WIDTHS):
        width = typical * mouth.scale * rng.normal(1, 0.05)
        placed = PlacedTooth(jaw, side, draw_tooth(rng, number, lateral + width / 2, width, upper, jaw.bite))
        lateral += width * rng.uniform(0.9, 1.03)
        layers.region.polygon(placed(placed.tooth.box()))
        if rng.random() < (1 - mouth.wisdom if number == WISDOM else mouth.missing):
            _render_gap(rng, mouth, layers.metal, placed)
            continue
        _render_tooth(mouth, layers, placed)
        _render_restorations(rng, mouth, layers.metal, placed)
        brackets.append(placed(np.array([(0.0, placed.tooth.crown * 0.45)]))[0])
    return brackets


def _render_tooth(mouth: Mouth, layers: ToothLayers, placed: PlacedTooth) -> None:
    tooth = placed.tooth
    crown, roots = _crown(placed), tooth.roots()
    dentine = layers.dentine[tooth.number % 2]
    for root in roots:
        dentine.polygon(placed(smooth(root, 2, closed=True)), 0.8 if len(roots) > 1 else 0.85)
        layers.pulp.polygon(placed(smooth(tooth.pulp(root, mouth.pulp), 1, closed=True)))
    dentine.polygon(placed(crown))

    # Enamel is thick at the edge and the flanks, so the crown's core stays darker.
    layers.enamel.polygon(placed(crown[crown[:, 1] < tooth.crown * 0.97]))
    core = crown * np.array([0.68, 0.72]) + np.array([0, tooth.crown * 0.34])
    layers.enamel.polygon(placed(core[core[:, 1] < tooth.crown * 1.1]), 0.25)


def _render_restorations(rng: Generator, mouth: Mouth, metal: Layer, placed: PlacedTooth) -> None:
    tooth = placed.tooth
    back = tooth.number >= FIRST_PREMOLAR
    if rng.random() < mouth.crowned * (1.0 if back else 0.5):
        metal.polygon(placed(_crown(placed) * np.array([1.0, 0.92])), rng.uniform(0.75, 1.0))
    elif rng.random() < mouth.filled * (1.0 if back else 0.25):
        _render_filling(rng, metal, placed)
    if rng.random() < mouth.root_filled:
        for root in tooth.roots():
            metal.line(placed(root_axis(root)[:4]), 1.1, rng.uniform(0.6, 0.9))


def _render_filling(rng: Generator, metal: Layer, placed: PlacedTooth) -> None:
    width, height = placed.tooth.width, placed.tooth.crown
    count = rng.integers(5, 10)
    turn = np.linspace(0, 2 * np.pi, count, endpoint=False)
    radius = rng.uniform(0.6, 1.2, count)
    across = np.cos(turn) * radius * width * rng.uniform(0.14, 0.42)
    blob = np.stack([across, np.sin(turn) * radius * height * 0.2], axis=1)
    blob += np.array([rng.normal(0, 0.15) * width, 0.24 * height])
    metal.polygon(placed(smooth(blob, 2, closed=True)), rng.uniform(0.45, 1.0))


def _render_gap(rng: Generator, mouth: Mouth, metal: Layer, placed: PlacedTooth) -> None:
    tooth = placed.tooth
    if tooth.number == WISDOM:
        return
    if rng.random() < mouth.implant:
        threads = np.where(np.arange(17) % 2, 0.5, 0.0)
        halves = np.linspace(0.26, 0.15, 17) * min(tooth.width, 15.0) + threads
        v = np.linspace(tooth.crown, tooth.crown + tooth.root * 0.75, 17)
        metal.polygon(placed(band_outline(np.zeros(17), halves, v)), 0.9)
        metal.polygon(placed(_crown(placed) * np.array([0.9, 0.95])), rng.uniform(0.6, 0.9))
    elif rng.random() < mouth.bridge:
        metal.polygon(placed(_crown(placed) * np.array([1.1, 0.8])), 0.9)


def _render_braces(brackets: Points, metal: Layer) -> None:
    metal.line(brackets, 0.8, 0.75)
    for bracket in brackets:
        metal.disc(bracket, 2.2, 2.6, 0.9)


def _crown(placed: PlacedTooth) -> Points:
    return smooth(placed.tooth.crown_outline(), 2, closed=True)
