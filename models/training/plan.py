"""The numbers of a training run of VAE or denoiser, and its progress."""

import math
from dataclasses import dataclass


def annealed(spent: float) -> float:
    """Of the peak learning rate, once a share of the run is spent: half a cosine, from 1 down to 0.01."""
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * spent))


@dataclass(frozen=True)
class Budget:
    """Training ends at `steps` or, if given, after `minutes` of training, whichever is first, fully annealed."""

    steps: int
    minutes: float | None = None

    def spent(self, step: int, seconds: float) -> float:
        """The share of the budget that is used up, 0 ... 1."""
        by_time = seconds / (60 * self.minutes) if self.minutes else 0.0
        return min(1.0, max(step / self.steps, by_time))


@dataclass(frozen=True)
class Plan:
    """The numbers of a training run; `seed` decides the first weights, batches and noise.

    Raises ValueError for a rate not above 0.
    """

    budget: Budget
    batch: int
    learning_rate: float
    seed: int = 0
    warmup_steps: int = 100
    ema_decay: float = 0.999
    clip_norm: float = 1.0
    checkpoint_seconds: float = 60.0
    validate_seconds: float = 120.0
    sheet_seconds: float = 600.0

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"--learning-rate is {self.learning_rate}; give a number above 0")


@dataclass(frozen=True)
class Progress:
    """What a progress bar shows: the share done, the recent loss, the pace, and the figures of the last validation."""

    spent: float
    step: int
    loss: float
    images_per_second: float
    remaining_seconds: float
    figures: dict[str, float]
