"""Training of the denoiser on latents that are made once."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.denoiser import Denoiser, build_unet
from models.precision import autocast, memory_format
from models.schedule import Schedule
from models.training.loop import train
from models.training.plan import Plan, Progress
from models.training.ranks import Batches
from models.training.sheets import SHEET_IMAGES, sample_sheet
from models.training.vae import split

LEVELS = (25, 100, 500)  # noise levels of the validation
VALIDATION_BATCH = 16


def train_denoiser(
    latents: Tensor,
    schedule: Schedule,
    plan: Plan,
    folder: Path,
    device: torch.device,
    show: Callable[[Progress], None],
    decode: Callable[[Tensor], Tensor] | None = None,
    workers: int = 0,
    compile_network: bool = False,
    subject: str = "",
) -> tuple[Denoiser, dict[str, Any]]:
    """Train a U-Net to predict the noise in `latents` (N, C, 32, 64), standardised; -> the denoiser and the facts.

    Loss: L1, as Medfusion's. Row 2n of `latents` is image n, row 2n + 1 its mirror image; the VAE's validation images
    are held out here, too. `decode`, the VAE's, is for the sheets of samples; without it none are drawn. `subject`: see
    `train`.
    """
    held_out_images, images = split(len(latents) // 2)
    held_out = latents[2 * held_out_images].float()
    rows = np.concatenate([2 * images, 2 * images + 1])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        denoiser = Denoiser(build_unet(latents.shape[1]).to(device, memory_format=memory_format(device)))
    if compile_network:
        denoiser.unet.compile()

    batches = Batches(partial(draw_row, latents, rows, schedule.timesteps, plan.seed), plan.batch, workers)

    def loss(network: nn.Module, step: int) -> Tensor:
        clean, levels, noise = batches(step, device)
        with autocast(device):
            return noise_error(network, clean, levels, noise, schedule).mean()

    def validate(network: nn.Module) -> dict[str, float]:
        noise = torch.randn(held_out.shape, generator=torch.Generator().manual_seed(0))
        return {f"l1_at_{level}": _level_error(network, held_out, level, noise, schedule, device) for level in LEVELS}

    def draw_sheet(network: nn.Module) -> NDArray[np.uint8]:
        assert decode is not None
        return sample_sheet(network, decode, held_out[:SHEET_IMAGES], schedule, device)

    average, facts = train(denoiser, loss, validate, plan, folder, show, draw_sheet if decode else None, subject)
    assert isinstance(average, Denoiser)
    return average.cpu(), {"latents": len(latents), **facts}


def draw_row(
    latents: Tensor, rows: NDArray[np.int64], timesteps: int, seed: int, step: int, row: int
) -> tuple[Tensor, int, NDArray[np.float32]]:
    """One of `latents[rows]` (C, 32, 64), a noise level and the noise (C, 32, 64), by seed, step and row."""
    random = np.random.default_rng([seed, step, row])
    clean = latents[rows[random.integers(len(rows))]].float()
    level = draw_level(timesteps, random)
    return clean, level, random.standard_normal(clean.shape, dtype=np.float32)


def draw_level(timesteps: int, random: np.random.Generator) -> int:
    """A noise level of 1 ... timesteps, log-uniform: nearly half are at most 25, where `paper` works."""
    return min(int(np.exp(random.uniform(0, np.log(timesteps + 1)))), timesteps)


@torch.inference_mode()
def _level_error(
    network: nn.Module, clean: Tensor, level: int, noise: Tensor, schedule: Schedule, device: torch.device
) -> float:
    """The mean error at one level over latents (N, C, 32, 64), in batches."""
    total = 0.0
    for start in range(0, len(clean), VALIDATION_BATCH):
        part = slice(start, start + VALIDATION_BATCH)
        levels = torch.full((len(clean[part]),), level, device=device)
        with autocast(device):
            error = noise_error(network, clean[part].to(device), levels, noise[part].to(device), schedule)
        total += float(error.sum())
    return total / clean.numel()


def noise_error(network: nn.Module, clean: Tensor, levels: Tensor, noise: Tensor, schedule: Schedule) -> Tensor:
    """Absolute error of the predicted noise, (B, C, 32, 64)."""
    predicted: Tensor = network(schedule.add_noise(clean, levels, noise), levels)
    return (predicted.float() - noise).abs()
