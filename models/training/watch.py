"""What is seen of a training run under way: figures and sheets at intervals, progress after every step."""

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from models.sharing import whole
from models.training.curve import Curve
from models.training.plan import Plan, Progress

Validate = Callable[[nn.Module], dict[str, float]]
DrawSheet = Callable[[nn.Module], NDArray[np.uint8]]


class Watch:
    """Writes the curve (`curve.csv`) and sheets (`sheets/STEP.png`) of a run to its folder, and shows its progress."""

    def __init__(
        self,
        network: nn.Module,
        plan: Plan,
        folder: Path,
        step: int,
        validate: Validate,
        draw_sheet: DrawSheet | None,
        show: Callable[[Progress], None],
    ) -> None:
        """network: what is looked at. step: that of the checkpoint from which the run is resumed, 0 for a new run."""
        self._network, self._plan, self._folder, self._first = network, plan, folder, step
        self._validate, self._draw_sheet, self._show = validate, draw_sheet, show
        self._curve = Curve(folder / "curve.csv", step)
        self._figures: dict[str, float] = {}
        self._loss = math.nan  # recent
        self._started = self._validated = self._drawn = time.monotonic()

    def after_step(self, step: int, seconds: float, loss: float) -> None:
        """`seconds`: of training, those before a resumption included."""
        self._loss = loss if math.isnan(self._loss) else 0.98 * self._loss + 0.02 * loss
        now = time.monotonic()
        if now - self._validated > self._plan.validate_seconds:
            self._look(step, seconds)
            self._validated = time.monotonic()  # a validation slower than its interval must not follow every step
        if now - self._drawn > self._plan.sheet_seconds:
            self._draw(step)
            self._drawn = now
        spent = self._plan.budget.spent(step, seconds)
        rate = (step - self._first) * self._plan.batch / max(now - self._started, 1e-9)
        self._show(Progress(spent, step, self._loss, rate, seconds * (1 - spent) / max(spent, 1e-9), self._figures))

    def at_end(self, step: int, seconds: float) -> None:
        self._look(step, seconds)
        self._draw(step)

    def finite_figures(self) -> dict[str, float]:
        """Those of the last validation, as JSON takes them, which knows no nan."""
        return {name: round(value, 4) for name, value in self._figures.items() if math.isfinite(value)}

    def _look(self, step: int, seconds: float) -> None:
        self._figures = self._validate(self._network)
        self._curve.note(step, seconds, self._loss, self._figures)

    def _draw(self, step: int) -> None:
        if self._draw_sheet is None:
            return
        path = self._folder / "sheets" / f"{step:07d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as file:
            Image.fromarray(self._draw_sheet(self._network)).save(file, "PNG")
