"""models/comparison.py: the paired test and the interval mean what they say."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import rankdata

from models.comparison import compare, summarize


def test_the_sd_is_over_images_and_the_seeds_have_their_own() -> None:
    values = np.array([[0.2, 0.4, 0.9], [0.7, 0.6, 0.8]])
    summary = summarize(values)
    assert summary.mean == pytest.approx(0.6)
    assert summary.sd == pytest.approx((np.std([0.2, 0.4, 0.9], ddof=1) + np.std([0.7, 0.6, 0.8], ddof=1)) / 2)
    assert summary.seed_sd == pytest.approx(np.std([0.5, 0.7], ddof=1))
    assert summarize(values[:1]).seed_sd is None


def test_the_p_value_is_the_exact_signed_rank_one() -> None:
    differences = np.array([0.05, -0.01, 0.12, 0.3, 0.07, -0.02, 0.21])
    ranks = np.abs(differences).argsort().argsort() + 1
    seen = min(ranks[differences > 0].sum(), ranks[differences < 0].sum())
    sums = [sum(r for r, up in zip(ranks, signs, strict=True) if up) for signs in product((0, 1), repeat=7)]
    exact = min(1.0, 2 * sum(total <= seen for total in sums) / len(sums))
    found = compare(differences[None] + 0.5, np.full((1, 7), 0.5))
    assert found.p == pytest.approx(exact)
    assert found.difference == pytest.approx(differences.mean())


def test_equal_differences_share_a_rank_and_those_of_zero_have_none() -> None:
    arm = np.array([[0.1, 0.5, 0.3, 0.7, 0.4, 0.9], [0.2, 0.6, 0.5, 0.8, 0.9, 0.8], [0.3, 0.8, 0.6, 0.3, 0.8, 0.6]])
    reference = np.array(
        [[0.0, 0.2, 0.4, 0.6, 0.7, 0.6], [0.0, 0.7, 0.3, 0.6, 0.7, 0.5], [0.6, 0.4, 0.8, 0.1, 0.2, 0.9]]
    )
    tenths = np.rint(10 * (arm - reference)).astype(int).sum(axis=0)  # exact
    left = tenths[tenths != 0]
    ranks = rankdata(np.abs(left))
    sums = [ranks @ signs for signs in product((1, -1), repeat=len(left))]
    exact = np.mean(np.abs(sums) >= abs(ranks @ np.sign(left)))
    assert compare(arm, reference).p == pytest.approx(exact)


def test_the_interval_of_many_images_is_the_mean_and_1_96_standard_errors() -> None:
    differences = np.random.default_rng(0).normal(0.1, 0.2, 400)
    found = compare(differences[None], np.zeros((1, 400)))
    error = differences.std() / np.sqrt(400)
    expected = [differences.mean() - 1.96 * error, differences.mean() + 1.96 * error]
    assert [found.low, found.high] == pytest.approx(expected, abs=0.1 * error)


def test_seeds_that_disagree_widen_the_interval_though_not_p() -> None:
    images = np.random.default_rng(1).normal(0.1, 0.05, 50)
    zero = np.zeros((3, 50))
    steady = compare(np.stack([images] * 3), zero)
    unsteady = compare(np.stack([images - 0.1, images, images + 0.1]), zero)
    assert unsteady.high - unsteady.low > 2 * (steady.high - steady.low)
    assert unsteady.p == pytest.approx(steady.p)


def test_equal_arms_do_not_differ() -> None:
    values = np.random.default_rng(0).random((2, 9))
    assert compare(values, values).p == 1.0
    assert (compare(values, values).low, compare(values, values).high) == (0, 0)


def test_the_same_values_give_the_same_interval() -> None:
    arm, real = np.random.default_rng(0).random((2, 2, 9))
    assert compare(arm, real) == compare(arm, real)


def test_one_image_has_no_p_value() -> None:
    assert compare(np.ones((2, 1)), np.zeros((2, 1))).p is None


def test_unpaired_values_are_refused() -> None:
    with pytest.raises(ValueError, match="pair them"):
        compare(np.ones((1, 3)), np.ones((1, 4)))
    with pytest.raises(ValueError, match="at least one"):
        summarize(np.ones((0, 3)))
