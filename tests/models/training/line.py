"""A training of one weight. Processes of their own load it, so it needs no more than torch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from models.training.loop import train
from models.training.plan import Budget, Plan, Progress


def silent(*_: object) -> None:
    pass


class Line(nn.Module):
    """One weight, to be fitted to 3."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


def fit(
    folder: Path, steps: int, show: Callable[[Progress], None] = silent, subject: str = "", seed: int = 0
) -> tuple[float, dict[str, Any]]:
    plan = Plan(Budget(steps), 1, 0.1, seed, warmup_steps=5, ema_decay=0.9, checkpoint_seconds=0)

    def loss(network: nn.Module, step: int) -> torch.Tensor:
        target = 3 + np.random.default_rng(step).normal(0, 0.1)
        return ((network.weight - target) ** 2).sum()

    def validate(network: Any) -> dict[str, float]:
        return {"weight": network.weight.item()}

    trained, facts = train(Line(), loss, validate, plan, folder, show, subject=subject)
    return validate(trained)["weight"], facts
