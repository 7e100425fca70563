"""`pansynth train segmenter`: a segmenter of one's own from labeled images, to begin others from."""

import csv
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.labeled import labeled_pairs
from cli.out import beside, check_new_folder, filled, in_a_line, next_command, only_training
from cli.processes import OneDevice, Seed, in_words, only_device
from cli.progress import progress, seldom

if TYPE_CHECKING:
    from models.segmenter import Labeled
    from models.training.segmenter import SegmenterPlan, SegmenterTraining


def train_segmenter(
    data: Annotated[Path, typer.Option(help="Folder with images/ and masks/ of the same file names.")],
    out: Annotated[Path, typer.Option(help="Folder of the weights: what --backbone of reproduce takes.")],
    backbone: Annotated[str, typer.Option(help="tiny, mini, b0 to b5, or a folder of pretrained weights.")] = "b0",
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 2000,
    batch: Annotated[int, typer.Option(min=1, help="Images a step.")] = 8,
    learning_rate: Annotated[float | None, typer.Option(help="Peak. Default: the backbone's.")] = None,
    seed: Seed = 0,
    device: OneDevice = "auto",
) -> None:
    """Train a SegFormer. A fifth of the images (of nine or fewer none) is held out and chooses the best state.

    Killed, it continues.
    """
    check_new_folder(out)
    pairs = labeled_pairs(data)  # refused before torch is loaded, which takes seconds

    from models.labeled_sets import read_labeled
    from models.training.checkpoint import Checkpoint
    from models.training.segmenter import SegmenterPlan, SegmenterTraining

    own = only_device(device)
    with in_words(), only_training(out), progress("segmenter") as show:
        plan = SegmenterPlan(backbone, steps, batch, learning_rate, seed)
        labeled = _by_guide(read_labeled(pairs, "images", show), data / "manifest.csv")
        checkpoint = Checkpoint.of(labeled, plan, beside(out) / "segmenter")
        training = SegmenterTraining([labeled], plan, own)
        checkpoint.finish(training, "segmenter", seldom(show))
        reached = _reached(training)
        _save(training, _facts(training, labeled, plan, reached), out)
    checkpoint.remove()
    told = f"on the images held out: {in_a_line(reached)}" if reached["images"] else "trained on all of so few images"
    typer.echo(f"segmenter in {out}, {told}")
    typer.echo(next_command("pansynth", "reproduce", "table1", "--backbone", out, "--out", "table1"))


def _by_guide(labeled: "Labeled", manifest: Path) -> "Labeled":
    """A dataset's samples with those of one guide in one group, which is held out as a whole; other images as they are.

    Else the best state would be chosen by anatomy that the segmenter has seen.
    """
    if not manifest.is_file():
        return labeled
    with manifest.open(newline="", encoding="utf-8") as file:
        guides = {Path(row.get("image") or "").name: row.get("guide_sha256") for row in csv.DictReader(file)}
    return replace(labeled, groups=tuple(guides.get(name) or name for name in labeled.groups))


def _reached(training: "SegmenterTraining") -> dict[str, float]:
    """How many images were held out, and what the best state reaches on them in the mean."""
    import numpy as np

    from models.evaluation import score_images
    from models.metrics import METRICS

    held_out = training.validation
    rows = score_images(training.best(), held_out, training.device) if len(held_out) else []
    reached = {name: round(float(np.mean([row[name] for row in rows])), 4) for name in METRICS} if rows else {}
    return {"images": len(held_out), **reached}


def _facts(
    training: "SegmenterTraining", labeled: "Labeled", plan: "SegmenterPlan", reached: dict[str, float]
) -> dict[str, object]:
    """What the manifest tells: the plan, the images, and what the best state reaches on those held out."""
    return {
        "plan": asdict(replace(plan, steps=training.step)),  # more than asked for, if it was stopped later
        "images": len(labeled),
        "best_step": training.best_step,
        "validation": reached,
    }


def _save(training: "SegmenterTraining", facts: dict[str, object], out: Path) -> None:
    """The layout of `save_pretrained` and a manifest, whole or not at all."""
    from models.pixels import file_sha256

    with filled(out) as aside:
        training.best().network.cpu().save_pretrained(aside)
        files = {path.name: {"sha256": file_sha256(path)} for path in sorted(aside.iterdir()) if path.is_file()}
        (aside / "manifest.json").write_text(json.dumps({"name": out.name, **facts, "files": files}, indent=2) + "\n")
