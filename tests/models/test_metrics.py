"""models/metrics.py against plain references that share no code with it."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.metrics import hausdorff_distance
from skimage.morphology import skeletonize

from models.metrics import METRICS, dice, hausdorff_95, scores

Mask = NDArray[np.bool_]


def blob(seed: int) -> Mask:
    """A wiggly tube with a stray spot."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((40, 60), bool)
    row = 20.0
    for column in range(5, 55):
        row += rng.uniform(-1, 1)
        mask[int(row) - 2 : int(row) + 2, column] = True
    spot = rng.integers(2, 36, 2)
    mask[spot[0] : spot[0] + 3, spot[1] : spot[1] + 2] = True
    return mask


def border_points(mask: Mask) -> list[tuple[int, int]]:
    points = []
    for row, column in np.argwhere(mask):
        around = ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1))
        if any(not (0 <= r < mask.shape[0] and 0 <= c < mask.shape[1] and mask[r, c]) for r, c in around):
            points.append((int(row), int(column)))
    return points


def reference(predicted: Mask, truth: Mask) -> dict[str, float]:
    """Every figure by counting pixels one by one."""
    pairs = list(zip(predicted.ravel().tolist(), truth.ravel().tolist(), strict=True))
    hits, found, there = pairs.count((True, True)), sum(p for p, _ in pairs), sum(t for _, t in pairs)
    own, true = np.argwhere(skeletonize(predicted)), np.argwhere(skeletonize(truth))
    precise = sum(truth[r, c] for r, c in own) / len(own)
    sensitive = sum(predicted[r, c] for r, c in true) / len(true)
    directed = []
    for first, second in ((predicted, truth), (truth, predicted)):
        others = border_points(second)
        nearest = [min(math.dist(point, other) for other in others) for point in border_points(first)]
        directed.append(np.percentile(nearest, 95))
    return {
        "precision": hits / found,
        "recall": hits / there,
        "dice": 2 * hits / (found + there),
        "cldice": 2 * precise * sensitive / (precise + sensitive),
        "hd95": float(max(directed)),
    }


@pytest.mark.parametrize("seed", range(4))
def test_every_metric_is_what_counting_pixels_gives(seed: int) -> None:
    predicted, truth = blob(seed), blob(seed + 100)
    assert scores(predicted, truth) == pytest.approx(reference(predicted, truth), abs=1e-12)


@pytest.mark.parametrize("moved", [(-18, 0), (17, 0), (0, -5), (0, 5), (-18, 5)])
def test_masks_that_the_edge_cuts_are_measured_as_they_are(moved: tuple[int, int]) -> None:
    predicted, truth = (np.roll(blob(seed), moved, axis=(0, 1)) for seed in (1, 101))
    assert scores(predicted, truth) == pytest.approx(reference(predicted, truth), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_dice_alone_is_the_dice_of_the_scores(seed: int) -> None:
    pairs = [(blob(seed), blob(seed + 100)), (blob(seed), np.zeros_like(blob(0))), (np.zeros((2, 2), bool),) * 2]
    assert [dice(*pair) for pair in pairs] == pytest.approx([scores(*pair)["dice"] for pair in pairs])


def test_the_95th_percentile_lies_below_the_full_hausdorff_distance() -> None:
    first, second = blob(1), blob(2)
    assert 0 < hausdorff_95(first, second) <= hausdorff_distance(first, second)


def test_a_mask_agrees_with_itself() -> None:
    assert scores(blob(0), blob(0)) == dict.fromkeys(METRICS[:-1], 1.0) | {"hd95": 0.0}


def test_two_empty_masks_agree() -> None:
    empty = np.zeros((3, 4), bool)
    assert scores(empty, empty) == dict.fromkeys(METRICS[:-1], 1.0) | {"hd95": 0.0}


@pytest.mark.parametrize("turned", [False, True])
def test_an_empty_mask_and_one_that_is_not_could_not_be_further_apart(turned: bool) -> None:
    masks = [np.zeros((3, 4), bool), np.ones((3, 4), bool)]
    found = scores(*(masks[::-1] if turned else masks))
    assert found == dict.fromkeys(METRICS[:-1], 0.0) | {"hd95": 5.0}


def test_masks_that_do_not_meet_have_shares_of_zero() -> None:
    first, second = np.zeros((9, 9), bool), np.zeros((9, 9), bool)
    first[1, 1:8] = second[5, 1:8] = True
    assert scores(first, second) == dict.fromkeys(METRICS[:-1], 0.0) | {"hd95": 4.0}


def test_a_gap_costs_the_centre_line_more_than_a_thinner_line_does() -> None:
    truth = np.zeros((20, 60), bool)
    truth[8:13, 5:55] = True
    thinner, gap = truth.copy(), truth.copy()
    thinner[[8, 12]] = False
    gap[:, 20:40] = False
    assert scores(thinner, truth)["dice"] == pytest.approx(scores(gap, truth)["dice"])
    assert scores(thinner, truth)["cldice"] > scores(gap, truth)["cldice"] + 0.1


def test_masks_of_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3, 4\), the truth \(4, 3\)"):
        scores(np.ones((3, 4), bool), np.ones((4, 3), bool))
