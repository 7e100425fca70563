"""What a trained segmenter reaches on the test images, and what that says about the data it was trained on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from models.comparison import Values, compare, summarize
from models.metrics import METRICS, scores
from models.segmenter import Labeled, Segmenter, predict
from models.training.segmenter import SegmenterPlan, SegmenterTraining

REFERENCE = "real"
ORACLE = "oracle"
EMPTY_MASKS = (
    "Where prediction and truth are both empty every share is 1 and the distance 0; where one of them is empty every "
    "share is 0 and the distance the image's diagonal."
)
_DECIMALS = 6


@dataclass(frozen=True)
class ArmResult:
    """One arm trained with one seed. images: per test image its name and the METRICS; JSON-ready by `asdict`."""

    arm: str
    seed: int
    steps: int
    best_step: int
    training_images: dict[str, int]  # by source
    images: list[dict[str, Any]]


def run_arm(
    arm: str,
    sources: Mapping[str, Labeled],
    plan: SegmenterPlan,
    test: Labeled,
    device: torch.device | str,
    *,
    saved: bytes | None = None,
    between_steps: Callable[[SegmenterTraining], None] | None = None,
) -> ArmResult:
    """Train on `sources` (by name, the real ones first) and score every test image, by its group's name.

    saved: where an earlier call was stopped, see `SegmenterTraining.save`. between_steps: called after every step and
    before every batch of test images and every scoring; what it raises ends the call.
    """
    training = SegmenterTraining(list(sources.values()), plan, device)

    def pause(*_: float) -> None:
        if between_steps is not None:
            between_steps(training)

    training.finish(saved, pause)
    rows = score_images(training.best(), test, training.device, pause)
    counts = {name: len(source) for name, source in sources.items()}
    return ArmResult(arm, plan.seed, plan.steps, training.best_step, counts, rows)


def score_images(
    segmenter: Segmenter,
    test: Labeled,
    device: torch.device,
    pause: Callable[[], None] = lambda: None,
) -> list[dict[str, Any]]:
    """Per test image its group's name and metrics, rounded. pause: called again and again meanwhile."""
    rows = []
    for name, mask, truth in zip(test.groups, predict(segmenter, test.images, device, pause), test.masks, strict=True):
        pause()  # the metrics of 2,000 images take minutes, too
        rows.append({"image": name, **{key: round(value, _DECIMALS) for key, value in scores(mask, truth).items()}})
    return rows


def build_report(
    results: Sequence[ArmResult], facts: Mapping[str, Any], before_arm: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Every arm's summary and its comparison with `real`, as JSON; arms in the order of their first result.

    All arms need the same seeds and test images. `gap_closed` is the arm's Dice above real's as a share of the
    oracle's; None where there is no oracle, or its interval does not lie above real. Raises ValueError.
    before_arm: called before each arm is compared, which may take seconds; what it raises ends the call.
    """
    by_arm: dict[str, dict[int, ArmResult]] = {}
    for result in results:
        by_arm.setdefault(result.arm, {})[result.seed] = result
    seeds = sorted(next(iter(by_arm.values()), {}))
    for arm, found in by_arm.items():
        if sorted(found) != seeds:
            raise ValueError(f"arm {arm!r} has the seeds {sorted(found)}, the first arm {seeds}; finish every arm")
    values = {arm: {name: _values(found, seeds, name) for name in METRICS} for arm, found in by_arm.items()}
    gap = _gap(values)
    arms = []
    for arm, found in by_arm.items():
        before_arm()
        arms.append(_arm_body(arm, found[seeds[0]], values, gap))
    return {
        **facts,
        "seeds": seeds,
        "test_images": len(results[0].images),
        "reference": REFERENCE if REFERENCE in by_arm else None,
        "metrics": list(METRICS),
        "empty_masks": EMPTY_MASKS,
        "arms": arms,
    }


def _values(found: Mapping[int, ArmResult], seeds: Sequence[int], metric: str) -> Values:
    return np.array([[row[metric] for row in found[seed].images] for seed in seeds], dtype=np.float64)


def _gap(values: Mapping[str, Any]) -> float | None:
    """The oracle's Dice above real's; None without them, or where it may be nothing: a share of that says nothing."""
    if REFERENCE not in values or ORACLE not in values:
        return None
    gap = compare(values[ORACLE]["dice"], values[REFERENCE]["dice"])
    return gap.difference if gap.low > 0 else None


def _arm_body(arm: str, first: ArmResult, values: Mapping[str, Any], gap: float | None) -> dict[str, Any]:
    own, real = values[arm], values.get(REFERENCE)
    against = closed = None
    if real is not None and arm != REFERENCE:
        against = {name: _rounded(asdict(compare(own[name], real[name]))) for name in METRICS}
        closed = None if gap is None else round(float(own["dice"].mean() - real["dice"].mean()) / gap, 4)
    return {
        "name": arm,
        "steps": first.steps,
        "training_images": first.training_images,
        "summary": {name: _rounded(asdict(summarize(own[name]))) for name in METRICS},
        "seed_means": {name: [round(float(v), _DECIMALS) for v in own[name].mean(axis=1)] for name in METRICS},
        "against_real": against,
        "gap_closed": closed,
    }


def _rounded(figures: Mapping[str, float | None]) -> dict[str, float | None]:
    # A p-value keeps its digits: 1e-9 is not 0.
    return {k: v if v is None or k == "p" else round(v, _DECIMALS) for k, v in figures.items()}
