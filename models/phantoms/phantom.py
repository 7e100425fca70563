"""Procedural panoramic radiographs with the true course of their mandibular canals."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.phantoms.looks import LOOKS, develop
from models.phantoms.scene import render_scene

_LOOK_STREAM = 1
_ANATOMY_STREAM = 2


@dataclass(frozen=True)
class Phantom:
    """One radiograph and its truth.

    image: (256, 512) uint8, bright where dense; mask: (256, 512) bool, both canals; region: (256, 512) bool,
    the tooth-bearing jaw that a buccal segmentation model would keep. `seed` and `look` give it again.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    region: NDArray[np.bool_]
    look: str
    seed: int


def phantom(seed: int, look: str | None = None) -> Phantom:
    """The phantom of an anatomy seed (0 or more) in a look of `LOOKS`; without one, the seed draws the look.

    The anatomy (mask, region and what the image shows) depends on the seed alone. Image (256, 512) uint8 in
    0..255, mask and region (256, 512) bool.
    """
    chosen = _draw_look(seed, LOOKS) if look is None else look
    _check_looks([chosen])
    scene = render_scene(np.random.default_rng([seed, _ANATOMY_STREAM]))
    return Phantom(develop(scene.density, chosen, seed), scene.mask, scene.region, chosen, seed)


def phantoms(seed: int, count: int, looks: Sequence[str] = LOOKS) -> Iterator[Phantom]:
    """A set of `count` phantoms in looks drawn from `looks`; element i depends on `seed`, `looks` and i.

    Every element has an anatomy of its own, and sets of different `seed` share none. Each: image (256, 512)
    uint8 in 0..255, mask and region (256, 512) bool.
    """
    _check_looks(looks)
    return (nth_phantom(seed, index, looks) for index in range(count))


def nth_phantom(seed: int, index: int, looks: Sequence[str] = LOOKS) -> Phantom:
    """The element `index` (0 or more) of the set that `phantoms` draws from `seed`: sets can be made in parallel."""
    _check_looks(looks)
    high, low = np.random.SeedSequence([seed, index]).generate_state(2)
    own_seed = (int(high) << 31) ^ int(low)
    return phantom(own_seed, _draw_look(own_seed, looks))


def _draw_look(seed: int, looks: Sequence[str]) -> str:
    return looks[int(np.random.default_rng([seed, _LOOK_STREAM]).integers(len(looks)))]


def _check_looks(looks: Sequence[str]) -> None:
    if not looks:
        raise ValueError(f"looks is empty; choose from {', '.join(LOOKS)}")
    for look in looks:
        if look not in LOOKS:
            raise ValueError(f"unknown look {look!r}; choose from {', '.join(LOOKS)}")
