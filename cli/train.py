"""`pansynth train`: train the networks on a folder of radiographs, on one device or on several."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.failure import Failure
from cli.labeled import labeled_pairs
from cli.out import beside, in_a_line, next_command, only_training, serving
from cli.processes import Device, Seed, in_words, joined
from cli.progress import Show, progress, say, seldom
from cli.train_region import train_region
from cli.train_segmenter import train_segmenter

if TYPE_CHECKING:
    import torch

    from models.segmenter import Labeled
    from models.training.images import TrainingImages
    from models.training.plan import Progress

# What is not there is refused with the command line: torch takes seconds to load.
Data = Annotated[
    Path,
    typer.Option(
        exists=True, file_okay=False, help="Folder of radiographs: PNG, JPEG, TIFF, BMP or DICOM, searched below too."
    ),
]
Out = Annotated[
    Path,
    typer.Option(
        file_okay=False, writable=True, help="Folder of the weights; its last part is their name in the service."
    ),
]
Steps = Annotated[int, typer.Option(min=1, help="Optimiser steps.")]
Minutes = Annotated[float | None, typer.Option(min=0.1, help="End after so many minutes, fully annealed.")]
Batch = Annotated[
    int,
    typer.Option(min=1, help="Images a step over all devices: crops of 128x128 for the VAE, latents for the denoiser."),
]
Rate = Annotated[float, typer.Option(help="Peak learning rate.")]
Exclude = Annotated[
    list[Path] | None,
    typer.Option(
        exists=True, help="Refuse to train on images of this folder, or of the pool, guides and test of a split.json."
    ),
]
Compile = Annotated[bool, typer.Option("--compile", help="Compile the network first, which takes minutes (CUDA).")]

app = typer.Typer(help="Train the networks on your own radiographs.", no_args_is_help=True)
app.command("segmenter")(train_segmenter)
app.command("region")(train_region)


@app.command("vae")
def train_vae(
    data: Data,
    out: Out,
    steps: Steps = 100_000,
    minutes: Minutes = None,
    batch: Batch = 16,
    learning_rate: Rate = 3e-4,
    seed: Seed = 0,
    device: Device = "auto",
    exclude: Exclude = None,
    labeled: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False, help="images/ and masks/ that are not trained on: does the canal survive?"
        ),
    ] = None,
    compile_network: Compile = False,
) -> None:
    """Train the VAE. Killed, it continues where it was when the same command is given again."""
    from models.training import vae
    from models.training.plan import Budget, Plan
    from models.training.ranks import first_alone
    from models.weights import check_place, save_vae

    with in_words(), joined(device) as own, _at_work("vae", out) as show:
        check_place(out)
        plan = Plan(Budget(steps, minutes), batch, learning_rate, seed)
        judges = _labeled(labeled, show)
        with first_alone(own):
            images, checked = _images(data, out, [*(exclude or []), *([labeled] if labeled else [])], show)
        trained, facts = vae.train_vae(
            images.pixels,
            plan,
            beside(out) / "vae",
            own,
            _training(show, "vae"),
            judges,
            _workers(own),
            compile_network,
            str(images),
        )
        if first := _first():
            save_vae(out, trained, facts | checked)
    if first:
        typer.echo(f"VAE in {out}: {in_a_line(facts)}")
        budget = ["--minutes", f"{minutes:g}"] if minutes else []
        typer.echo(next_command("pansynth", "train", "denoiser", "--data", data, "--out", out, *budget))


@app.command("denoiser")
def train_denoiser(
    data: Data,
    out: Out,
    steps: Steps = 200_000,
    minutes: Minutes = None,
    batch: Batch = 16,
    learning_rate: Rate = 5e-4,
    seed: Seed = 0,
    device: Device = "auto",
    exclude: Exclude = None,
    compile_network: Compile = False,
) -> None:
    """Train the denoiser on the latents of the VAE in --out. Killed, it continues as `train vae` does."""
    from models.training import denoiser
    from models.training.latents import describe_latents, open_latents, vae_sha256
    from models.training.plan import Budget, Plan
    from models.training.ranks import first_alone
    from models.weights import WeightsError, load_vae, save_denoiser

    try:
        vae, schedule = load_vae(out)
    except WeightsError as error:
        train = next_command("pansynth", "train", "vae", "--data", data, "--out", out)
        raise Failure(f"{error}; the VAE comes first; {train}") from None
    with in_words(), joined(device) as own, _at_work("denoiser", out) as show:
        plan = Plan(Budget(steps, minutes), batch, learning_rate, seed)
        with first_alone(own):
            images, checked = _images(data, out, exclude or [], show)
            latents = open_latents(vae, images, beside(out) / "cache", own, partial(show, label="latents"))
        vae = vae.to(own)
        trained, facts = denoiser.train_denoiser(
            latents,
            schedule,
            plan,
            beside(out) / "denoiser",
            own,
            _training(show, "denoiser"),
            lambda latent: vae.decode(latent.to(own)),
            _workers(own),
            compile_network,
            f"latents of VAE {vae_sha256(vae)[:12]} of {images}",
        )
        if first := _first():
            save_denoiser(out, trained, facts | checked, describe_latents(latents))
    if first:
        typer.echo(f"denoiser in {out}: {in_a_line(facts)}\n{serving(out)}")


def _images(data: Path, out: Path, excluded: list[Path], show: Show) -> "tuple[TrainingImages, dict[str, int]]":
    """The images to train on, none among `excluded`, and a fact for the manifest. Raises Failure, ValueError."""
    from models.duplicates import leaks
    from models.splits import MANIFEST, used_elsewhere
    from models.training.images import open_images

    cache = beside(out) / "cache"
    own = data.resolve()
    # What `pansynth split` made guards itself.
    excluded = [*excluded, *(at / MANIFEST for at in (own, own.parent) if (at / MANIFEST).is_file())]
    tell = say if _first() else lambda _: None
    images = open_images(data, cache, show, tell)
    others = [
        known
        for path in excluded
        for known in (used_elsewhere(path) if path.is_file() else open_images(path, cache, show, tell, least=1).known)
    ]
    if found := leaks(images.known, others):
        listed = "\n  ".join(map(str, found[:10])) + (f"\n  and {len(found) - 10} more" if len(found) > 10 else "")
        raise Failure(
            f"{len(found)} of the {len(images.known)} training images are for synthesis or for tests:\n  {listed}\n"
            f"take them out of {data}, or let `pansynth split` make the sets; figures would be worthless otherwise"
        )
    return images, {"not_among": len({known.pixels_sha256 for known in others})}


def _labeled(folder: Path | None, show: Show) -> "Labeled | None":
    """Up to 64 labeled images to judge by. Raises Failure, ValueError."""
    from models.labeled_sets import read_labeled

    if folder is None:
        return None
    return read_labeled(labeled_pairs(folder)[:64], "labeled", show)


def _workers(device: "torch.device") -> int:
    """Processes that draw batches ahead of a GPU; on a CPU they would only take its time."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(8, (os.cpu_count() or 1) // processes - 1)) if device.type == "cuda" else 0


def _first() -> bool:
    from models.training.ranks import rank

    return rank() == 0


@contextmanager
def _at_work(label: str, out: Path) -> Iterator[Show]:
    """Progress of process 0, which keeps other trainings out; the others are silent."""
    if not _first():
        yield lambda *_, **__: None
        return
    with only_training(out), progress(label) as show:
        yield show


def _training(show: Show, label: str) -> "Callable[[Progress], None]":
    """Show per mille of the budget, with loss, speed and figures, but not at every step."""
    quiet = seldom(show)

    def update(now: "Progress") -> None:
        figures = "".join(f" {name} {value:.4g}" for name, value in now.figures.items())
        text = f"{label} step {now.step} loss {now.loss:.4f}{figures} {now.images_per_second:.1f} images/s {_left(now)}"
        quiet(int(now.spent * 1000), 1000, text)

    return update


def _left(now: "Progress") -> str:
    if now.spent == 1:
        return "done; last figures and sheet"
    seconds = now.remaining_seconds
    return f"{seconds / 60:.0f} min left" if seconds > 90 else f"{seconds:.0f} s left"
