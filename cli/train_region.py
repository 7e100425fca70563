"""`pansynth train region`: the finder of the region of interest, from radiographs with masks of it."""

from pathlib import Path
from typing import Annotated

import typer

from cli.labeled import labeled_pairs
from cli.out import beside, in_a_line, only_training, serving
from cli.processes import OneDevice, Seed, in_words, only_device
from cli.progress import progress, seldom


def train_region(
    data: Annotated[Path, typer.Option(help="Folder with images/ and regions/ of the same file names; binary masks.")],
    out: Annotated[
        Path,
        typer.Option(
            file_okay=False, writable=True, help="Folder of the weights; the service takes `region` beside the others."
        ),
    ],
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 2000,
    batch: Annotated[int, typer.Option(min=1, help="Images a step, 128x64 each.")] = 8,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 5e-4,
    seed: Seed = 0,
    device: OneDevice = "auto",
) -> None:
    """Train the finder of the tooth-bearing jaw. Killed, it continues where it was."""
    pairs = labeled_pairs(data, "regions")  # refused before torch is loaded, which takes seconds

    from models.region import KIND, save_region
    from models.training import region
    from models.training.checkpoint import Checkpoint
    from models.weights import check_place

    own = only_device(device)
    with in_words(), only_training(out), progress("region") as show:
        check_place(out, KIND)
        plan = region.region_plan(steps, batch, learning_rate, seed)
        labeled = region.read_regions(pairs, show)
        checkpoint = Checkpoint.of(labeled, plan, beside(out) / "region")
        trained, facts = region.train_region(labeled, plan, checkpoint, own, seldom(show))
        save_region(out, trained.cpu(), facts)
    checkpoint.remove()
    typer.echo(f"region finder in {out}: {in_a_line(facts)}\n{serving(out)}")
