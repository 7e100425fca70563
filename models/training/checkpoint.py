"""A training run's state in a file: a run that was killed goes on from there."""

import time
from pathlib import Path

from models.training.segmenter import SegmenterTraining

SECONDS = 60.0  # between two states; what a kill may cost


class Checkpoint:
    """The file; its folder is made, and what lies there is always whole."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._kept_at = time.monotonic()

    def read(self) -> bytes | None:
        """What `SegmenterTraining.restore` takes, if a run was stopped."""
        return self._path.read_bytes() if self._path.exists() else None

    def after_step(self, training: SegmenterTraining) -> None:
        """Keep the state if it is time; what is done is kept by others."""
        if not training.done and time.monotonic() - self._kept_at >= SECONDS:
            aside = self._path.with_suffix(".new")
            aside.write_bytes(training.save())
            aside.replace(self._path)
            self._kept_at = time.monotonic()

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)
