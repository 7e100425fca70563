"""What surrounds the mandible: maxilla, sinuses, palate, nose, zygoma, skull base, hyoid and airways."""

import numpy as np
from numpy.random import Generator

from models.phantoms.anatomy import OCCLUSAL, SIDES, Jaw
from models.phantoms.canvas import Field, Layer, Points, blur, grid, resample, smooth
from models.phantoms.texture import band_noise, wander


def render_skull(rng: Generator, jaw: Jaw) -> tuple[Field, Field]:
    """What the upper skull and the hyoid add, (soft, edged): (256, 512) float32, gray levels."""
    _, y = grid()
    broad, haze, fine = Layer(), Layer(), Layer()
    _maxilla(jaw, haze)
    _palate(rng, jaw, fine, haze)
    _nose(rng, jaw, fine, haze)
    _hyoid(rng, jaw, broad)
    for side in SIDES:
        _sinus_walls(rng, jaw, side, fine)
        _zygoma(rng, jaw, side, broad, fine)
        _base(rng, jaw, side, broad, haze, fine)
    texture = band_noise(rng, 0.5, 1.5) * rng.uniform(2, 5) + band_noise(rng, 2.0, 6.0) * rng.uniform(4, 9)
    solid = blur(broad.coverage(), 2.0) * (rng.uniform(18, 36) + 0.6 * texture)
    solid += blur(haze.coverage(), 4.5) * (rng.uniform(26, 46) + texture)
    top = rng.uniform(6, 34) * np.clip(1 - y / rng.uniform(50, 110), 0, 1)
    return np.asarray(solid + top, np.float32), fine.coverage() * np.float32(rng.uniform(52, 96))


def _maxilla(jaw: Jaw, layer: Layer) -> None:
    for side in SIDES:
        half = [(0, 118), (60, 118), (110, 116), (132, 108), (140, 88), (130, 68), (110, 54), (0, 50)]
        layer.polygon(smooth(jaw.place(side, np.array(half, float))), 0.65)


def _palate(rng: Generator, jaw: Jaw, fine: Layer, haze: Layer) -> None:
    height = rng.uniform(40, 60)
    bow = rng.uniform(-10, 14)
    for offset in (0.0, rng.uniform(4, 12), -rng.uniform(6, 16)):
        strength = rng.uniform(0.3, 0.8) if offset >= 0 else rng.uniform(0.0, 0.35)
        for side in SIDES:
            lateral = np.linspace(0, rng.uniform(110, 190), 40)
            y = height + offset + bow * (lateral / 130) ** 2 + 1.2 * wander(rng, 40, 5)
            line = jaw.place(side, np.stack([lateral, y], 1))
            fine.ribbon(line, rng.uniform(1.6, 5) * (1 - 0.5 * lateral / 190), np.linspace(strength, 0.1, 40))
            if offset == 0:
                haze.ribbon(line, np.full(40, rng.uniform(4, 12)), np.linspace(0.8, 0.3, 40))


def _nose(rng: Generator, jaw: Jaw, layer: Layer, haze: Layer) -> None:
    septum = np.array([(rng.normal(0, 2), -5.0), (rng.normal(0, 3), 20), (rng.normal(0, 2), 46)])
    line = resample(jaw.place(1, septum), 12)
    layer.ribbon(line, np.full(12, rng.uniform(2, 7)), np.full(12, rng.uniform(0.3, 0.7)))
    for side in SIDES:
        wall = np.array([(26 + rng.normal(0, 3), -5.0), (28 + rng.normal(0, 3), 15), (22, 38), (8, 46)])
        _outline(rng, layer, jaw.place(side, wall), rng.uniform(1.2, 4), 0.35)
        concha = np.array([(14, 0), (18, 14), (14, 28), (8, 26)], float) + rng.normal(0, 2, (4, 2))
        haze.polygon(smooth(jaw.place(side, concha), closed=True), rng.uniform(0.1, 0.5))


def _sinus_walls(rng: Generator, jaw: Jaw, side: int, layer: Layer) -> None:
    floor = rng.uniform(60, 84)
    inner = [(34, 8), (33, 34), (42, floor - 8), (62, floor - 2), (88, floor)]
    outer = [(110, floor - 6), (124, 50), (128, 26), (118, 6)]
    points = np.array(inner + outer, float) + rng.normal(0, 4, (9, 2))
    _outline(rng, layer, jaw.place(side, points), rng.uniform(1.2, 2.4), rng.uniform(0.25, 0.55))


def _zygoma(rng: Generator, jaw: Jaw, side: int, broad: Layer, fine: Layer) -> None:
    low = rng.uniform(46, 66)
    process = [(100, 20), (110, low - 12), (121, low), (133, low - 8)]
    arch = [(142, 30), (172, 22), (232, 10), (232, -6), (120, -6)]
    placed = jaw.place(side, np.array(process + arch, float) + rng.normal(0, 4, (9, 2)))
    broad.polygon(smooth(placed, closed=True), rng.uniform(0.3, 0.8))
    _outline(rng, fine, placed[:7], rng.uniform(1.4, 3.5), 0.28)


def _base(rng: Generator, jaw: Jaw, side: int, broad: Layer, haze: Layer, fine: Layer) -> None:
    temple = np.array([(200, -10), (214, 1), (238, 0), (262, 14), (300, 30), (320, -10)], float)
    temple += rng.normal(0, 5, (6, 2))
    broad.polygon(smooth(jaw.place(side, temple), closed=True), rng.uniform(0.5, 1.0))
    fine_count, haze_count = rng.integers(3, 10), rng.integers(3, 8)
    for _ in range(fine_count):
        _stray(rng, jaw, side, fine, width=2.2, level=1.0)
    for _ in range(haze_count):
        _stray(rng, jaw, side, haze, width=12.0, level=2.0)
    arch = np.array([(120, 34), (160, 26), (200, 18), (236, 26), (262, 44)])
    placed = jaw.place(side, arch + rng.normal(0, 7, (5, 2)))
    _outline(rng, haze, placed, rng.uniform(6, 18), rng.uniform(0.2, 0.8))
    rim = placed - np.array([0, rng.uniform(2, 8)])
    _outline(rng, fine, rim, rng.uniform(1.5, 3.5), rng.uniform(0.1, 0.5))
    # The pterygoid plates and the maxilla's rear wall cross the coronoid process.
    plate = np.array([(146, 30), (143, 55), (140, 80)], float) + rng.normal(0, 4, (3, 2))
    _outline(rng, fine, jaw.place(side, plate), rng.uniform(1.5, 4), rng.uniform(0.2, 0.5))


def _stray(rng: Generator, jaw: Jaw, side: int, layer: Layer, width: float, level: float) -> None:
    """One of the many overlapping edges of the skull that nobody can name."""
    start = np.array([rng.uniform(10, 230), rng.uniform(-8, 48)])
    middle = (rng.uniform(10, 40), rng.normal(0, 8))
    run = np.array([(0, 0), middle, (rng.uniform(40, 100), rng.normal(0, 14))])
    width, level = width * rng.uniform(0.5, 2.2), level * rng.uniform(0.05, 0.3)
    _outline(rng, layer, jaw.place(side, start + run), width, level)


def _outline(rng: Generator, layer: Layer, points: Points, width: float, level: float) -> None:
    line = resample(smooth(points), 45)
    ends = np.minimum(1, np.minimum(np.arange(45), np.arange(45)[::-1]) / 5)
    layer.ribbon(line, np.full(45, width), ends * np.clip(level + 0.17 * wander(rng, 45, 7), 0, 1))


def _hyoid(rng: Generator, jaw: Jaw, layer: Layer) -> None:
    if rng.random() < 0.45:
        for side in SIDES:
            at = np.array([(rng.uniform(185, 235), rng.uniform(212, 240))])
            horn = np.array([(0, 0), (14, -4), (30, 2), (40, 10), (24, 9), (6, 8)], float)
            horn = at + horn * rng.uniform(0.7, 1.5)
            layer.polygon(smooth(jaw.place(side, horn), closed=True), rng.uniform(0.3, 1.0))


def render_airways(rng: Generator, jaw: Jaw) -> Field:
    """Density that air takes away: (256, 512) float32, gray levels, 0 and more."""
    x, y = grid()
    oral, nasal = Layer(), Layer()
    roof = rng.uniform(52, 68)
    palatal_level, cheek_level = rng.uniform(0.0, 0.9), rng.uniform(0.1, 0.6)
    for side in SIDES:
        cheek = [(118, 118), (140, 112), (156, 96), (159, 118), (154, 132), (138, 140), (118, 138)]
        placed = jaw.place(side, np.array(cheek) + rng.normal(0, 3, (7, 2)))
        oral.polygon(smooth(placed, closed=True), cheek_level)
        gap = jaw.bite + rng.uniform(0.5, 4)
        end = rng.uniform(108, 140)
        bite = [(0, -gap), (60, -gap), (end, -gap), (end + 8, 0), (end, gap), (60, gap), (0, gap)]
        oral.polygon(smooth(jaw.place(side, np.array(bite) + np.array([0, OCCLUSAL]))), rng.uniform(0.8, 1.0))
        low = roof + rng.uniform(6, 22)
        palatal = [(0, roof), (70, roof - 2), (130, roof + 2), (150, roof + 22)]
        palatal += [(120, low + 4), (60, low), (0, low)]
        oral.polygon(smooth(jaw.place(side, np.array(palatal, float))), palatal_level)
        _throat(rng, jaw, side, nasal)
        nose = np.array([(4, -5), (22, 0), (24, 24), (18, 38), (5, 42)], float) + rng.normal(0, 2, (5, 2))
        nasal.polygon(smooth(jaw.place(side, nose), closed=True), rng.uniform(0.5, 1.0))
        sinus = np.array([(40, 10), (38, 50), (62, 66), (106, 64), (120, 40), (110, 8)], float)
        sinus += rng.normal(0, 4, (6, 2))
        nasal.polygon(smooth(jaw.place(side, sinus), closed=True), rng.uniform(0.2, 0.8))
    middle = 1 - 0.6 * np.exp(-(((x - jaw.midline) / 30) ** 2)) * (y > 60)
    air = blur(oral.coverage(), 2.0) * (rng.uniform(24, 46) * middle)
    return np.asarray(air + blur(nasal.coverage(), 4.0) * rng.uniform(20, 42), np.float32)


def _throat(rng: Generator, jaw: Jaw, side: int, layer: Layer) -> None:
    course = np.array([(148, 66), (166, 90), (184, 130), (204, 178), (212, 240)]) + rng.normal(0, 7, (5, 2))
    line = resample(smooth(jaw.place(side, course)), 40)
    fade = np.sin(np.linspace(0.2, np.pi, 40)) * rng.uniform(0.0, 0.55)
    layer.ribbon(line, np.linspace(16, rng.uniform(18, 40), 40), fade)
