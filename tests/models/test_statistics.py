"""Local mean and spread, matched."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, gaussian_filter, zoom
from torch import Tensor

from models.statistics import match_brightness, match_spread, match_statistics


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


def test_a_large_area_takes_the_references_mean_and_spread_in_every_channel() -> None:
    (values, reference), where = two_images(), band()
    matched = match_statistics(values, reference, where)
    for row in range(2):
        ours, theirs = inside(matched, where, row), inside(reference, where, row)
        torch.testing.assert_close(ours.mean(1), theirs.mean(1), atol=0.1, rtol=0)
        torch.testing.assert_close(ours.std(1), theirs.std(1), atol=0.1, rtol=0)
    assert matched.dtype == torch.float32


def test_the_spread_alone_leaves_zero_at_zero() -> None:
    (values, reference), where = two_images(), band()
    values[:, :, 10, 20] = 0
    matched = match_spread(values, reference, where)
    assert bool((matched[:, :, 10, 20] == 0).all())
    torch.testing.assert_close(inside(matched, where, 0).std(1), inside(reference, where, 0).std(1), atol=0.1, rtol=0)


def test_what_is_alike_already_stays() -> None:
    values, _ = two_images()
    torch.testing.assert_close(match_statistics(values, values, band()), values)


def test_a_tiny_area_is_changed_in_part_and_no_area_not_at_all() -> None:
    values, reference = two_images()
    where = torch.zeros(2, 1, 32, 64)
    where[0, 0, 4, 4] = 1
    matched = match_statistics(values, reference, where)
    at = (0, slice(None), 4, 4)
    assert bool(((matched[at] - values[at]).abs() <= 0.1 * (reference[at] - values[at]).abs() + 1e-6).all())
    assert torch.equal(matched[1], values[1])


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


def radiographs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 1, 256, 512, generator=generator) / 4, torch.linspace(-1, 1, 512).expand(2, 1, 256, 512)


def added(difference: NDArray[np.float32], where: NDArray[np.bool_]) -> NDArray[np.float64]:
    """What is added to an image, by scipy, for one difference (256, 512) and area (32, 64)."""
    border = (where & ~binary_erosion(where, np.ones((3, 3)), border_value=1)).astype(float)
    cells = difference.astype(float).reshape(32, 8, 64, 8).mean(axis=(1, 3))
    sums = (gaussian_filter(some, 4.0, mode="constant", truncate=30) for some in (cells * border, border))
    return zoom(np.divide(*sums), 8, order=1, mode="nearest", grid_mode=True)


def test_brightness_is_matched_along_the_border_place_by_place() -> None:
    (images, reference), where = radiographs(), band()
    matched = match_brightness(images, reference, where)
    assert matched.dtype == torch.float32
    for row in range(2):
        expected = added((reference - images)[row, 0].numpy(), where[row, 0].numpy() > 0)
        np.testing.assert_allclose((matched - images)[row, 0].numpy(), expected, atol=1e-5)


def test_light_from_one_side_leaves_no_step_and_the_anatomy_its_contrast() -> None:
    _, light = radiographs()
    where, anatomy = torch.zeros(2, 1, 32, 64), torch.zeros(2, 1, 256, 512)
    where[..., 11:15, 10:52] = 1
    anatomy[..., 100:110, 100:400] = 1
    matched = match_brightness(0.5 - 0.3 * anatomy, light, where)
    surroundings = torch.nn.functional.interpolate(where, scale_factor=8) * (1 - anatomy)
    assert (matched - light)[surroundings > 0].abs().max() < 0.2  # one number for all of the area: 0.6 and more
    kept = matched[..., 98, 100:400] - matched[..., 102, 100:400]
    torch.testing.assert_close(kept, torch.full_like(kept, 0.3), atol=0.01, rtol=0)


def test_where_the_area_is_empty_brightness_stays() -> None:
    (images, reference), where = radiographs(), band()
    where[1] = 0
    assert torch.equal(match_brightness(images, reference, where)[1], images[1])
