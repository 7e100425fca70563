"""The loop that VAE and denoiser share: AdamW, warm-up and annealing, EMA, clipping, checkpoints and resumption.

It runs in one process or in several at once, see `models.training.ranks`.
"""

import io
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from models.sharing import check_archive, whole
from models.training.plan import Plan, Progress, annealed
from models.training.ranks import Objective, mean_over_ranks, rank, shared
from models.training.watch import DrawSheet, Validate, Watch


def train(
    network: nn.Module,
    loss: Callable[[nn.Module, int], Tensor],
    validate: Validate,
    plan: Plan,
    folder: Path,
    show: Callable[[Progress], None],
    draw_sheet: DrawSheet | None = None,
    subject: str = "",
) -> tuple[nn.Module, dict[str, Any]]:
    """Train `network` in place; -> its exponential moving average and the facts of the run.

    `loss(network, step)` draws the batch of a step (see `Batches`) and returns its scalar loss; it must depend on
    `step` alone, so that a resumed run continues as the uninterrupted one would. `draw_sheet` draws a picture to look
    at, (H, W) uint8. Process 0 writes to `folder`: checkpoints, from the last of which a run killed at any moment
    continues, and what `Watch` does. `subject` names what is trained on: a checkpoint of another subject is refused.

    The facts tell what was done: those of a run that was resumed with another batch, rate or seed hold the earlier ones
    under `before`. Raises ValueError for a checkpoint of another subject, FloatingPointError for a loss or a gradient
    that is not finite; at the weights of the last checkpoint both still were.
    """
    device = next(network.parameters()).device
    average = AveragedModel(network, multi_avg_fn=partial(average_weights, plan.ema_decay))
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=plan.learning_rate, betas=(0.9, 0.95), weight_decay=1e-4, fused=True
    )
    run = _Run(folder, subject, network, average, optimizer)
    step, before, numbers = run.resume()
    seconds = before
    if plan.budget.spent(step, seconds) < 1:
        numbers = _numbers(plan, step, numbers)
    objective = shared(Objective(network, loss))
    watch = Watch(average.module, plan, folder, step, validate, draw_sheet, show) if rank() == 0 else None
    started = saved = time.monotonic()
    while plan.budget.spent(step, seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = plan.learning_rate * _rate_share(step, plan, seconds)
        value = objective(step)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        size = nn.utils.clip_grad_norm_(network.parameters(), plan.clip_norm)
        now = time.monotonic()
        # One clock for all: processes that disagree on the last step would wait for one another for ever.
        reached, gradient, seconds = mean_over_ranks([value.item(), size.item(), before + now - started], device)
        _check_finite(reached, gradient, step)
        if watch and now - saved > plan.checkpoint_seconds:
            run.save(step, seconds, numbers)  # before the step: at these weights loss and gradient are finite
            saved = now
        optimizer.step()
        average.update_parameters(network)
        step += 1
        if watch:
            watch.after_step(step, seconds, reached)
    if watch:
        run.save(step, seconds, numbers)
        watch.at_end(step, seconds)
    return average.module, {
        "steps": step,
        **numbers,
        "minutes": round(seconds / 60, 1),
        **(watch.finite_figures() if watch else {}),
    }


def _check_finite(loss: float, gradient: float, step: int) -> None:
    """Raises FloatingPointError: an optimiser step with these would leave weights that are nan."""
    for name, value in (("loss", loss), ("gradient", gradient)):
        if not math.isfinite(value):
            raise FloatingPointError(
                f"the {name} is {value} at step {step + 1}; give the same command with a lower --learning-rate, "
                "and it goes on from the last checkpoint"
            )


def average_weights(decay: float, averaged: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
    """Exponential moving average that forgets faster at first, so that a short run does not remember its start."""
    updates = float(count)
    torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + updates) / (10 + updates)))


def _rate_share(step: int, plan: Plan, seconds: float) -> float:
    """A linear warm-up, while the rate is annealed over the budget."""
    return min(1.0, (step + 1) / plan.warmup_steps) * annealed(plan.budget.spent(step, seconds))


def _numbers(plan: Plan, step: int, before: dict[str, Any]) -> dict[str, Any]:
    """The numbers a run goes on with after `step` steps; under `before`, those of the steps so far if they differ."""
    own = {"batch": plan.batch, "learning_rate": plan.learning_rate, "seed": plan.seed}
    if before | own == before:
        return before
    return {**own, "before": {"steps": step, **before}} if before else own


@dataclass(frozen=True)
class _Run:
    """The files of a run."""

    folder: Path
    subject: str
    network: nn.Module
    average: AveragedModel
    optimizer: torch.optim.Optimizer

    def save(self, step: int, seconds: float, numbers: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        states = {name: getattr(self, name).state_dict() for name in ("network", "average", "optimizer")}
        told = {"step": step, "seconds": seconds, "subject": self.subject, "numbers": numbers}
        state = io.BytesIO()  # torch's own writer does not say that the disk is full
        torch.save({**told, **states}, state)
        with whole(self.folder / "checkpoint.pt") as file:
            file.write(state.getbuffer())

    def resume(self) -> tuple[int, float, dict[str, Any]]:
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return 0, 0.0, {}
        check_archive(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        if (before := state.get("subject", "")) != self.subject:
            raise ValueError(
                f"{path} is of a run on {before or 'images that it does not name'}, this one is on {self.subject}; "
                "delete it to begin anew, or take another --out"
            )
        for name in ("network", "average", "optimizer"):
            getattr(self, name).load_state_dict(state[name])
        _lay_out(self.optimizer)
        return state["step"], state["seconds"], state["numbers"]


def _lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Give the moments the strides of their weights: loaded ones have those of the device that saved them.

    The fused AdamW walks through memory, not by strides, so in another layout it would mix up the weights.
    """
    for weight, moments in optimizer.state.items():
        for name, moment in moments.items():
            if moment.shape == weight.shape:
                moments[name] = torch.empty_like(weight).copy_(moment)
