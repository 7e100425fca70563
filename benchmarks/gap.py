"""Where the gap between synthetic and true labels comes from, which only phantoms can tell.

    python -m benchmarks.gap [--seed 250000] [--seeds 3] [--guides 2] [--pool 300] [--top-k 50]

Few plain guides, a pool and test images of all looks, as in `pansynth reproduce table1` with the same --seed. For each
row segmenters are trained on the guides and on

    harmonize      samples of the preset
    best aligned   the three in five of them whose guides fit best
    own canals     their recipients, each its own guide: the synthesis alone, as if guides were aligned to the pixel
    recipients     the same as they are, with their true masks
    pool           the whole pool with its true masks

by the same number of steps, and the mean Dice of each run on the test images is printed.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from app.presets import PRESETS
from models.evaluation import run_arm
from models.labeled_sets import SEEDS_APART, Sets, phantom_sets
from models.moved_guides import move_guides
from models.phantoms import LOOKS, PLAIN
from models.pixels import sha256
from models.segmenter import Labeled
from models.synthesis import Recipe, sample_seed
from models.training.segmenter import SegmenterPlan
from models.ways import nearest, synthesized
from models.weights import Networks, load_networks

KEPT = 0.6  # of the samples, those whose guides fit best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=Path("models/weights/default"))
    parser.add_argument("--backbone", default="mini")
    numbers = {
        "seed": 250_000,
        "seeds": 3,
        "guides": 2,
        "pool": 300,
        "test": 120,
        "top-k": 50,
        "steps": 600,
        "batch": 6,
    }
    for name, number in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=number)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    networks = load_networks(given.weights, given.device)
    counts = (given.guides, given.pool, given.test)
    sets = phantom_sets(given.seed * SEEDS_APART, counts, [PLAIN], LOOKS, lambda *_: None)
    print(f"| {given.guides} guides and | images |{''.join(f' seed {seed} |' for seed in range(given.seeds))}")
    print("|---|---:|" + "---:|" * given.seeds)
    for name, labeled in rows(networks, sets, given.top_k):
        print(f"| {name} | {len(labeled)} |", end="", flush=True)
        for seed in range(given.seeds):
            plan = SegmenterPlan(given.backbone, given.steps, given.batch, seed=seed)
            sources = {"real": sets.guides, name: labeled}
            result = run_arm(name, sources, plan, sets.test, given.device)
            print(f" {np.mean([image['dice'] for image in result.images]):.3f} |", end="", flush=True)
        print()


def rows(networks: Networks, sets: Sets, k: int) -> Iterator[tuple[str, Labeled]]:
    """What is trained on beside the guides."""
    recipe = Recipe(method="diffusion", **PRESETS["harmonize"].recipe())
    guides, pool = sets.guides, sets.pool
    number_of = {sha256(image.tobytes()): number for number, image in enumerate(pool.images)}
    pairs = [
        (guide, number_of[digest], sample_seed(0, sha256(guides.images[guide].tobytes()), digest))
        for guide, digests in enumerate(nearest(networks, guides, pool, list(number_of), k, 1))
        for digest in digests
    ]
    of, chosen, seeds = zip(*pairs, strict=True)

    given, unlabeled = guides.rows(of), pool.images[list(chosen)]
    images, masks, fits = move_guides(given.images, given.masks, unlabeled, networks.device)
    samples = Labeled(synthesized(networks, images, masks, unlabeled, recipe, seeds), masks, given.groups)
    yield "harmonize", samples
    best_first = np.argsort([1.0 if fit is None else -fit for fit in fits], kind="stable")
    yield "best aligned", samples.rows(sorted(best_first[: round(KEPT * len(pairs))].tolist()))

    own = pool.rows(sorted(set(chosen)))
    alone = synthesized(networks, own.images, own.masks, own.images, recipe, range(len(own)))
    yield "own canals", Labeled(alone, own.masks, own.groups)
    yield "recipients", own
    yield "pool", pool


if __name__ == "__main__":
    main()
