"""The reverse process: from a noisy latent to a clean one, by a network that predicts the noise."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import sqrt
from typing import Literal

import torch
from torch import Tensor

from models.batches import threads_of_one_core
from models.blending import blend
from models.schedule import Schedule

Sampler = Literal["ddpm", "ddim"]
MANY_SAMPLES = 16  # at once: a GPU would wait if one core drew the noise of all

# (noisy (B, C, H, W), timesteps (B,) int64) -> predicted noise (B, C, H, W)
NoisePredictor = Callable[[Tensor, Tensor], Tensor]


def timestep_pairs(start_timestep: int, steps: int) -> list[tuple[int, int]]:
    """The steps (t, t_next) from `start_timestep` down to 0, evenly spaced: 25, 25 -> (25, 24), (24, 23) ...
    (1, 0)."""
    if not 1 <= steps <= start_timestep:
        raise ValueError(
            f"steps is {steps} and start_timestep {start_timestep}; give 1 <= steps <= start_timestep, "
            "as each step passes at least one noise level"
        )
    levels = [start_timestep * left // steps for left in range(steps, -1, -1)]
    return list(pairwise(levels))


def draw_noise(shape: Sequence[int], generators: Sequence[torch.Generator]) -> Tensor:
    """Standard normal (len(generators), *shape) float32 on the CPU, each sample's from its own generator."""

    def draw(generator: torch.Generator) -> Tensor:
        return torch.randn(tuple(shape), generator=generator)

    if len(generators) < MANY_SAMPLES:
        return torch.stack([draw(generator) for generator in generators])
    with threads_of_one_core("noise") as pool:
        return torch.stack(list(pool.map(draw, generators)))


def ddpm_step(
    latent: Tensor, predicted_noise: Tensor, noise: Tensor, alpha_bar: float, alpha_bar_next: float
) -> Tensor:
    """Draw the next latent from q(z_next | z_t, z_0), with the network's estimate of z_0.

    Ho et al. 2020, equations 6-7, for any pair of levels, so the steps may be respaced; the variance is the
    posterior's ("fixed small"). The predicted z_0 is never clipped: a standardised latent has no bounds.
    """
    clean = predict_clean(latent, predicted_noise, alpha_bar)
    alpha = alpha_bar / alpha_bar_next
    toward_clean = sqrt(alpha_bar_next) * (1 - alpha) / (1 - alpha_bar)
    toward_latent = sqrt(alpha) * (1 - alpha_bar_next) / (1 - alpha_bar)
    variance = (1 - alpha_bar_next) / (1 - alpha_bar) * (1 - alpha)
    return toward_clean * clean + toward_latent * latent + sqrt(variance) * noise


def ddim_step(latent: Tensor, predicted_noise: Tensor, alpha_bar: float, alpha_bar_next: float) -> Tensor:
    """The next latent on the same path (Song et al. 2021, equation 12, with eta 0)."""
    clean = predict_clean(latent, predicted_noise, alpha_bar)
    return sqrt(alpha_bar_next) * clean + sqrt(1 - alpha_bar_next) * predicted_noise


def predict_clean(latent: Tensor, predicted_noise: Tensor, alpha_bar: float) -> Tensor:
    """The clean latent that, with the predicted noise, makes `latent`."""
    return (latent - sqrt(1 - alpha_bar) * predicted_noise) / sqrt(alpha_bar)


def sample(
    denoiser: NoisePredictor,
    noisy: Tensor,
    pairs: Sequence[tuple[int, int]],
    schedule: Schedule,
    generators: Sequence[torch.Generator],
    sampler: Sampler = "ddpm",
    known: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Denoise latents (B, C, H, W), noised to the first level of `pairs`, down to the last: Appendix A, 6-8.

    With `known`, a clean latent (B, C, H, W) and a mask (B, 1, H, W), only what is under the mask is sampled:
    after each step everything outside the mask is set to the clean latent at the next step's noise level, in
    the end to itself (blended latent diffusion, Avrahami et al. 2023). Under the mask nothing is put back:
    there the sampler is free.

    Each sample has its own CPU generator, which draws (C, H, W) at every step that does not end at level 0:
    once with `ddpm`, and once more for `known`. So what a sample becomes does not depend on its batch.
    """
    if len(generators) != len(noisy):
        raise ValueError(f"{len(noisy)} latents and {len(generators)} generators; give one for each latent")

    def fresh_noise(t_next: int) -> Tensor:
        return draw_noise(noisy.shape[1:], generators).to(noisy) if t_next > 0 else torch.zeros_like(noisy)

    latent = noisy
    for t, t_next in pairs:
        predicted = denoiser(latent, torch.full((len(latent),), t, dtype=torch.int64, device=latent.device))
        if sampler == "ddpm":
            latent = ddpm_step(latent, predicted, fresh_noise(t_next), schedule.at(t), schedule.at(t_next))
        else:
            latent = ddim_step(latent, predicted, schedule.at(t), schedule.at(t_next))
        if known is not None:
            clean, sampled = known
            latent = blend(schedule.add_noise(clean, t_next, fresh_noise(t_next)), latent, sampled)
    return latent
