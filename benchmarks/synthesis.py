"""How fast samples are made, and each of the stages that they go through.

    python -m benchmarks.synthesis                  # one core: OMP_NUM_THREADS=1 taskset -c 0 python -m ...
    python -m benchmarks.synthesis --device cuda --samples 250

Phantoms of seed 900,004, which no weights were trained on; one guide, each of the others a background. A call of a
network gets as many rows as a worker gives it; the best of the rounds counts.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from app.presets import PRESETS
from models.batches import FixedBatches
from models.moved_guides import move_guides
from models.phantoms import phantoms
from models.synthesis import Recipe, predict_noise
from models.tensors import to_images
from models.ways import synthesized
from models.weights import load_networks
from worker.devices import use_device
from worker.networks import batch_size

SEED = 900_004


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=Path("models/weights/default"))
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    device, count = torch.device(given.device), given.samples
    use_device(device)
    networks, batch = load_networks(given.weights, device), batch_size(device)
    made = list(phantoms(SEED, count + 1))
    unlabeled = np.stack([phantom.image for phantom in made[1:]])
    guides, masks = (np.repeat(part[None], count, axis=0) for part in (made[0].image, made[0].mask))

    def tell(stage: str, rows: int, work: Callable[[], object]) -> None:
        seconds = min(timed(work, device) for _ in range(given.rounds + 1))  # the first one warms up
        print(f"{stage:42} {rows / seconds:9.1f}/s  {1000 * seconds / rows:9.2f} ms each", flush=True)

    with torch.inference_mode(), FixedBatches(batch) as batches:
        images = to_images(unlabeled, device)
        latents, levels = batches.run(networks.vae.encode, images), torch.full((count,), 25, device=device)
        tell("encoding", count, lambda: batches.run(networks.vae.encode, images))
        tell("decoding", count, lambda: batches.run(networks.vae.decode, latents))
        tell("one of 25 steps", count, lambda: batches.run(partial(predict_noise, networks), latents, levels))
    tell("alignment", count, lambda: move_guides(guides, masks, unlabeled, device))
    for name, preset in PRESETS.items():
        recipe = Recipe(method="diffusion", **preset.recipe())
        make = partial(synthesized, networks, guides, masks, unlabeled, recipe, range(count), batch)
        tell(f"samples by {name}, without alignment", count, make)


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds, once a GPU has done its work."""
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
