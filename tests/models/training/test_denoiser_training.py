"""models/training/denoiser.py: the loss, what is drawn for it, and what is held out."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from models.schedule import Schedule
from models.training import denoiser
from models.training.denoiser import draw_level, draw_row, noise_error, train_denoiser
from models.training.plan import Budget, Plan
from models.training.vae import split
from tests.models.training.line import silent
from tests.tiny import tiny_unet

CPU = torch.device("cpu")
SCHEDULE = Schedule.linear()


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(denoiser, "build_unet", tiny_unet)


def latents(images: int) -> torch.Tensor:
    """Each image's, and its mirror image's after it."""
    return torch.randn(2 * images, 4, 32, 64, generator=torch.Generator().manual_seed(0))


def test_the_error_is_that_of_the_noise_predicted_from_the_noised_latent() -> None:
    """A float64 loop with betas multiplied out one by one; the "network" is a formula."""
    clean, noise = np.random.default_rng(0).normal(size=(2, 3, 2, 4, 4))
    levels = [1, 25, 1000]
    expected = np.empty_like(clean)
    for row, level in enumerate(levels):
        signal = math.prod(1 - (1e-4 + (0.02 - 1e-4) * i / 999) for i in range(level))
        noisy = math.sqrt(signal) * clean[row] + math.sqrt(1 - signal) * noise[row]
        expected[row] = np.abs(0.3 * noisy + level / 1000 - noise[row])

    def network(noisy: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        return 0.3 * noisy + levels.view(-1, 1, 1, 1) / 1000

    found = noise_error(network, torch.from_numpy(clean), torch.tensor(levels), torch.from_numpy(noise), SCHEDULE)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_levels_are_log_uniform_from_1_to_the_last() -> None:
    random = np.random.default_rng(0)
    drawn = np.array([draw_level(1000, random) for _ in range(5000)])
    assert drawn.min() == 1 and 900 < drawn.max() <= 1000
    for level in (1, 25, 100, 500):
        assert (drawn <= level).mean() == pytest.approx(math.log(level + 1) / math.log(1001), abs=0.02)
    assert {draw_level(1, random) for _ in range(20)} == {1}


def test_a_row_is_drawn_by_seed_step_and_row_alone() -> None:
    def drawn(seed: int, step: int, row: int) -> tuple[bytes, ...]:
        clean, level, noise = draw_row(latents(4), np.arange(8), 1000, seed, step, row)
        return clean.numpy().tobytes(), str(level).encode(), noise.tobytes()

    assert drawn(1, 2, 3) == drawn(1, 2, 3)
    assert len({drawn(*key)[2] for key in ((1, 2, 3), (2, 2, 3), (1, 3, 3), (1, 2, 4))}) == 4


@pytest.mark.parametrize("half", [0, 1], ids=["images", "mirror images"])
def test_a_denoiser_is_trained_on_images_and_on_their_mirror_images(tmp_path: Path, half: int) -> None:
    spoiled = latents(9)
    spoiled[half::2] = torch.nan  # the first to be drawn ends the run
    with pytest.raises(FloatingPointError):
        train_denoiser(spoiled, SCHEDULE, Plan(Budget(2), 8, 1e-3), tmp_path, CPU, silent)


def test_a_denoiser_is_not_trained_on_what_it_is_validated_with(tmp_path: Path) -> None:
    held_out, _ = split(9)
    spoiled = latents(9)
    spoiled[2 * held_out] = spoiled[2 * held_out + 1] = torch.nan
    _, facts = train_denoiser(spoiled, SCHEDULE, Plan(Budget(2), 8, 1e-3), tmp_path, CPU, silent)
    assert facts["steps"] == 2


def test_the_figures_of_a_denoiser_that_predicts_nothing_are_those_of_the_noise(tmp_path: Path) -> None:
    _, facts = train_denoiser(latents(9), SCHEDULE, Plan(Budget(1), 1, 1e-12), tmp_path, CPU, silent)
    noise = torch.randn(2, 4, 32, 64, generator=torch.Generator().manual_seed(0))
    expected = pytest.approx(float(noise.abs().mean()), abs=1e-4)
    assert [facts[f"l1_at_{level}"] for level in (25, 100, 500)] == [expected] * 3
