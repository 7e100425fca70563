"""A training run's state in a file: a run that was killed goes on from there."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from models.labeled_sets import pixels_sha256
from models.pixels import sha256
from models.segmenter import Labeled
from models.sharing import check_archive, whole
from models.training.segmenter import SegmenterPlan, SegmenterTraining

SECONDS = 60.0  # between two states; what a kill may cost


class Checkpoint:
    """The file, always complete; its folder is made."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._kept_at = time.monotonic()

    @classmethod
    def of(cls, labeled: Labeled, plan: SegmenterPlan, folder: Path) -> "Checkpoint":
        """That of a run on these images with this plan; a run with others has another file.

        The number of steps does not matter: a run may be made longer.
        """
        run = repr((pixels_sha256(labeled), labeled.groups, replace(plan, steps=1)))
        return cls(folder / f"{sha256(run.encode())[:16]}.checkpoint")

    def read(self) -> bytes | None:
        """What `SegmenterTraining.restore` takes, if a run was stopped. Raises ValueError for a damaged file."""
        if not self._path.exists():
            return None
        check_archive(self._path)
        return self._path.read_bytes()

    def finish(self, training: SegmenterTraining, name: str, show: Callable[[int, int, str], None]) -> None:
        """Train what is left, from the state kept on if there is one. show: step, steps and how it goes, in words."""

        def after_step(loss: float) -> None:
            self.after_step(training)
            reached = training.best_dice
            best = "" if reached is None else f" held-out Dice {reached:.4f} at step {training.best_step}"
            show(training.step, training.plan.steps, f"{name} loss {loss:.4f}{best}")

        training.finish(self.read(), after_step)

    def after_step(self, training: SegmenterTraining) -> None:
        """Keep the state if it is time; a run that is done needs no checkpoint."""
        if not training.done and time.monotonic() - self._kept_at >= SECONDS:
            with whole(self._path) as file:
                file.write(training.save())
            self._kept_at = time.monotonic()

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)
