"""Local mean and spread, matched."""

import torch
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
