"""The paper's Table 1, with the controls it lacks: paste, blend, random selection and the oracle.

Everything is kept under one folder, a file per guide and method and a file per arm and seed, so a run that was stopped
goes on where it was, and several processes share the work, each making what no other is at.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from models import pixels
from models.batches import FixedBatches
from models.evaluation import ORACLE, REFERENCE, ArmResult, build_report, run_arm
from models.labeled_sets import Sets, Show
from models.matching import random_selection, top_k
from models.moved_guides import move_guides
from models.phantoms import LOOKS, PLAIN
from models.report import report_csv, report_markdown, report_png
from models.segmenter import Labeled, to_images
from models.sharing import each_once
from models.synthesis import Recipe, sample_seed, synthesize
from models.training.checkpoint import Checkpoint
from models.training.segmenter import SegmenterPlan
from models.weights import Networks

BATCHES_AT_ONCE = 4  # of a GPU: the last may be padded


@dataclass(frozen=True)
class Protocol:
    """What is compared with what, on which sets. Raises ValueError for what does not go together.

    top_ks: of the paper's recipe; the controls have `control_top_k`. budget: `steps` gives every arm the same
    optimiser steps; `epochs` gives an arm as many more as it has more images than `real`. guide_looks, looks and
    phantom_seed are for phantoms alone.
    """

    guides: int
    pool: int
    test: int
    top_ks: tuple[int, ...]
    control_top_k: int
    seeds: tuple[int, ...]
    plan: SegmenterPlan
    guide_looks: tuple[str, ...] = (PLAIN,)
    looks: tuple[str, ...] = LOOKS
    phantom_seed: int = 1_000_000
    budget: Literal["steps", "epochs"] = "steps"

    def __post_init__(self) -> None:
        for k in (*self.top_ks, self.control_top_k):
            if not 1 <= k <= self.pool:
                raise ValueError(f"top k is {k}, the pool has {self.pool} images; give 1 to {self.pool}")
        if self.guides < 1 or self.test < 1 or not self.seeds:
            raise ValueError(f"{self.guides} guides, {self.test} test images, seeds {self.seeds}; none may be empty")


@dataclass(frozen=True)
class Method:
    """A way to make labeled images from a guide: a recipe and how pool images are chosen.

    recipe: None leaves the pool image as it is; the guide gives no more than its mask.
    align: the guide is moved onto the pool image's anatomy first; the label is its moved mask.
    """

    name: str
    recipe: Recipe | None
    selection: Literal["ssim", "random"] = "ssim"
    align: bool = False


@dataclass(frozen=True)
class Arm:
    name: str
    real: bool
    method: Method | None = None
    top_k: int = 0
    pool_with_truth: bool = False


def table1_arms(protocol: Protocol, paper: Method, controls: Sequence[Method], oracle: bool = True) -> list[Arm]:
    """The paper's rows in its order, then the controls, each with the real images, then the oracle if asked for."""
    arms = [Arm(REFERENCE, real=True)]
    for k in protocol.top_ks:
        arms.append(Arm(f"top {k}, synthetic", real=False, method=paper, top_k=k))
        arms.append(Arm(f"top {k}, real+synthetic", real=True, method=paper, top_k=k))
    k = protocol.control_top_k
    arms += [Arm(f"top {k}, real+{method.name}", real=True, method=method, top_k=k) for method in controls]
    return [*arms, Arm(ORACLE, real=True, pool_with_truth=True)] if oracle else arms


def reproduce(
    folder: Path,
    networks: Networks,
    protocol: Protocol,
    arms: Sequence[Arm],
    sets: Sets,
    show: Show,
    batch_size: int = 1,
) -> dict[str, Any]:
    """Run every arm with every seed that is not in `folder` yet, and write report.json, .csv, .md and .png there.

    Returns the report. Raises ValueError if the folder holds a run of another protocol, other data or other weights.
    """
    weights = {"name": networks.name, "sha256": networks.sha256}
    stated = {"protocol": asdict(protocol), "weights": weights, "data_sha256": sets.sha256()}
    _same_run(folder, stated, arms)
    guides, pool, test = sets.guides, sets.pool, sets.test
    _synthesize_all(folder, networks, guides, pool, arms, show, batch_size)
    runs = [(arm, seed) for arm in arms for seed in protocol.seeds]
    kept = [folder / "arms" / f"{_slug(arm.name)}.seed{seed}.json" for arm, seed in runs]
    sources_of = lru_cache(1)(partial(_sources, folder, guides=guides, pool=pool))  # an arm's seeds follow one another

    def run(number: int) -> None:
        arm, seed = runs[number]
        show(number, len(runs), f"{arm.name}, seed {seed}")
        sources = sources_of(arm)
        _run_kept(kept[number], arm, sources, _plan(protocol, sources, len(guides), seed), test, networks.device)

    each_once(folder / "arms.lock", [[path] for path in kept], run)
    results = [ArmResult(**json.loads(path.read_text())) for path in kept]
    show(len(runs), len(runs), "report")
    report = build_report(results, stated)
    _write(folder / "report.json", json.dumps(report, indent=2) + "\n")
    _write(folder / "report.csv", report_csv(results))
    _write(folder / "report.md", report_markdown(report))
    _write(folder / "report.png", report_png(report))
    return report


def _same_run(folder: Path, stated: Mapping[str, Any], arms: Sequence[Arm]) -> None:
    """A folder belongs to one protocol: its numbers must be comparable."""
    run = json.loads(json.dumps({**stated, "arms": [asdict(arm) for arm in arms]}))
    path = folder / "run.json"
    if path.exists() and json.loads(path.read_text()) != run:
        raise ValueError(f"{folder} holds a run with other sizes, arms, data or weights; choose another folder")
    (folder / "arms").mkdir(parents=True, exist_ok=True)
    _write(path, json.dumps(run, indent=2) + "\n")


def _plan(protocol: Protocol, sources: Mapping[str, Labeled], real: int, seed: int) -> SegmenterPlan:
    steps = protocol.plan.steps
    if protocol.budget == "epochs":
        steps = max(1, round(steps * sum(map(len, sources.values())) / real))
    return replace(protocol.plan, seed=seed, steps=steps)


def _run_kept(
    kept: Path, arm: Arm, sources: Mapping[str, Labeled], plan: SegmenterPlan, test: Labeled, device: torch.device
) -> None:
    """Train and test one arm, with a checkpoint every minute; its result lies in `kept` when it is complete."""
    checkpoint = Checkpoint(kept.with_suffix(".checkpoint"))
    names, saved = test.groups, checkpoint.read()
    result = run_arm(arm.name, sources, plan, test, names, device, saved=saved, between_steps=checkpoint.after_step)
    _write(kept, json.dumps(asdict(result)))
    checkpoint.remove()


def _sources(folder: Path, arm: Arm, guides: Labeled, pool: Labeled) -> dict[str, Labeled]:
    sources = {"real": guides} if arm.real else {}
    if arm.pool_with_truth:
        sources["pool"] = pool
    if arm.method is not None:
        made = [_read_samples(_made(folder, arm.method, guide), arm.top_k) for guide in range(len(guides))]
        images, masks = (np.concatenate(column) for column in zip(*made, strict=True))
        groups = tuple(group for group in guides.groups for _ in range(arm.top_k))
        sources["synthetic"] = Labeled(images, masks, groups)
    return sources


def _synthesize_all(
    folder: Path,
    networks: Networks,
    guides: Labeled,
    pool: Labeled,
    arms: Sequence[Arm],
    show: Show,
    batch_size: int,
) -> None:
    """For every method and guide a file of samples and their masks, by rank; what is there is left as it is."""
    wanted: dict[str, tuple[Method, int]] = {}
    for arm in arms:
        if arm.method is not None:
            k = max(arm.top_k, wanted.get(arm.method.name, (arm.method, 0))[1])
            wanted[arm.method.name] = (arm.method, k)
    tasks = [
        (method, k, range(len(guides))[some])
        for method, k in wanted.values()
        for some in _chunks(len(guides), max(1, BATCHES_AT_ONCE * batch_size // k))
    ]
    files = [[_made(folder, method, guide) for guide in some] for method, _, some in tasks]
    if all(path.exists() for paths in files for path in paths):
        return
    digests = [pixels.sha256(image.tobytes()) for image in pool.images]
    where = {digest: row for row, digest in enumerate(digests)}
    most = max((k for method, k in wanted.values() if method.selection == "ssim"), default=0)
    ranked = nearest(networks, guides, pool, digests, most, batch_size, show) if most else []

    def chosen(method: Method, guide: int, k: int) -> list[tuple[int, int]]:
        """Rows of the pool, the most similar first, each with its sample's seed."""
        digest = pixels.sha256(guides.images[guide].tobytes())
        drawn = method.selection == "random"
        found = random_selection(0, digest, digests, k) if drawn else ranked[guide][:k]
        return [(where[sha256], sample_seed(0, digest, sha256)) for sha256 in found]

    def make(number: int) -> None:
        method, k, some = tasks[number]
        show(number, len(tasks), f"synthesis, {method.name}")
        missing = [guide for guide in some if not _made(folder, method, guide).exists()]
        pairs = [(guide, row, seed) for guide in missing for row, seed in chosen(method, guide, k)]
        of, rows, seeds = zip(*pairs, strict=True)
        samples, masks = _samples(networks, guides.rows(of), pool.images[list(rows)], method, seeds, batch_size)
        for guide, own in zip(missing, _chunks(len(pairs), k), strict=True):
            path = _made(folder, method, guide)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.with_suffix(".new").open("wb") as file:
                np.savez(file, images=samples[own], masks=np.packbits(masks[own], axis=-1))
            path.with_suffix(".new").replace(path)

    each_once(folder / "synthesis.lock", files, make)


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
            for rows in _chunks(len(images), 64):
                parts.append(batches.run(networks.vae.encode, to_images(images[rows], networks.device)).cpu())
                done += len(parts[-1])
                show(done, total, "comparing")
            latents.append(torch.cat(parts))
    data_range = float(latents[1].max() - latents[1].min())
    found = top_k(latents[0].to(networks.device), [(latents[1], digests)], k, data_range)
    return [[match.sha256 for match in matches] for matches in found]


def _samples(
    networks: Networks,
    guides: Labeled,
    unlabeled: NDArray[np.uint8],
    method: Method,
    seeds: Sequence[int],
    batch_size: int,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Each guide's anatomy in the unlabeled image of its row, (B, 256, 512) uint8, and the masks, bool."""
    images, masks = guides.images, guides.masks
    if method.align:
        images, masks, _ = move_guides(images, masks, unlabeled, networks.device)
    if method.recipe is None:
        return unlabeled, masks
    return synthesized(networks, images, masks, unlabeled, method.recipe, seeds, batch_size), masks


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
    return np.stack([pixels.from_unit(image) for image in made[:, 0].numpy()])


def _read_samples(path: Path, k: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The first `k` samples (k, 256, 512) uint8 of a file, and their masks, bool."""
    with np.load(path) as kept:
        return kept["images"][:k], np.unpackbits(kept["masks"][:k], axis=-1).astype(bool)


def _made(folder: Path, method: Method, guide: int) -> Path:
    return folder / "synthetic" / _slug(method.name) / f"{guide:04d}.npz"


def _chunks(count: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, count, size))


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9+]+", "-", name.lower()).strip("-")


def _write(path: Path, content: str | bytes) -> None:
    """Aside, then renamed: what is there is whole."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.new")  # several processes write the report
    aside.write_bytes(content.encode() if isinstance(content, str) else content)
    aside.replace(path)
