"""The ways to make labeled images that a comparison compares, and their samples: a file per way and guide."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from models import pixels
from models.batches import FixedBatches
from models.labeled_sets import Show
from models.matching import random_selection, top_k
from models.moved_guides import move_guides
from models.segmenter import Labeled
from models.sharing import each_once, whole
from models.synthesis import Recipe, sample_seed, synthesize
from models.tensors import to_images
from models.weights import Networks


@dataclass(frozen=True)
class Way:
    """A way to make labeled images from a guide: a recipe and how pool images are chosen.

    recipe: None leaves the pool image as it is; the guide gives no more than its mask.
    align: the guide is moved onto the pool image's anatomy first; the label is its moved mask.
    """

    name: str
    recipe: Recipe | None
    selection: Literal["ssim", "random"] = "ssim"
    align: bool = False


def make_samples(
    folder: Path,
    networks: Networks,
    guides: Labeled,
    pool: Labeled,
    wanted: Mapping[Way, int],
    show: Show,
    batch_size: int,
) -> None:
    """Write, for every wanted way and guide, the file of its top k samples by rank; existing files stay as they are."""
    tasks = [
        (way, k, range(len(guides))[some])
        for way, k in wanted.items()
        for some in _chunks(len(guides), max(1, batch_size // k))  # few samples of a guide do not fill a GPU
    ]
    files = [[samples_file(folder, way, guide) for guide in some] for way, _, some in tasks]
    rows = {pixels.sha256(image.tobytes()): row for row, image in enumerate(pool.images)}  # no image is there twice
    most = max((k for way, k in wanted.items() if way.selection == "ssim"), default=0)

    @cache
    def ranked() -> list[list[str]]:
        """Not before a way asks for it: the whole pool is encoded."""
        return nearest(networks, guides, pool, list(rows), most, batch_size, show)

    def make(number: int) -> None:
        way, k, some = tasks[number]
        missing = [guide for guide in some if not samples_file(folder, way, guide).exists()]
        pairs = []
        for guide in missing:
            digest = pixels.sha256(guides.images[guide].tobytes())
            drawn = way.selection == "random"
            found = random_selection(0, digest, rows, k) if drawn else ranked()[guide][:k]
            pairs += [(guide, rows[sha256], sample_seed(0, digest, sha256)) for sha256 in found]
        show(number, len(tasks), f"synthesis, {way.name}")  # after what `nearest` shows
        of, chosen, seeds = zip(*pairs, strict=True)
        unlabeled = pool.images[list(chosen)]
        images, masks = _samples(networks, guides.rows(of), unlabeled, way, seeds, batch_size)
        for guide, own in zip(missing, _chunks(len(pairs), k), strict=True):
            _write_samples(samples_file(folder, way, guide), images[own], masks[own])

    each_once(folder.with_suffix(".lock"), files, make)


def nearest(
    networks: Networks,
    guides: Labeled,
    pool: Labeled,
    digests: Sequence[str],
    k: int,
    batch_size: int,
    show: Show = lambda *_: None,
) -> list[list[str]]:
    """For each guide the sha256 of its k most similar pool images, the best first; `digests`: the pool's, in order."""
    latents = []
    done, total = 0, len(guides) + len(pool)
    with FixedBatches(batch_size) as batches:
        for images in (guides.images, pool.images):
            parts = []
            for rows in _chunks(len(images), max(64, batch_size)):
                parts.append(batches.run(networks.vae.encode, to_images(images[rows], networks.device)).cpu())
                done += len(parts[-1])
                show(done, total, "comparing")
            latents.append(torch.cat(parts))
    data_range = float(latents[1].max() - latents[1].min())
    found = top_k(latents[0].to(networks.device), latents[1], digests, k, data_range)
    return [[match.sha256 for match in matches] for matches in found]


def _samples(
    networks: Networks,
    guides: Labeled,
    unlabeled: NDArray[np.uint8],
    way: Way,
    seeds: Sequence[int],
    batch_size: int,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Each guide's anatomy in the unlabeled image of its row, (B, 256, 512) uint8, and the masks, bool."""
    images, masks = guides.images, guides.masks
    if way.align:
        images, masks, _ = move_guides(images, masks, unlabeled, networks.device)
    if way.recipe is None:
        return unlabeled, masks
    return synthesized(networks, images, masks, unlabeled, way.recipe, seeds, batch_size), masks


def synthesized(
    networks: Networks,
    guides: NDArray[np.uint8],
    masks: NDArray[np.bool_],
    unlabeled: NDArray[np.uint8],
    recipe: Recipe,
    seeds: Sequence[int],
    batch_size: int = 1,
) -> NDArray[np.uint8]:
    """`synthesize` in pixels: (N, 256, 512) uint8, masks bool, -> one sample per row, uint8."""
    cpu = torch.device("cpu")
    made = synthesize(
        networks,
        guide_images=to_images(guides, cpu),
        guide_masks=torch.from_numpy(masks)[:, None],
        unlabeled_images=to_images(unlabeled, cpu),
        recipe=recipe,
        seeds=seeds,
        batch_size=batch_size,
    )
    return pixels.from_unit(made[:, 0].numpy())


def samples_file(folder: Path, way: Way, guide: int) -> Path:
    return folder / slug(way.name) / f"{guide:04d}.npz"


def slug(name: str) -> str:
    """A name, as part of a file's name."""
    return re.sub(r"[^a-z0-9+]+", "-", name.lower()).strip("-")


def _write_samples(path: Path, images: NDArray[np.uint8], masks: NDArray[np.bool_]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as file:
        np.savez(file, images=images, masks=np.packbits(masks, axis=-1))


def read_samples(path: Path, k: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The first `k` samples (k, 256, 512) uint8 of a file, and their masks, bool."""
    with np.load(path) as kept:
        return kept["images"][:k], np.unpackbits(kept["masks"][:k], axis=-1).astype(bool)


def _chunks(count: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, count, size))
