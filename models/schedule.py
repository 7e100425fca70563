"""The forward process: how much of a clean latent is left at each of 1,000 noise levels."""

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Schedule:
    """Noise levels t = 0 ... timesteps; t = 0 is the clean latent, t = timesteps almost pure noise.

    alpha_bar: (timesteps + 1,) float64 on the CPU, falling from exactly 1: the share of the clean latent's
    variance left at t. diffusers counts the first noise level as 0, here it is 1, so that `clean` has a level
    of its own.
    """

    alpha_bar: Tensor

    @classmethod
    def linear(cls, timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> "Schedule":
        """Betas rise evenly from `beta_start` to `beta_end` (Ho et al. 2020, section 4)."""
        if timesteps < 1 or not 0 < beta_start <= beta_end < 1:
            raise ValueError(
                f"timesteps={timesteps}, beta_start={beta_start}, beta_end={beta_end}: "
                "give timesteps >= 1 and 0 < beta_start <= beta_end < 1"
            )
        betas = torch.linspace(beta_start, beta_end, timesteps, dtype=torch.float64)
        clean = torch.ones(1, dtype=torch.float64)
        return cls(torch.cat([clean, torch.cumprod(1 - betas, dim=0)]))

    @property
    def timesteps(self) -> int:
        """The noisiest level."""
        return len(self.alpha_bar) - 1

    def add_noise(self, clean: Tensor, t: int | Tensor, noise: Tensor) -> Tensor:
        """Clean latents (B, C, H, W) of unit scale -> the same at noise level t.

        t: one level for all, or (B,) int64, one each.

        The forward process in closed form (Ho et al. 2020, equation 4). Raises ValueError for a level that is
        not in 0 ... timesteps; where `t` is a tensor IndexError, on a GPU one after which no call to it succeeds.
        """
        if isinstance(t, int):
            signal = self.at(t)
            return sqrt(signal) * clean + sqrt(1 - signal) * noise
        share = self.alpha_bar.to(t.device).index_select(0, t).view(-1, 1, 1, 1)  # unlike [t], it refuses t < 0
        return share.sqrt().to(clean.dtype) * clean + (1 - share).sqrt().to(clean.dtype) * noise

    def at(self, t: int) -> float:
        """alpha_bar of level t, as an exact float64."""
        if not 0 <= t <= self.timesteps:
            raise ValueError(f"noise level {t} is outside 0 ... {self.timesteps}")
        return float(self.alpha_bar[t])
