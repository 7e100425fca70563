"""Training of the denoiser on latents that are made once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.denoiser import Denoiser, build_unet
from models.schedule import Schedule
from models.training.loop import Plan, Progress, autocast, train
from models.training.vae import split

LOW_LEVELS = 100  # both presets start at or below this noise level


def train_denoiser(
    latents: Tensor,
    schedule: Schedule,
    plan: Plan,
    folder: Path,
    device: torch.device,
    show: Callable[[Progress], None],
) -> tuple[Denoiser, dict[str, Any]]:
    """Train a U-Net to predict the noise in `latents` (N, C, 32, 64), standardised; -> the denoiser and the facts.

    Loss: L1, as Medfusion's. Half of the noise levels are drawn from all, half from the lowest 100, where synthesis
    works. `latents` holds every image beside its mirrored one; the VAE's validation images are this one's too.
    """
    held_out_images, images = split(len(latents) // 2)
    held_out = latents[2 * held_out_images].float()
    rows = np.concatenate([2 * images, 2 * images + 1])
    denoiser = Denoiser(build_unet(latents.shape[1])).to(device, memory_format=torch.channels_last)

    def loss(network: nn.Module, step: int) -> Tensor:
        random = np.random.default_rng([plan.seed, step])
        clean = latents[rows[random.integers(len(rows), size=plan.batch)]].float()
        levels = np.where(
            random.random(plan.batch) < 0.5,
            random.integers(1, schedule.timesteps + 1, plan.batch),
            random.integers(1, LOW_LEVELS + 1, plan.batch),
        )
        noise = torch.from_numpy(random.standard_normal(clean.shape, dtype=np.float32))
        return _error(network, clean, torch.from_numpy(levels), noise, schedule, device).mean()

    def validate(network: nn.Module) -> dict[str, float]:
        random = torch.Generator().manual_seed(0)
        noise = torch.randn(held_out.shape, generator=random)
        figures = {}
        for level in (25, 100, 500):
            with torch.inference_mode():
                levels = torch.full((len(held_out),), level)
                figures[f"l1_at_{level}"] = float(_error(network, held_out, levels, noise, schedule, device).mean())
        return figures

    average, facts = train(denoiser, loss, validate, plan, folder, show)
    assert isinstance(average, Denoiser)
    return average.cpu(), {"latents": len(latents), **facts}


def _error(
    network: nn.Module, clean: Tensor, levels: Tensor, noise: Tensor, schedule: Schedule, device: torch.device
) -> Tensor:
    """Absolute error of the predicted noise, (B, C, 32, 64)."""
    noisy = schedule.add_noise(clean, levels, noise).to(device, memory_format=torch.channels_last)
    with autocast(device):
        predicted = network(noisy, levels.to(device))
    return (predicted.float() - noise.to(device)).abs()
