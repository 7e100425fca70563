"""The paper's Table 1, with the controls it lacks: paste, blend, random selection and the oracle.

Everything is kept under one folder, a file per guide and way and a file per arm and seed, so a run that was stopped
resumes where it was, and several processes share the work.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.evaluation import ORACLE, REFERENCE, ArmResult, build_report, run_arm
from models.labeled_sets import Sets, Show
from models.phantoms import PLAIN
from models.report import report_csv, report_markdown, report_png
from models.segmenter import BACKBONES, Labeled, pretrained_sha256
from models.sharing import alone, each_once, whole
from models.training.checkpoint import Checkpoint
from models.training.segmenter import SegmenterPlan
from models.ways import Way, make_samples, read_samples, samples_file, slug
from models.weights import Networks


@dataclass(frozen=True)
class Protocol:
    """What is compared with what, on which sets. Raises ValueError for what does not go together.

    top_ks: of the paper's recipe; the controls have `control_top_k`. budget: `steps` gives every arm the same
    optimiser steps; `epochs` gives an arm with n times the images of `real` n times the steps. guide_looks and
    phantom_seed concern phantoms alone.
    """

    guides: int
    pool: int
    test: int
    top_ks: tuple[int, ...]
    control_top_k: int
    seeds: tuple[int, ...]
    plan: SegmenterPlan
    guide_looks: tuple[str, ...] = (PLAIN,)
    phantom_seed: int = 1_000_000
    budget: str = "steps"

    def __post_init__(self) -> None:
        if self.budget not in ("steps", "epochs"):
            raise ValueError(f"budget {self.budget!r}; choose steps or epochs")
        for k in (*self.top_ks, self.control_top_k):
            if not 1 <= k <= self.pool:
                raise ValueError(f"top k is {k}, the pool has {self.pool} images; give 1 to {self.pool}")
        if self.guides < 1 or self.test < 1 or not self.seeds:
            raise ValueError(f"{self.guides} guides, {self.test} test images, seeds {self.seeds}; none may be empty")


@dataclass(frozen=True)
class Arm:
    name: str
    real: bool
    way: Way | None = None
    top_k: int = 0
    pool_with_truth: bool = False


def table1_arms(protocol: Protocol, paper: Way, controls: Sequence[Way], oracle: bool = True) -> list[Arm]:
    """The paper's rows in its order, then the controls, each with the real images, then the oracle if asked for."""
    arms = [Arm(REFERENCE, real=True)]
    for k in protocol.top_ks:
        arms.append(Arm(f"top {k}, synthetic", real=False, way=paper, top_k=k))
        arms.append(Arm(f"top {k}, real+synthetic", real=True, way=paper, top_k=k))
    k = protocol.control_top_k
    arms += [Arm(f"top {k}, real+{way.name}", real=True, way=way, top_k=k) for way in controls]
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

    Returns the report of these arms and seeds; the folder may hold more. Raises ValueError if it holds a run of another
    protocol, other data or other weights.
    """
    stated = {**_stated(networks, protocol), "data_sha256": sets.sha256()}
    (folder / "arms").mkdir(parents=True, exist_ok=True)
    with alone(folder):
        _write(folder / "run.json", json.dumps(_run_with(folder, stated, arms), indent=2) + "\n")
    guides, pool, test = sets.guides, sets.pool, sets.test
    make_samples(folder / "synthetic", networks, guides, pool, _wanted(arms), show, batch_size)
    runs = [(arm, seed) for arm in arms for seed in protocol.seeds]
    kept = [folder / "arms" / f"{slug(arm.name)}.seed{seed}.json" for arm, seed in runs]

    def run(number: int) -> None:
        arm, seed = runs[number]
        show(number, len(runs), f"{arm.name}, seed {seed}")
        sources = _sources(folder, arm, guides, pool)
        _run_kept(kept[number], arm, sources, _plan(protocol, sources, len(guides), seed), test, networks.device)

    each_once(folder / "arms.lock", [[path] for path in kept], run)
    results = [ArmResult(**json.loads(path.read_text())) for path in kept]
    show(len(runs), len(runs), "report")
    report = build_report(results, stated)
    with alone(folder):
        _write(folder / "report.json", json.dumps(report, indent=2) + "\n")
        _write(folder / "report.csv", report_csv(results))
        _write(folder / "report.md", report_markdown(report))
        _write(folder / "report.png", report_png(report))
    return report


def _wanted(arms: Sequence[Arm]) -> dict[Way, int]:
    """Every way that arms are made by, and how many samples of each guide the largest of them takes."""
    wanted: dict[Way, int] = {}
    for arm in arms:
        if arm.way is not None:
            wanted[arm.way] = max(arm.top_k, wanted.get(arm.way, 0))
    return wanted


def check_run(folder: Path, networks: Networks, protocol: Protocol, arms: Sequence[Arm]) -> None:
    """Raises ValueError as `reproduce` does, before there are sets: phantoms may take minutes and a gigabyte."""
    _run_with(folder, _stated(networks, protocol), arms)


def _stated(networks: Networks, protocol: Protocol) -> dict[str, Any]:
    weights = {"name": networks.name, "sha256": networks.sha256}
    stated: dict[str, Any] = {"protocol": asdict(protocol), "weights": weights}
    if (backbone := protocol.plan.backbone) not in BACKBONES:
        stated["backbone_sha256"] = pretrained_sha256(Path(backbone))
    return stated


def _run_with(folder: Path, stated: Mapping[str, Any], arms: Sequence[Arm]) -> dict[str, Any]:
    """What run.json is to hold: a folder belongs to one protocol, whose numbers must be comparable. Only arms and seeds
    may be added later, and no arm that takes more samples of each guide than were made for those before it.
    """
    now = json.loads(json.dumps({**stated, "arms": {arm.name: asdict(arm) for arm in arms}}))
    del now["protocol"]["seeds"]
    wanted = now.pop("arms")
    path = folder / "run.json"
    before = json.loads(path.read_text()) if path.exists() else {**now, "arms": {}}
    known = before.pop("arms")
    if {**before, **now} != before or any(known.get(name, arm) != arm for name, arm in wanted.items()):
        raise ValueError(f"{folder} holds a run with other sizes, data or weights; choose another folder")
    for arm in wanted.values():
        made = max((other["top_k"] for other in known.values() if other["way"] == arm["way"]), default=arm["top_k"])
        if arm["top_k"] > made:
            raise ValueError(
                f"{folder} was begun with {made} samples of each guide, arm {arm['name']!r} takes {arm['top_k']}; "
                "choose another folder"
            )
    return {**now, "arms": {**known, **wanted}}


def _plan(protocol: Protocol, sources: Mapping[str, Labeled], real: int, seed: int) -> SegmenterPlan:
    steps = protocol.plan.steps
    if protocol.budget == "epochs":
        steps = max(1, round(steps * sum(map(len, sources.values())) / real))
    return replace(protocol.plan, seed=seed, steps=steps)


def _run_kept(
    kept: Path, arm: Arm, sources: Mapping[str, Labeled], plan: SegmenterPlan, test: Labeled, device: torch.device
) -> None:
    """Train and test one arm, with a checkpoint every minute; its result is in `kept` once it is complete."""
    checkpoint = Checkpoint(kept.with_suffix(".checkpoint"))
    saved = checkpoint.read()
    result = run_arm(arm.name, sources, plan, test, device, saved=saved, between_steps=checkpoint.after_step)
    _write(kept, json.dumps(asdict(result)))
    checkpoint.remove()


def _sources(folder: Path, arm: Arm, guides: Labeled, pool: Labeled) -> dict[str, Labeled]:
    sources = {"real": guides} if arm.real else {}
    if arm.pool_with_truth:
        sources["pool"] = pool
    if arm.way is not None:
        sources["synthetic"] = _synthetic(folder / "synthetic", arm.way, guides, arm.top_k)
    return sources


def _synthetic(home: Path, way: Way, guides: Labeled, k: int) -> Labeled:
    """Every guide's first k samples, under its name; filled in guide by guide, since they may take gigabytes."""
    shape = (len(guides) * k, *guides.images.shape[1:])
    groups = tuple(group for group in guides.groups for _ in range(k))
    made = Labeled(np.empty(shape, np.uint8), np.empty(shape, np.bool_), groups)
    for guide in range(len(guides)):
        rows = slice(guide * k, (guide + 1) * k)
        made.images[rows], made.masks[rows] = read_samples(samples_file(home, way, guide), k)
    return made


def _write(path: Path, content: str | bytes) -> None:
    with whole(path) as file:
        # A test image's name may be no text.
        file.write(content.encode(errors="backslashreplace") if isinstance(content, str) else content)
