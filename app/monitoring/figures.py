"""What a worker counts since its start; its signs of life carry it to the database, and /metrics shows it."""

from bisect import bisect_left
from collections import defaultdict
from threading import Lock
from typing import Any

STEP_SECONDS = (1.0, 3.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0)  # upper bounds; a step should take 10 to 30 s


class Figures:
    """Counted by the thread that works, read by the one that gives signs of life."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._samples = 0
        self._seconds: defaultdict[str, float] = defaultdict(float)  # by kind of step
        self._steps: defaultdict[str, list[int]] = defaultdict(lambda: [0] * (len(STEP_SECONDS) + 1))

    def samples_made(self, count: int) -> None:
        with self._lock:
            self._samples += count

    def step_ended(self, kind: str, seconds: float) -> None:
        with self._lock:
            self._seconds[kind] += seconds
            self._steps[kind][bisect_left(STEP_SECONDS, seconds)] += 1

    def snapshot(self) -> dict[str, Any]:
        """JSON: `samples`; `steps` by kind: `seconds`, and `buckets` of (upper bound, steps up to it)."""
        with self._lock:
            steps = {
                kind: {"seconds": self._seconds[kind], "buckets": cumulated(counts)}
                for kind, counts in self._steps.items()
            }
            return {"samples": self._samples, "steps": steps}


def cumulated(counts: list[int]) -> list[tuple[str, int]]:
    """As Prometheus has it: each bucket holds what the smaller ones do; the last bound is +Inf."""
    bounds = [*map(str, STEP_SECONDS), "+Inf"]
    return [(bound, sum(counts[: place + 1])) for place, bound in enumerate(bounds)]
