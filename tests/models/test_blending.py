"""Where the anatomy lies, and whose pixels stand there."""

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation
from torch import Tensor

from models.blending import blend, dilate, downsample_mask, feathered_band, image_band, soft_band
from models.phantoms import phantom


def canal_mask(seed: int = 3) -> Tensor:
    return torch.from_numpy(phantom(seed).mask)[None, None]


def test_anatomy_comes_from_the_guide_and_the_rest_from_the_unlabeled_image() -> None:
    guide, unlabeled = torch.full((1, 2, 4, 4), 1.0), torch.full((1, 2, 4, 4), 2.0)
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., 1, 2] = 1
    blended = blend(unlabeled, guide, mask)
    assert blended[0, :, 1, 2].tolist() == [1, 1]
    assert int((blended == 2).sum()) == 2 * 15


def test_any_pixel_of_anatomy_counts() -> None:
    masks = torch.zeros(2, 1, 256, 512, dtype=torch.bool)
    masks[0, 0, 7, 8] = masks[1, 0, 255, 511] = True
    small = downsample_mask(masks)
    assert small.shape == (2, 1, 32, 64)
    assert small.dtype == torch.float32
    assert small.nonzero().tolist() == [[0, 0, 0, 1], [1, 0, 31, 63]]


def test_a_thin_line_stays_one_line() -> None:
    masks = torch.zeros(1, 1, 256, 512, dtype=torch.bool)
    for column in range(512):
        masks[0, 0, 40 + column // 4, column] = True
    assert bool(downsample_mask(masks).any(dim=2).all())
    assert bool((image_band(downsample_mask(masks)).bool() >= masks).all())


@pytest.mark.parametrize("pixels", [0, 1, 2])
def test_dilation_is_by_a_square(pixels: int) -> None:
    small = downsample_mask(canal_mask())
    square = np.ones((2 * pixels + 1, 2 * pixels + 1))
    expected = binary_dilation(small[0, 0].numpy() > 0, square)
    assert np.array_equal(dilate(small, pixels)[0, 0].numpy() > 0, expected)


def test_a_negative_dilation_is_refused() -> None:
    with pytest.raises(ValueError, match="dilation is -1"):
        dilate(torch.zeros(1, 1, 4, 4), -1)


def test_the_soft_band_is_one_on_dilated_anatomy_and_half_on_the_border() -> None:
    mask = canal_mask()
    weights = soft_band(dilate(downsample_mask(mask), 1))
    assert weights.shape == (1, 1, 256, 512)
    assert bool((weights[mask] == 1).all())

    step = torch.zeros(1, 1, 32, 64)
    step[..., 9:] = 1  # far from the middle, where grids of any kind meet
    across = soft_band(step)[0, 0, 100, 64:80]
    assert float(across[7] + across[8]) == pytest.approx(1)
    assert bool((across.diff() >= 0).all())


@pytest.mark.parametrize("dilation", [0, 1, 2])
def test_the_feathered_band_keeps_anatomy_whole_and_the_outside_untouched(dilation: int) -> None:
    mask = canal_mask()
    small = dilate(downsample_mask(mask), dilation)
    weights = feathered_band(small, mask)
    assert bool((weights[mask] == 1).all())
    assert bool((weights[image_band(small) == 0] == 0).all())
    assert 0 <= float(weights.min()) <= float(weights.max()) <= 1


def test_the_feathered_band_rises_gently_even_at_the_edge_of_the_image() -> None:
    small = torch.zeros(1, 1, 32, 64)
    small[..., 30:32, 8:20] = 1
    weights = feathered_band(small, torch.zeros(1, 1, 256, 512, dtype=torch.bool))[0, 0]
    assert float(weights.diff(dim=0).abs().max()) < 0.2
    assert float(weights[255, 100]) == 1


def test_the_feathered_band_rises_gently_at_the_corners_of_its_steps() -> None:
    mask = canal_mask()
    weights = feathered_band(dilate(downsample_mask(mask), 1), mask)[0, 0]
    assert max(float(weights.diff(dim=dim).abs().max()) for dim in (0, 1)) == 1 / 8
