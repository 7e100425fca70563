"""What each remedy does to the samples, one at a time and together, where only phantoms can tell: on their true canals.

    python -m benchmarks.remedies [--segmenter FOLDER] [--guides 8] [--pool 300] [--top-k 5]

For every way of making samples, the mean over guides and their pool images of:

    overlap    Dice of the sample's label with the pool image's own canal, which nobody labeled
    ghost      share of that canal that lies outside the blended band, so is still seen and called background
    retention  the canal's contrast over its guide's (median)
    texture    correlation with the guide inside the band, high-passed
    seam       jump of brightness at the band's border over that beside it; 1: no seam
    read       Dice of the label with what a segmenter finds in the sample; --segmenter: a folder that `pansynth train
               segmenter` wrote, best from many phantoms. Blurred canals and ghosts both lower it.

Guides are plain, the pool has all looks; phantoms of seed 900,003, which nothing was trained on.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from app.presets import PRESETS
from models.labeled_sets import phantom_sets
from models.matching import random_selection
from models.metrics import dice
from models.moved_guides import move_guides
from models.phantoms import LOOKS, PLAIN
from models.quality import dilated_mask, quality
from models.segmenter import Labeled, Segmenter, build_segmenter, predict
from models.synthesis import Recipe
from models.ways import Way, nearest, synthesized
from models.weights import Networks, load_networks

SEED = 900_003
COLUMNS = ("overlap", "ghost", "retention", "texture", "seam", "read", "seconds")


def ways() -> list[Way]:
    """The paper's, each remedy added to it alone, all together, and all but one."""
    paper, best = (Recipe(method="diffusion", **PRESETS[name].recipe()) for name in ("paper", "harmonize"))
    alone = {
        "dilation 2": replace(paper, dilation=2),
        "sampler ddim": replace(paper, sampler="ddim"),
        "restored background": replace(paper, restore_background=True),
        "matched statistics": replace(paper, match_statistics=True),
        "transferred detail": replace(paper, transfer_detail=True),
        "from 100, reblended": replace(paper, start_timestep=100, reblend=True),
        "from 250, reblended": replace(paper, start_timestep=250, reblend=True),
        "from 250, reblended, anatomy held": replace(paper, start_timestep=250, reblend=True, hold_anatomy=True),
    }
    together = {
        "harmonize": best,
        "harmonize, anatomy not held": replace(best, hold_anatomy=False),
        "harmonize, statistics not matched": replace(best, match_statistics=False),
        "harmonize, detail not transferred": replace(best, transfer_detail=False),
        "harmonize, dilation 2": replace(best, dilation=2),
        "harmonize from 25": replace(best, start_timestep=25),
        "harmonize from 100": replace(best, start_timestep=100),
        "harmonize from 500": replace(best, start_timestep=500),
        "harmonize with the other sampler": replace(best, sampler="ddim" if best.sampler == "ddpm" else "ddpm"),
        "harmonize without diffusion": replace(best, method="blend"),
    }
    return [
        Way("paper", paper),
        Way("paper, random selection", paper, "random"),
        Way("copy-paste", replace(paper, method="paste")),
        Way("blend without diffusion", replace(paper, method="blend")),
        *(Way(f"paper + {name}", recipe) for name, recipe in alone.items()),
        Way("paper + alignment", paper, align=True),
        Way("harmonize, not aligned", best),
        *(Way(name, recipe, align=True) for name, recipe in together.items()),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=Path("models/weights/default"))
    parser.add_argument("--segmenter", type=Path)
    parser.add_argument("--guides", type=int, default=8)
    parser.add_argument("--pool", type=int, default=300)
    parser.add_argument("--top-k", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    networks = load_networks(given.weights, given.device)
    segmenter = build_segmenter(str(given.segmenter)).to(networks.device) if given.segmenter else None
    sets = phantom_sets(SEED, (given.guides, given.pool, 1), [PLAIN], LOOKS, lambda *_: None)
    chosen = neighbours(networks, sets.guides, sets.pool, given.top_k)
    print(f"| {given.guides} guides, top {given.top_k} of {given.pool} | {' | '.join(COLUMNS)} |")
    print("|---|" + "---:|" * len(COLUMNS))
    for way in ways():
        figures = measured(networks, segmenter, sets.guides, sets.pool, chosen[way.selection], way)
        print(
            f"| {way.name} | {' | '.join('' if value is None else f'{value:.3f}' for value in figures)} |", flush=True
        )


def neighbours(networks: Networks, guides: Labeled, pool: Labeled, k: int) -> dict[str, list[list[int]]]:
    """For each guide the rows of its k pool images, by either selection."""
    names = [str(row) for row in range(len(pool))]
    found = {
        "ssim": nearest(networks, guides, pool, names, k, 1),
        "random": [random_selection(0, str(row), names, k) for row in range(len(guides))],
    }
    return {selection: [[int(name) for name in row] for row in rows] for selection, rows in found.items()}


def measured(
    networks: Networks,
    segmenter: Segmenter | None,
    guides: Labeled,
    pool: Labeled,
    chosen: list[list[int]],
    way: Way,
) -> list[float | None]:
    """The COLUMNS of one way."""
    assert way.recipe is not None
    pairs = [(guide, row) for guide, rows in enumerate(chosen) for row in rows]
    begun = time.perf_counter()
    picked, unlabeled = [guide for guide, _ in pairs], pool.images[[row for _, row in pairs]]
    images, masks = guides.images[picked], guides.masks[picked]
    if way.align:
        images, masks, _ = move_guides(images, masks, unlabeled, networks.device)
    samples = synthesized(networks, images, masks, unlabeled, way.recipe, range(len(pairs)))
    seconds = (time.perf_counter() - begun) / len(pairs)
    overlap, ghost, rows = [], [], []
    for number, (_, row) in enumerate(pairs):
        own, band = pool.masks[row], dilated_mask(masks[number], way.recipe.dilation)
        overlap.append(dice(masks[number], own))
        ghost.append(float((own & ~band).sum() / own.sum()))
        rows.append(quality(samples[number], images[number], masks[number], pool.images[row], way.recipe.dilation))
    read = None
    if segmenter is not None:
        found = predict(segmenter, samples, networks.device)
        read = float(np.mean([dice(mask, label) for mask, label in zip(found, masks, strict=True)]))
    kept = [row["canal_retention"] for row in rows if row["canal_retention"] is not None]
    texture, seam = (
        float(np.mean([row[name] for row in rows if row[name] is not None])) for name in ("canal_correlation", "seam")
    )
    return [float(np.mean(overlap)), float(np.mean(ghost)), float(np.median(kept)), texture, seam, read, seconds]


if __name__ == "__main__":
    main()
