"""models/training/segmenter.py: it learns, it resumes, and it never looks where it must not."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.metrics import dice
from models.segmenter import Labeled, build_segmenter, predict
from models.training.augmentation import augment
from models.training.segmenter import (
    SegmenterPlan,
    SegmenterTraining,
    hold_out,
    rate_share,
    segmentation_loss,
)

TINY = SegmenterPlan(backbone="tiny", steps=6, batch=2, validations=3)


def bars(count: int, seed: int = 0, prefix: str = "g") -> Labeled:
    """A dark bar across a noisy image; it is the mask."""
    rng = np.random.default_rng(seed)
    images = rng.integers(140, 220, (count, 32, 64), np.uint8)
    masks = np.zeros((count, 32, 64), bool)
    for mask in masks:
        row = rng.integers(6, 22)
        mask[row : row + 5, 8:56] = True
    images[masks] //= 4
    return Labeled(images, masks, tuple(f"{prefix}{n}" for n in range(count)))


def finish(training: SegmenterTraining) -> dict[str, torch.Tensor]:
    while not training.done:
        training.advance()
    return dict(training.best().state_dict())


def test_it_learns_to_find_a_dark_bar() -> None:
    plan = SegmenterPlan(backbone="tiny", steps=80, batch=6, learning_rate=4e-3, validations=2)
    training = SegmenterTraining([bars(40)], plan)
    finish(training)
    assert training.best_dice is not None and training.best_dice > 0.6


def test_the_best_state_is_kept_where_the_next_is_worse() -> None:
    plan = SegmenterPlan(backbone="tiny", steps=30, batch=4, learning_rate=0.03, validations=30)
    training = SegmenterTraining([bars(10)], plan)
    while training.best_step == training.step:
        training.advance()
    continued, held_out = SegmenterTraining([bars(10)], plan), training.validation
    continued.restore(training.save())
    assert (continued.best_step, continued.best_dice) == (training.best_step, training.best_dice)
    for one in (training, continued):
        found = predict(one.best(), held_out.images, one.device)
        reached = [dice(mask, truth) for mask, truth in zip(found, held_out.masks, strict=True)]
        assert np.mean(reached) == pytest.approx(training.best_dice)


def test_of_states_that_are_as_good_the_most_trained_is_kept() -> None:
    masks = np.zeros((10, 32, 64), bool)
    masks[:, 0, 0] = True  # a pixel that is never found
    training = SegmenterTraining([replace(bars(10), masks=masks)], TINY)
    finish(training)
    assert (training.best_dice, training.best_step) == (0, TINY.steps)


def test_the_same_seed_gives_the_same_bits_and_another_does_not() -> None:
    states = []
    for drawn in range(2):
        torch.manual_seed(drawn)  # whatever the process has drawn before
        states.append(finish(SegmenterTraining([bars(5)], TINY)))
    first, again = states
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = finish(SegmenterTraining([bars(5)], SegmenterPlan("tiny", steps=6, batch=2, seed=1)))
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_a_run_that_was_stopped_and_continued_elsewhere_ends_as_one_that_was_not() -> None:
    stopped = SegmenterTraining([bars(10), bars(11, 1)], TINY)
    for _ in range(4):
        stopped.advance()
    continued = SegmenterTraining([bars(10), bars(11, 1)], TINY)
    continued.restore(stopped.save())
    whole = finish(SegmenterTraining([bars(10), bars(11, 1)], TINY))
    after = finish(continued)
    assert all(torch.equal(whole[name], after[name]) for name in whole)


@pytest.mark.parametrize(("guides", "stop"), [(9, 1), (9, 5), (10, 1)])
def test_a_run_that_was_stopped_and_is_given_fewer_steps_ends_with_the_state_it_had(guides: int, stop: int) -> None:
    stopped = SegmenterTraining([bars(guides)], TINY)
    for _ in range(stop):
        stopped.advance()
    ended = SegmenterTraining([bars(guides)], replace(TINY, steps=1))
    ended.finish(stopped.save(), lambda _: None)
    last, best = stopped._segmenter.state_dict(), ended.best().state_dict()
    assert ended.best_step == stop and all(torch.equal(last[name], best[name]) for name in last)


def test_the_folder_of_a_backbone_is_not_needed_again_when_the_run_ends(tmp_path: Path) -> None:
    build_segmenter("tiny").network.save_pretrained(tmp_path / "pretrained")
    training = SegmenterTraining([bars(3)], replace(TINY, backbone=str(tmp_path / "pretrained")))
    shutil.rmtree(tmp_path / "pretrained")
    assert finish(training)


def test_held_out_guides_take_their_synthetic_images_with_them() -> None:
    real = bars(10)
    synthetic = bars(10, 1).rows([0, 1, 2, 3, 4, 5, 6, 7, 8, 9] * 3)
    training = SegmenterTraining([real, synthetic], TINY)
    held_out = hold_out(real, TINY.seed)
    assert len(held_out) == 2
    assert set(training.validation.groups) == held_out
    assert all(source.groups[row] not in held_out for source, rows in training._sources for row in rows)
    assert [len(rows) for _, rows in training._sources] == [8, 24]


def test_the_same_guides_are_held_out_in_every_arm() -> None:
    synthetic = bars(10, 1).rows(list(range(10)) * 3)
    assert hold_out(synthetic, 5) == hold_out(bars(10), 5)


def test_a_source_of_held_out_anatomy_alone_is_trained_on_all_the_same() -> None:
    real = bars(10)
    synthetic = real.rows([real.groups.index(held_out) for held_out in hold_out(real, TINY.seed)] * 3)
    sources = SegmenterTraining([real, synthetic], TINY)._sources
    assert [len(rows) for _, rows in sources] == [8, 6]


@pytest.mark.parametrize("guides", [1, 9])
def test_few_guides_are_all_trained_on_and_the_last_state_is_taken(guides: int) -> None:
    training = SegmenterTraining([bars(guides)], replace(TINY, steps=7))  # not one of its validations
    finish(training)
    assert (len(training.validation), training.best_step, training.best_dice) == (0, 7, None)
    assert [len(rows) for _, rows in training._sources] == [guides]


@pytest.mark.parametrize(("guides", "held_out"), [(9, 0), (10, 2), (14, 2), (210, 42)])
def test_of_ten_guides_or_more_a_fifth_is_held_out(guides: int, held_out: int) -> None:
    assert len(hold_out(Labeled(*(np.zeros(guides),) * 2, tuple(map(str, range(guides)))), 0)) == held_out


def test_a_state_is_judged_by_so_many_images_at_most() -> None:
    assert len(SegmenterTraining([bars(400)], TINY).validation) == 40  # every other one of 80


@pytest.mark.parametrize(("equal", "low", "high"), [(True, 0.4, 0.6), (False, 0.0, 0.1)])
def test_sources_weigh_the_same_or_by_their_size(equal: bool, low: float, high: float) -> None:
    few, many = bars(4), bars(100, 1, "s")
    plan = SegmenterPlan(backbone="tiny", steps=1, batch=400, equal_weights=equal)
    black = Labeled(np.zeros_like(few.images), few.masks, few.groups)
    white = Labeled(np.full_like(many.images, 255), many.masks, many.groups)
    images, _ = SegmenterTraining([black, white], plan)._batch(torch.Generator().manual_seed(0))
    share = float((images.mean(dim=(1, 2, 3)) < 0).float().mean())
    assert low <= share <= high


def test_an_image_that_is_drawn_twice_is_two_pictures() -> None:
    images, _ = SegmenterTraining([bars(1)], TINY)._batch(torch.Generator().manual_seed(0))
    assert not torch.equal(images[0], images[1])


def test_every_image_of_a_source_is_drawn_as_often() -> None:
    masks = np.zeros((2, 32, 64), bool)
    masks[1] = True
    training = SegmenterTraining([replace(bars(2), masks=masks)], replace(TINY, batch=100))
    _, drawn = training._batch(torch.Generator().manual_seed(0))
    assert 0.3 < float(drawn.flatten(1).any(dim=1).float().mean()) < 0.7


def test_the_first_step_is_one_of_the_warm_up() -> None:
    training = SegmenterTraining([bars(5)], SegmenterPlan("tiny", steps=1000, batch=2, learning_rate=0.01))
    before, _, after = training.best(), training.advance(), training.best()
    pairs = zip(before.parameters(), after.parameters(), strict=True)
    moved = max(float((new - old).detach().abs().max()) for old, new in pairs)
    assert moved == pytest.approx(0.01 / 50, rel=0.05)  # Adam's first step is as long as the rate


def test_the_rate_warms_up_and_goes_down_to_a_hundredth() -> None:
    plan = SegmenterPlan(steps=1000)
    rates = [rate_share(step, plan) for step in range(1000)]
    assert rates[0] == pytest.approx(1 / 50) and max(rates) == rates[49] == 1
    assert rates[-1] == pytest.approx(0.01, abs=1e-4)


def test_the_loss_is_cross_entropy_plus_one_minus_dice() -> None:
    masks = torch.zeros(1, 2, 2, dtype=torch.bool)
    masks[0, 0] = True
    logits = torch.zeros(1, 2, 2, 2)
    assert float(segmentation_loss(logits, masks)) == pytest.approx(np.log(2) + 1 - (2 * 1 + 1) / (2 + 2 + 1))


def test_augmentation_moves_image_and_mask_together_and_keeps_their_range() -> None:
    data = bars(8)
    masks = torch.from_numpy(data.masks)
    images = torch.where(masks, -1.0, 1.0)[:, None]
    moved, labels = augment(images, masks, torch.Generator().manual_seed(0))
    assert moved.min() >= -1 and moved.max() <= 1
    assert not torch.equal(labels, masks)
    # Dark where the label is: but for pixels on the border, which interpolation makes gray.
    assert float(((moved[:, 0] < 0) == labels).float().mean()) > 0.97


@pytest.mark.parametrize("rate", [0.0, -1e-3, float("nan"), float("inf")])
def test_a_learning_rate_at_which_nothing_is_learned_is_refused(rate: float) -> None:
    """None of them is taken for no rate at all, which means the backbone's own."""
    with pytest.raises(ValueError, match="give one above 0, or none for the backbone"):
        SegmenterPlan(learning_rate=rate)


def test_a_loss_that_is_not_a_number_leaves_the_weights_as_they_are() -> None:
    training = SegmenterTraining([bars(5)], SegmenterPlan("tiny", steps=6, batch=2, learning_rate=1e30, validations=1))
    training.advance()
    with pytest.raises(
        FloatingPointError, match="at step 2; lower the learning rate, or take another backbone or batch"
    ):
        training.advance()
    assert all(weights.isfinite().all() for weights in training.best().parameters())


def test_an_empty_source_is_refused() -> None:
    with pytest.raises(ValueError, match="no labeled images"):
        SegmenterTraining([bars(3), bars(3).rows([])], TINY)


def test_a_saved_run_holds_no_code(tmp_path: Path) -> None:
    training = SegmenterTraining([bars(3)], TINY)
    finish(training)
    path = tmp_path / "state"
    path.write_bytes(training.save())
    assert torch.load(path, weights_only=True)["step"] == TINY.steps
