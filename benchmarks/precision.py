"""What the denoiser's bfloat16 is worth: samples made with it and in float32, in turn, and how far they differ.

    python -m benchmarks.precision [--samples 4] [--rounds 4] [--device cpu]

Phantoms of seed 900,003, which no weights were trained on; one guide, each of the others a background.
"""

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from app.presets import PRESETS
from models import precision
from models.phantoms import phantoms
from models.synthesis import Recipe, synthesize
from models.tensors import to_images
from models.weights import Networks, load_networks
from worker.networks import batch_size

SEED = 900_003
GRAY_LEVELS = 127.5  # to a unit of pixels in [-1, 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=Path("models/weights/default"))
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    with in_float32():
        networks = {"float32": load_networks(given.weights, given.device)}
    networks["as it is"] = load_networks(given.weights, given.device)
    rows = radiographs(given.samples)
    for preset in PRESETS:
        recipe = Recipe(method="diffusion", **PRESETS[preset].recipe())
        seconds: dict[str, list[float]] = {kind: [] for kind in networks}
        made = {}
        for _ in range(given.rounds):
            with in_float32():
                took, made["float32"] = timed(networks["float32"], recipe, rows)
            seconds["float32"].append(took)
            took, made["as it is"] = timed(networks["as it is"], recipe, rows)
            seconds["as it is"].append(took)
        apart = (made["float32"] - made["as it is"]).abs() * GRAY_LEVELS
        before, now = (min(taken) for taken in seconds.values())
        print(
            f"preset {preset}: {before:.2f} s a sample in float32, {now:.2f} as it is ({before / now:.2f} times as "
            f"fast); gray levels apart: mean {apart.mean():.3f}, at most {apart.max():.2f}"
        )


def radiographs(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The guide and its mask `count` times, and as many unlabeled images, as `synthesize` takes them."""
    made = list(phantoms(seed=SEED, count=count + 1))
    images = to_images(np.stack([phantom.image for phantom in made]), torch.device("cpu"))
    mask = torch.from_numpy(made[0].mask)[None, None]
    return images[:1].repeat(count, 1, 1, 1), mask.repeat(count, 1, 1, 1), images[1:]


@contextmanager
def in_float32() -> Iterator[None]:
    """Networks are loaded, and compute, as where there is no bfloat16."""
    own, precision.has_bfloat16 = precision.has_bfloat16, lambda _: False
    try:
        yield
    finally:
        precision.has_bfloat16 = own


def timed(networks: Networks, recipe: Recipe, rows: tuple[Tensor, Tensor, Tensor]) -> tuple[float, Tensor]:
    """Seconds a sample, and the samples."""
    count = len(rows[0])
    begun = time.perf_counter()
    samples = synthesize(networks, *rows, recipe, range(count), batch_size=batch_size(networks.device))
    return (time.perf_counter() - begun) / count, samples


if __name__ == "__main__":
    main()
