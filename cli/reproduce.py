"""`pansynth reproduce`: the paper's experiment, on phantoms or on the user's own radiographs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.failure import Failure
from cli.labeled import labeled_pairs, split
from cli.processes import OneDevice, in_words, only_device
from cli.progress import progress, say

if TYPE_CHECKING:
    from models.labeled_sets import Pair
    from models.reproduce import Arm, Protocol

app = typer.Typer(help="The paper's Table 1, on phantoms or your own radiographs.", no_args_is_help=True)

FOR_MEMORY = (
    "a smaller --batch helps where an arm is trained, --device cpu where a GPU makes samples, "
    "else fewer images or a smaller --top-k"
)


@app.callback()
def reproduce() -> None:
    """Keeps `table1` a subcommand: typer would make the only command the group itself."""


@app.command()
def table1(
    out: Annotated[Path, typer.Option(help="Folder of the run; the same command again continues it.")],
    size: Annotated[str, typer.Option(help="smoke, small or paper: whatever number is not given.")] = "small",
    weights: Annotated[Path | None, typer.Option(help="Folder of weights. Default: the shipped ones.")] = None,
    guides: Annotated[int | None, typer.Option(min=1, help="Labeled images to train on.")] = None,
    pool: Annotated[int | None, typer.Option(min=1, help="Phantoms in the pool.")] = None,
    test: Annotated[int | None, typer.Option(min=1, help="Phantoms to test on.")] = None,
    top_k: Annotated[list[int] | None, typer.Option(help="Pool images per guide, in the paper's rows; repeat.")] = None,
    control_top_k: Annotated[int | None, typer.Option(min=1, help="The same in all other rows.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps per arm, see --budget.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Images a step.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Training runs per arm.")] = None,
    backbone: Annotated[
        str | None, typer.Option(help="mini for a CPU, b0 to b5, tiny, or a folder of pretrained weights.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak of the segmenter's. Default: the backbone's.")
    ] = None,
    equal_weights: Annotated[
        bool, typer.Option(help="Draw real and synthetic images equally often, whatever their numbers.")
    ] = True,
    budget: Annotated[str, typer.Option(help="The same for every arm: steps or epochs.")] = "steps",
    guide_looks: Annotated[str, typer.Option(help="Looks of the guides, with commas.")] = "plain",
    seed: Annotated[int, typer.Option(min=0, help="Of the phantoms, or of the split of --labeled.")] = 250_000,
    labeled: Annotated[
        Path | None, typer.Option(help="Your own instead of phantoms: images/ and masks/, the same file names.")
    ] = None,
    unlabeled: Annotated[
        Path | None, typer.Option(help="With --labeled: the pool; with masks/ beside images/ there is an oracle.")
    ] = None,
    test_set: Annotated[
        Path | None, typer.Option(help="With --labeled: a labeled folder to test on. Default: what is not a guide.")
    ] = None,
    row: Annotated[
        list[str] | None,
        typer.Option(
            help="A row beside `real`, by its name without top K: oracle, real+paste, ...; repeat. Default: all."
        ),
    ] = None,
    device: OneDevice = "auto",
) -> None:
    """The paper's Table 1 with intervals, and what it lacks.

    Beside its rows: paste, blend, random selection, harmonize, masks alone, the oracle.

    Given again while it runs, in another terminal or on another GPU, the same command shares the work.
    """
    from dataclasses import replace

    from app.weights import shipped_folder
    from cli.phantoms import looks_of
    from models.labeled_sets import SEEDS_APART, folder_sets, phantom_sets
    from models.phantoms import LOOKS
    from models.reproduce import check_run, reproduce
    from models.weights import load_networks
    from worker.devices import use_device
    from worker.networks import batch_size

    looks = looks_of("--guide-looks", guide_looks)
    seed *= SEEDS_APART
    own = None
    if labeled is not None and unlabeled is not None:
        own = _own(labeled, unlabeled, test_set, guides, seed)
        guides, pool, test = map(len, own)
    elif any(folder is not None for folder in (labeled, unlabeled, test_set)):
        raise Failure("--labeled and --unlabeled go together; give both, or neither for phantoms")
    sized = _size(size)
    chosen = only_device(device)
    use_device(chosen)
    with in_words(FOR_MEMORY):
        networks = load_networks(weights or shipped_folder() / "default", chosen)
        training = _given(steps=steps, batch=batch, backbone=backbone, learning_rate=learning_rate)
        protocol = replace(
            sized,
            **_given(guides=guides, pool=pool, test=test, control_top_k=control_top_k),
            **_given(top_ks=top_k and tuple(top_k), seeds=seeds and tuple(range(seeds))),
            plan=replace(sized.plan, **training, equal_weights=equal_weights),
            guide_looks=looks,
            phantom_seed=seed,
            budget=budget,
        )
        counts = (protocol.guides, protocol.pool, protocol.test)
        pool_has_truth = own is None or all(mask is not None for _, mask in own[1])
        arms = _chosen(_arms(protocol, pool_has_truth), row)
        if own is None:  # how many images of folders count is known when they have been read
            check_run(out, networks, protocol, arms)
        with progress("table 1") as show:
            sets = folder_sets(*own, show) if own else phantom_sets(seed, counts, looks, LOOKS, show, out / "phantoms")
            if left_out := protocol.pool - len(sets.pool):
                told = "have the pixels of another, or are a guide or a copy of one, and are left out"
                say(f"{left_out} of {protocol.pool} pool images {told}")
            protocol = replace(protocol, pool=len(sets.pool))
            reproduce(out, networks, protocol, arms, sets, show, batch_size(chosen))
    report = (out / "report.md").read_text(encoding="utf-8")
    typer.echo(f"{report}\n{out}/report.json, report.csv, report.md and report.png")


def _size(name: str) -> "Protocol":
    """Guides, pool, test images, top ks, the controls' top k, seeds; the segmenter's backbone, steps and batch."""
    from models.reproduce import Protocol
    from models.training.segmenter import SegmenterPlan

    sizes = {
        "smoke": Protocol(2, 4, 4, (1, 2), 2, (0,), SegmenterPlan("tiny", 4, 2)),
        "small": Protocol(30, 500, 240, (5, 10, 20), 10, (0, 1, 2), SegmenterPlan("b0", 2000, 8)),
        "paper": Protocol(210, 1550, 1890, (5, 10, 20, 50), 20, (0, 1, 2), SegmenterPlan("b0", 20_000, 16)),
    }
    if name not in sizes:
        raise Failure(f"--size {name!r}; choose from {', '.join(sizes)}")
    return sizes[name]


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _own(
    labeled: Path, unlabeled: Path, test_set: Path | None, guides: int | None, seed: int
) -> "tuple[Sequence[Pair], Sequence[Pair], Sequence[Pair]]":
    """The files of guides, pool and test."""
    from models.training.images import image_paths

    pairs = labeled_pairs(labeled)
    if test_set is None:
        real, test = split(pairs, guides, seed)
    else:
        real, test = pairs if guides in (None, len(pairs)) else split(pairs, guides, seed)[0], labeled_pairs(test_set)
    if (unlabeled / "masks").is_dir():
        return real, labeled_pairs(unlabeled), test
    if not (images := image_paths(unlabeled)):
        raise Failure(f"--unlabeled {unlabeled}: no image under this folder")
    return real, [(path, None) for path in images], test


def _arms(protocol: "Protocol", oracle: bool) -> "list[Arm]":
    """The paper's rows with the preset `paper`, and the controls beside it."""
    from app.presets import PRESETS
    from models.reproduce import table1_arms
    from models.synthesis import Recipe
    from models.ways import Way

    paper, harmonize = PRESETS["paper"].recipe(), PRESETS["harmonize"].recipe()
    controls = [
        Way("paste", Recipe(method="paste", **paper)),
        Way("blend", Recipe(method="blend", **paper)),
        Way("random selection", Recipe(method="diffusion", **paper), "random"),
        Way("harmonize", Recipe(method="diffusion", **harmonize), align=PRESETS["harmonize"].align),
        # Label propagation: what a synthesis with alignment must be better than.
        Way("aligned mask alone", None, align=True),
    ]
    return table1_arms(protocol, Way("synthetic", Recipe(method="diffusion", **paper)), controls, oracle)


def _chosen(arms: "list[Arm]", rows: list[str] | None) -> "list[Arm]":
    """`real`, which the others are compared with, and the rows asked for, in their order."""
    from models.evaluation import ORACLE

    if rows is None:
        return arms
    short = {arm: arm.name.rpartition(", ")[2] for arm in arms}
    if strange := [row for row in rows if row not in short.values()]:
        known = ", ".join(dict.fromkeys(short.values()))
        if strange[0] == ORACLE:
            raise Failure("--row oracle: the pool has no masks; put masks/ beside images/ in --unlabeled")
        raise Failure(f"--row {strange[0]!r}: there is no such row; choose from {known}")
    return [arm for arm in arms if short[arm] in ("real", *rows)]
