"""models/training/checkpoint.py: a run goes on with what is its own."""

from dataclasses import replace
from pathlib import Path

import pytest

from models.segmenter import Labeled
from models.training.checkpoint import Checkpoint
from models.training.segmenter import SegmenterPlan, SegmenterTraining
from tests.models.training.test_segmenter_training import bars

PLAN = SegmenterPlan(backbone="tiny", steps=6, batch=2)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With the state of a run on `bars(10)` that was stopped after a step."""
    monkeypatch.setattr("models.training.checkpoint.SECONDS", 0.0)
    training = SegmenterTraining([bars(10)], PLAN)
    training.advance()
    Checkpoint.of(bars(10), PLAN, tmp_path).after_step(training)
    return tmp_path


@pytest.mark.parametrize("steps", [1, 6, 60])
def test_a_run_goes_on_also_when_it_is_made_longer(folder: Path, steps: int) -> None:
    assert Checkpoint.of(bars(10), replace(PLAN, steps=steps), folder).read() is not None


@pytest.mark.parametrize(
    ("labeled", "plan"),
    [
        (bars(10, seed=1), PLAN),
        (bars(11), PLAN),
        (bars(10, prefix="renamed"), PLAN),  # other names hold out other images
        (Labeled(bars(10).images, ~bars(10).masks, bars(10).groups), PLAN),
        (bars(10), replace(PLAN, backbone="mini")),
        (bars(10), replace(PLAN, seed=1)),
        (bars(10), replace(PLAN, learning_rate=0.1)),
    ],
)
def test_a_run_on_other_images_or_with_another_plan_begins_anew(
    folder: Path, labeled: Labeled, plan: SegmenterPlan
) -> None:
    assert Checkpoint.of(labeled, plan, folder).read() is None


@pytest.mark.parametrize("left", [0, 1000])
def test_a_damaged_file_is_named(folder: Path, left: int) -> None:
    (kept,) = folder.glob("*.checkpoint")
    kept.write_bytes(kept.read_bytes()[:left])
    with pytest.raises(ValueError, match=r"\.checkpoint is damaged; delete it to begin anew"):
        Checkpoint.of(bars(10), PLAN, folder).read()


def test_a_run_that_has_more_steps_than_it_is_given_still_chooses_a_state(folder: Path) -> None:
    training = SegmenterTraining([bars(10)], replace(PLAN, steps=1))
    training.finish(Checkpoint.of(bars(10), PLAN, folder).read(), lambda _: None)
    assert (training.step, training.best_step) == (1, 1) and training.best_dice is not None
