"""`pansynth train`: train the networks on a folder of radiographs."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.failure import Failure
from cli.progress import Show, progress

if TYPE_CHECKING:
    import torch

    from models.training.loop import Plan, Progress

Data = Annotated[Path, typer.Option(help="Folder of radiographs: PNG, JPEG, TIFF, BMP or DICOM, searched below too.")]
Out = Annotated[Path, typer.Option(help="Folder of the weights; its last part is their name in the service.")]
Steps = Annotated[int, typer.Option(min=1, help="Optimiser steps.")]
Minutes = Annotated[float | None, typer.Option(min=0.1, help="End after so many minutes, fully annealed.")]
Batch = Annotated[
    int, typer.Option(min=1, help="Images a step: crops of 128x128 for the VAE, latents for the denoiser.")
]
Rate = Annotated[float, typer.Option(help="Peak learning rate.")]
Seed = Annotated[int, typer.Option(min=0)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]

app = typer.Typer(help="Train the VAE, then the denoiser, on your own radiographs.", no_args_is_help=True)


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
) -> None:
    """Train the VAE. Killed, it continues where it was when the same command is given again."""
    from models.training import vae
    from models.training.images import open_images
    from models.weights import save_vae

    plan = _plan(steps, minutes, batch, learning_rate, seed)
    with progress("vae") as show:
        images = open_images(data, _beside(out) / "cache", show, typer.echo)
        trained, facts = vae.train_vae(images, plan, _beside(out) / "vae", _device(device), _training(show, "vae"))
    save_vae(out, trained, facts)
    typer.echo(f"VAE in {out}: {facts}\nnext: pansynth train denoiser --data {data} --out {out}")


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
) -> None:
    """Train the denoiser on the latents of the VAE in --out. Killed, it continues as `train vae` does."""
    from models.training import denoiser
    from models.training.images import open_images
    from models.training.latents import open_latents
    from models.weights import load_vae, save_denoiser

    plan = _plan(steps, minutes, batch, learning_rate, seed)
    vae, schedule = load_vae(out)
    with progress("denoiser") as show:
        images = open_images(data, _beside(out) / "cache", show, typer.echo)
        latents = open_latents(vae, images, _beside(out) / "cache", _device(device), show)
        trained, facts = denoiser.train_denoiser(
            latents, schedule, plan, _beside(out) / "denoiser", _device(device), _training(show, "denoiser")
        )
    save_denoiser(out, trained, facts)
    typer.echo(f"denoiser in {out}: {facts}\nnext: PANSYNTH_WEIGHTS_DIR={out.parent} pansynth up")


def _plan(steps: int, minutes: float | None, batch: int, learning_rate: float, seed: int) -> "Plan":
    from models.training.loop import Budget, Plan

    return Plan(Budget(steps, minutes), batch, learning_rate, seed)


def _beside(out: Path) -> Path:
    """Caches, checkpoints and curves lie beside the weights, never among them."""
    return out.with_name(f"{out.name}.training")


def _device(name: str) -> "torch.device":
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.device(name)
    except RuntimeError:
        raise Failure(f"--device {name!r}: give auto, cpu, cuda or cuda:N") from None


def _training(show: Show, label: str, seconds: float = 10.0) -> "Callable[[Progress], None]":
    """Show per mille of the budget, with loss, speed and figures, but not at every step."""
    said = -seconds

    def update(now: "Progress") -> None:
        nonlocal said
        if time.monotonic() - said < seconds and now.spent < 1:
            return
        said = time.monotonic()
        figures = "".join(f" {name} {value:.4g}" for name, value in now.figures.items())
        left = f"{now.remaining_seconds / 60:.0f} min left"
        text = f"{label} step {now.step} loss {now.loss:.4f}{figures} {now.images_per_second:.1f} images/s {left}"
        show(int(now.spent * 1000), 1000, text)

    return update
