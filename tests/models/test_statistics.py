"""Local mean and spread, matched."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, gaussian_filter
from torch import Tensor

from models.statistics import match_spread, match_statistics


def two_images(channels: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    values, reference = torch.randn(2, 2, channels, 32, 64, generator=generator)
    return values, reference * 2.5 + torch.tensor([1.0, -2.0, 0.5]).view(1, 3, 1, 1)


def band() -> Tensor:
    where = torch.zeros(2, 1, 32, 64)
    where[0, :, 5:25, 10:50] = where[1, :, 0:20, 0:60] = 1
    return where


def inside(values: Tensor, where: Tensor, row: int) -> Tensor:
    return values[row][:, where[row, 0] > 0]


def border(where: Tensor, depth: int = 1) -> Tensor:
    """Of the area what is at most `depth` pixels from what is not; the image's edge is none."""
    inner = binary_erosion(where[:, 0].numpy(), np.ones((1, 2 * depth + 1, 2 * depth + 1)), border_value=1)
    return where * torch.from_numpy(~inner)[:, None]


def local_mean(image: Tensor, where: Tensor, sigma: float) -> NDArray[np.float64]:
    """Of one channel (H, W), as scipy's Gaussian has it."""
    weights = where.double().numpy()
    sums = (gaussian_filter(some, sigma, mode="constant", truncate=30) for some in (image.numpy() * weights, weights))
    return np.divide(*sums)


def test_a_large_area_takes_the_references_spread_in_every_channel() -> None:
    (values, reference), where = two_images(), band()
    matched = match_statistics(values, reference, where)
    for row in range(2):
        ours, theirs = inside(matched, where, row), inside(reference, where, row)
        torch.testing.assert_close(ours.std(1), theirs.std(1), atol=0.2, rtol=0)
    assert matched.dtype == torch.float32


@pytest.mark.parametrize("latent_pixel", [1, 2])
def test_its_border_takes_the_references_local_mean(latent_pixel: int) -> None:
    (values, reference), where = two_images(), band()
    matched = match_statistics(values, reference, where, latent_pixel)
    sigma, edge = 4.0 * latent_pixel, border(where, latent_pixel)
    for row in range(2):
        area = where[row, 0].numpy() > 0
        for channel in range(3):
            before, theirs, ours = (
                local_mean(image[row, channel], edge[row, 0], sigma)[area] for image in (values, reference, matched)
            )
            spreads = (image[row, channel].numpy()[area].std(dtype=np.float64) for image in (reference, values))
            gain = np.divide(*spreads) ** (area.sum() / (area.sum() + 16))
            expected = (values[row, channel].numpy()[area] - before) * gain + theirs
            np.testing.assert_allclose(matched[row, channel].numpy()[area], expected, rtol=1e-4, atol=1e-4)
            assert np.abs(ours - theirs).max() < np.abs(before - theirs).max() / 2


def test_light_from_one_side_leaves_no_step_at_the_border_and_the_anatomy_its_contrast() -> None:
    anatomy, where = torch.zeros(1, 1, 32, 64), torch.zeros(1, 1, 32, 64)
    anatomy[..., 15:17, 10:50] = where[..., 13:19, 8:52] = 1
    light = torch.linspace(-2, 2, 64).expand(1, 1, 32, 64)
    guide = -1.0 * anatomy + 0.7
    matched = match_statistics(guide, light - anatomy, where)
    bone, canal = border(where)[0, 0] > 0, anatomy[0, 0] > 0
    assert (matched - light)[0, 0][bone].abs().max() < 0.6  # one mean for all of the band: 1.5
    assert (matched - light)[0, 0][canal].mean() < -0.9


def test_the_spread_alone_leaves_zero_at_zero() -> None:
    (values, reference), where = two_images(), band()
    values[:, :, 10, 20] = 0
    matched = match_spread(values, reference, where)
    assert bool((matched[:, :, 10, 20] == 0).all())
    torch.testing.assert_close(inside(matched, where, 0).std(1), inside(reference, where, 0).std(1), atol=0.1, rtol=0)


def test_what_is_alike_already_stays() -> None:
    values, _ = two_images()
    torch.testing.assert_close(match_statistics(values, values, band()), values)


def test_an_empty_area_changes_nothing() -> None:
    values, reference = two_images()
    where = band()
    where[1] = 0
    assert torch.equal(match_statistics(values, reference, where)[1], values[1])


def test_a_spread_grows_at_most_fourfold_and_less_the_smaller_the_area_is() -> None:
    values, _ = two_images()
    two_pixels = torch.zeros(2, 1, 32, 64)
    two_pixels[..., 4, 4:6] = 1
    for where in (band(), two_pixels):
        pixels = where.sum(dim=(1, 2, 3), keepdim=True)
        torch.testing.assert_close(match_spread(values, 100 * values, where), values * 4 ** (pixels / (pixels + 16)))


def test_a_flat_area_gives_no_infinities() -> None:
    _, reference = two_images()
    flat = torch.ones_like(reference)
    assert bool(match_statistics(flat, reference, band()).isfinite().all())
    assert bool(match_statistics(reference, flat, band()).isfinite().all())
