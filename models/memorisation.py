"""How near a picture is to what the networks were trained on: whether it is a copy of a patient they have seen.

Every training image is kept as a count sketch (Charikar, Chen and Farach-Colton, 2002) of its latent: each value goes
with a fixed random sign into one of 512 sums. Distances between sketches are those between the latents to within a few
per cent, a sketch takes 1 KB, and no picture can be made of it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

FILE = "training_latents.safetensors"
SUMS = 512
MAX_IMAGES = 20_000  # 20 MB
# Of the usual distance between two images: below it one is a copy of the other. On phantoms a copy of half the size, as
# JPEG of quality 30 or with a gamma of 0.6 is within 0.3; another patient is at least 0.40 away.
COPY = 1 / 3
_PIECE = 512  # rows compared at once

Sketches = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TrainingLatents:
    """Sketches (N, 512) of the training images, and how far apart those of different patients lie.

    scale: the median distance of a training image to the one nearest to it that is no copy of it.
    """

    sketches: Sketches
    scale: float

    def distances(self, latents: Tensor, mirrored: Tensor) -> list[float]:
        """How far each picture is from the training image nearest to it, by `scale`.

        latents (B, C, H, W) of the pictures, and of the same pictures mirrored: training shows an image both ways.
        0: it is a training image; 1: as far from all of them as they are from one another.
        """
        both_ways = np.concatenate([sketch(latents), sketch(mirrored)])
        nearest = np.sqrt(_squared_distances(both_ways, self.sketches).min(axis=1))
        found: list[float] = (nearest.reshape(2, -1).min(axis=0) / self.scale).tolist()
        return found


def describe_training(pieces: Iterable[Tensor]) -> TrainingLatents | None:
    """The training images' latents, piece by piece (n, C, H, W), without the mirrored ones -> what to keep of them.

    None where there are fewer than two different ones, and so no distance to measure by.
    """
    kept = np.concatenate([sketch(piece) for piece in pieces]).astype(np.float16).astype(np.float64)
    usual = float(np.sqrt(2 * kept.var(axis=0).sum()))  # root mean square over all pairs
    if usual < 1e-6:
        return None
    return TrainingLatents(kept, float(np.median(_nearest_others(kept, beyond=COPY * usual))))


def sketch(latents: Tensor) -> Sketches:
    """Latents (B, C, H, W) -> (B, 512); a row's bits do not depend on the other rows.

    Each latent is brought to mean 0 and sd 1 first: a copy in another light is a copy, and two patients in the same
    pale light are not.
    """
    values = latents.detach().cpu().numpy().astype(np.float64).reshape(len(latents), -1)
    values = np.stack([(row - row.mean()) / max(float(row.std()), 1e-9) for row in values])
    places, signs = _plan(values.shape[1])
    scale = 1 / np.sqrt(values.shape[1])
    sums: Sketches = np.stack([np.bincount(places, signs * row, SUMS) * scale for row in values])
    return sums


def save_training_latents(folder: Path, training: TrainingLatents) -> None:
    """Write the FILE of `folder`."""
    tensors = {
        "sketches": torch.from_numpy(training.sketches.astype(np.float16)),
        "scale": torch.tensor(training.scale, dtype=torch.float64),
    }
    save_file(tensors, folder / FILE)


def load_training_latents(folder: Path) -> TrainingLatents:
    """What `save_training_latents` wrote."""
    tensors = load_file(folder / FILE)
    return TrainingLatents(tensors["sketches"].numpy().astype(np.float64), float(tensors["scale"]))


def _plan(count: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For each of `count` values the sum it goes into and its sign, the same on every machine (SplitMix64)."""
    bits = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits ^= bits >> np.uint64(31)
    return (bits % np.uint64(SUMS)).astype(np.int64), np.where(bits >> np.uint64(63), 1.0, -1.0)


def _nearest_others(kept: Sketches, beyond: float) -> NDArray[np.float64]:
    """The distance of each row to the nearest of the rows that are further away than `beyond`."""
    nearest = []
    for start in range(0, len(kept), _PIECE):
        apart = _squared_distances(kept[start : start + _PIECE], kept)
        nearest.append(apart.min(axis=1, where=apart > beyond**2, initial=np.inf))
    distances: NDArray[np.float64] = np.sqrt(np.concatenate(nearest))
    return distances


def _squared_distances(rows: Sketches, kept: Sketches) -> NDArray[np.float64]:
    """Of (n, 512) to (N, 512): (n, N). By one matrix product, since a picture may have 20,000 to be compared with."""
    own, others = (np.vecdot(sketches, sketches) for sketches in (rows, kept))
    apart: NDArray[np.float64] = own[:, None] + others[None] - 2 * rows @ kept.T
    return np.maximum(apart, 0, out=apart)  # rounding may leave less than nothing between two equal ones
