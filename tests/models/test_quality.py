"""What the figures of a sample say, on images whose answer is known."""

import json

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation
from scipy.stats import pearsonr
from skimage.metrics import structural_similarity
from skimage.morphology import disk

from models.phantoms import PLAIN, phantom
from models.quality import (
    background_ssim,
    contrast,
    dilated_mask,
    high_pass_correlation,
    quality,
    retention,
    seam,
)

KEYS = {
    "canal_contrast",
    "guide_canal_contrast",
    "canal_retention",
    "canal_correlation",
    "background_ssim",
    "seam",
}


def canal(depth: float) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Bone of gray level 120 with a little grain, and a canal that is `depth` darker."""
    mask = np.zeros((256, 512), bool)
    mask[120:126, 100:300] = True
    image = 120 + np.random.default_rng(0).normal(0, 2, mask.shape) - depth * mask
    return image.round().astype(np.uint8), mask


def test_contrast_is_how_much_darker_the_canal_is_than_the_bone_around() -> None:
    image, mask = canal(30)
    assert contrast(image, mask) == pytest.approx(30, abs=0.5)
    assert contrast(255.0 - image, mask) == pytest.approx(-30, abs=0.5)


def test_the_ring_is_the_canal_grown_by_6_pixels_less_the_canal_grown_by_2() -> None:
    item = phantom(11, PLAIN)
    near, far = (binary_dilation(item.mask, disk(pixels)) for pixels in (2, 6))
    expected = item.image[far & ~near].mean() - item.image[item.mask].mean()
    assert contrast(item.image, item.mask) == pytest.approx(expected, abs=1e-9)


def test_retention_is_the_share_of_contrast_that_is_left() -> None:
    assert retention(15, 30) == 0.5
    assert retention(-15, -30) == 0.5, "teeth are brighter than what surrounds them"
    assert retention(-15, 30) == -0.5
    assert retention(15, 1.99) is retention(-15, -1.99) is None
    assert retention(15, 2) == 7.5
    assert retention(None, 30) is None
    assert retention(15, None) is None


def test_the_guide_itself_is_a_perfect_sample() -> None:
    guide = phantom(11, PLAIN)
    figures = quality(guide.image, guide.image, guide.mask, guide.image)
    perfect = ("canal_retention", "canal_correlation", "background_ssim", "seam")
    assert [figures[name] for name in perfect] == [1.0] * 4


def test_a_faded_canal_is_told() -> None:
    (guide, mask), (faded, _) = canal(30), canal(12)
    figures = quality(faded, guide, mask, guide)
    assert figures["canal_retention"] == pytest.approx(0.4, abs=0.03)
    assert figures["guide_canal_contrast"] == pytest.approx(30, abs=0.5)


def test_a_sample_without_the_guides_canal_does_not_correlate_with_it() -> None:
    guide, mask = canal(30)
    bare = 120 + np.random.default_rng(1).normal(0, 2, mask.shape).round().astype(np.uint8)
    figures = quality(bare.astype(np.uint8), guide, mask, guide)
    assert abs(figures["canal_correlation"] or 0) < 0.2
    assert abs(figures["canal_retention"] or 0) < 0.05


def test_correlation_is_that_of_what_a_gaussian_over_the_area_alone_takes_away() -> None:
    """Pixel by pixel, with scipy's Gaussian, which ends after four times its sigma."""
    first, second = np.random.default_rng(2).integers(0, 256, (2, 60, 80))
    second = second + first // 2
    where = np.zeros((60, 80), bool)
    where[20:24, 20:60] = where[22:40, 50:58] = True
    points = np.argwhere(where)
    apart = np.abs(points[:, None] - points[None])
    weights = np.exp(-(apart**2).sum(axis=2) / (2 * 4.0**2)) * (apart <= 16).all(axis=2)
    details = [image[where] - weights @ image[where] / weights.sum(axis=1) for image in (first, second)]
    assert high_pass_correlation(first, second, where) == pytest.approx(pearsonr(*details).statistic, abs=1e-9)


def test_a_seam_is_the_mean_step_between_neighbours_of_which_one_is_in_the_band() -> None:
    sample, unlabeled = np.random.default_rng(3).integers(0, 256, (2, 20, 30), np.uint8)
    band = np.zeros((20, 30), bool)
    band[4:11, 3:12] = band[9:20, 10:14] = True
    below = [((row, column), (row + 1, column)) for row in range(19) for column in range(30)]
    beside = [((row, column), (row, column + 1)) for row in range(20) for column in range(29)]
    border = [(one, other) for one, other in below + beside if band[one] != band[other]]
    of_sample, of_unlabeled = (
        np.mean([abs(int(image[one]) - int(image[other])) for one, other in border]) for image in (sample, unlabeled)
    )
    assert seam(sample, unlabeled, band) == pytest.approx((of_sample + 1) / (of_unlabeled + 1), abs=1e-9)


def test_a_pasted_band_leaves_the_background_and_shows_a_seam() -> None:
    guide, unlabeled = phantom(11, PLAIN), phantom(12, PLAIN)
    band = dilated_mask(guide.mask, 1)
    brighter = np.minimum(guide.image.astype(int) + 60, 255).astype(np.uint8)
    pasted = np.where(band, brighter, unlabeled.image)
    figures = quality(pasted, brighter, guide.mask, unlabeled.image)
    assert figures["background_ssim"] == 1.0
    assert figures["canal_correlation"] == 1.0
    assert (figures["seam"] or 0) > 2


def test_background_similarity_is_that_of_scikit_image_where_no_window_touches_the_band() -> None:
    first, second = phantom(11, PLAIN), phantom(12, PLAIN)
    _, local = structural_similarity(first.image, second.image, data_range=255, full=True)
    band = np.zeros((256, 512), bool)
    assert background_ssim(first.image, second.image, band) == pytest.approx(local[3:-3, 3:-3].mean(), abs=1e-5)
    band[:, 253:] = True
    assert background_ssim(first.image, second.image, band) == pytest.approx(local[3:-3, 3:250].mean(), abs=1e-5)


def test_figures_are_json_and_none_where_nothing_can_be_told() -> None:
    flat = np.full((256, 512), 100, np.uint8)
    mask = np.zeros((256, 512), bool)
    mask[100:110, 100:200] = True
    figures = quality(flat, flat, mask, flat)
    assert set(figures) == KEYS
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert figures["canal_retention"] is None
    assert figures["canal_correlation"] is None

    everything = np.ones_like(mask)
    assert contrast(flat, everything) is None
    assert background_ssim(flat, flat, everything) is None
    assert seam(flat, flat, everything) is None
    assert high_pass_correlation(flat, flat, ~everything) is None
