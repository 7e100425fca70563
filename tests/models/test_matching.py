"""SSIM between latents, pair by pair against scikit-image, and the selection that it makes."""

import hashlib
import random

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from models.matching import Match, latent_ssim, random_selection, ssim_map, top_k

SHAPE = (4, 32, 64)


def name(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def related_latents(guides: int, pool: int, seed: int = 0) -> tuple[Tensor, Tensor, float]:
    """Pool latents between noise and a guide, with an offset, so that similarities differ widely."""
    generator = torch.Generator().manual_seed(seed)
    ours = torch.nn.functional.avg_pool2d(torch.randn(guides, *SHAPE, generator=generator), 3, 1, 1) * 3 + 0.5
    share = torch.linspace(0, 0.9, pool).view(-1, 1, 1, 1)
    noise = torch.nn.functional.avg_pool2d(torch.randn(pool, *SHAPE, generator=generator), 3, 1, 1) * 3
    theirs = share * ours[torch.arange(pool) % guides] + (1 - share) * noise
    return ours, theirs, float(theirs.max() - theirs.min())


def reference(guides: Tensor, pool: Tensor, data_range: float) -> np.ndarray:
    rows = [
        [structural_similarity(a, b, channel_axis=0, data_range=data_range) for b in pool.double().numpy()]
        for a in guides.double().numpy()
    ]
    return np.array(rows)


def test_ssim_is_that_of_scikit_image_pair_by_pair() -> None:
    guides, pool, data_range = related_latents(3, 30)
    theirs = reference(guides, pool, data_range)
    ours = latent_ssim(guides, pool, data_range)
    assert ours.dtype == torch.float32
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert np.array_equal(np.argsort(-ours.numpy(), axis=1), np.argsort(-theirs, axis=1))


def test_the_map_is_that_of_scikit_image_without_its_border() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = 255 * torch.rand(2, 1, 1, 40, 50, generator=generator)
    arguments = (first[0, 0].double().numpy(), second[0, 0].double().numpy())
    _, theirs = structural_similarity(*arguments, data_range=255, full=True)
    np.testing.assert_allclose(ssim_map(first, second, 255)[0, 0], theirs[3:-3, 3:-3], atol=1e-4)


def test_a_pair_has_the_same_bits_in_whatever_company() -> None:
    guides, pool, data_range = related_latents(2, 19)
    together = latent_ssim(guides, pool, data_range)
    alone = [latent_ssim(guides[i : i + 1], pool[j : j + 1], data_range) for i in range(2) for j in range(19)]
    assert torch.equal(together, torch.cat(alone).view(2, 19))


def test_the_selection_is_the_ranking_of_scikit_image() -> None:
    guides, pool, data_range = related_latents(2, 25)
    order = np.argsort(-reference(guides, pool, data_range), axis=1)
    names = [name(i) for i in range(25)]
    chosen = top_k(guides, pool, names, 6, data_range)
    assert [[match.sha256 for match in row] for row in chosen] == [[names[i] for i in row[:6]] for row in order]
    assert all(row == sorted(row, key=lambda match: -match.ssim) for row in chosen)


@pytest.mark.parametrize("piece_size", [1, 3, 7, 25])
def test_the_selection_does_not_depend_on_pieces_or_order(piece_size: int) -> None:
    guides, pool, data_range = related_latents(2, 25)
    names = [name(i) for i in range(25)]
    shuffled = random.Random(1).sample(range(25), 25)
    best: list[list[Match]] = []
    for piece in (shuffled[i : i + piece_size] for i in range(0, 25, piece_size)):
        best = top_k(guides, pool[piece], [names[i] for i in piece], 5, data_range, best)
    assert best == top_k(guides, pool, names, 5, data_range)


def test_equal_images_stand_by_their_sha256() -> None:
    guides, pool, data_range = related_latents(1, 4)
    same = pool[-1:].expand(9, -1, -1, -1)
    names = [name(i) for i in range(9)]
    first = top_k(guides, same[:5], names[:5], 4, data_range)
    (chosen,) = top_k(guides, same[5:], names[5:], 4, data_range, first)
    assert [match.sha256 for match in chosen] == sorted(names)[:4]


def test_a_pool_smaller_than_k_gives_all_it_has() -> None:
    guides, pool, data_range = related_latents(1, 3)
    assert len(top_k(guides, pool, [name(i) for i in range(3)], 5, data_range)[0]) == 3
    assert top_k(guides, pool[:0], [], 5, data_range) == [[]]


def test_figures_that_make_no_sense_are_refused() -> None:
    guides, pool, data_range = related_latents(1, 3)
    with pytest.raises(ValueError, match="data_range is 0"):
        latent_ssim(guides, pool, 0)
    with pytest.raises(ValueError, match=r"guides are \(2, 32, 64\), the pool's latents \(4, 32, 64\)"):
        latent_ssim(guides[:, :2], pool, data_range)
    with pytest.raises(ValueError, match="k is 0"):
        top_k(guides, pool[:0], [], 0, data_range)


def test_a_random_selection_is_repeatable_and_independent_of_the_pools_order() -> None:
    names = [name(i) for i in range(50)]
    drawn = random_selection(0, name(100), names, 10)
    assert drawn == random_selection(0, name(100), reversed(names), 10)
    assert len(set(drawn)) == 10
    assert drawn != random_selection(1, name(100), names, 10)
    assert drawn != random_selection(0, name(101), names, 10)


def test_a_random_selection_draws_every_image_alike() -> None:
    names = [name(i) for i in range(20)]
    drawn = [random_selection(seed, name(100), names, 5) for seed in range(400)]
    counts = [sum(one in row for row in drawn) for one in names]
    assert 60 < min(counts) <= max(counts) < 140


def test_a_match_names_the_image_and_its_similarity_which_is_1_to_itself() -> None:
    guides, _, data_range = related_latents(1, 1)
    (match,) = top_k(guides, guides, [name(0)], 1, data_range)[0]
    assert match == Match(name(0), pytest.approx(1.0, abs=1e-6))
