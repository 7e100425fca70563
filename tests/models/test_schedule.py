"""The noise schedule, against diffusers and against its definition."""

import pytest
import torch
from diffusers import DDPMScheduler

from models.schedule import Schedule


def test_noise_levels_are_those_of_diffusers_one_further_on() -> None:
    theirs = DDPMScheduler(num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
    ours = Schedule.linear()
    torch.testing.assert_close(ours.alpha_bar[1:].float(), theirs.alphas_cumprod, rtol=2e-6, atol=1e-9)


def test_level_zero_is_the_clean_latent() -> None:
    schedule = Schedule.linear()
    assert schedule.alpha_bar.shape == (1001,)
    assert schedule.alpha_bar.dtype == torch.float64
    assert schedule.at(0) == 1.0
    clean = torch.randn(2, 3, 4, 5)
    assert torch.equal(schedule.add_noise(clean, 0, torch.randn_like(clean)), clean)


def test_noised_latents_of_unit_scale_keep_unit_scale() -> None:
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 4, 16, 32, 64, generator=generator)
    noisy = Schedule.linear().add_noise(clean, 300, noise)
    assert float(noisy.std()) == pytest.approx(1.0, abs=0.01)


def test_a_level_for_each_latent_is_the_same_as_one_after_the_other() -> None:
    schedule = Schedule.linear()
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 3, 2, 4, 4, generator=generator)
    levels = torch.tensor([1, 500, 1000])
    together = schedule.add_noise(clean, levels, noise)
    apart = [schedule.add_noise(clean[i : i + 1], int(t), noise[i : i + 1]) for i, t in enumerate(levels)]
    torch.testing.assert_close(together, torch.cat(apart))


def test_a_level_outside_the_schedule_is_refused() -> None:
    clean = torch.zeros(1, 1, 2, 2)
    for t in (-1, 1001):
        with pytest.raises(ValueError, match=rf"noise level {t} is outside 0 \.\.\. 1000"):
            Schedule.linear().add_noise(clean, t, clean)
        with pytest.raises(IndexError):
            Schedule.linear().add_noise(clean, torch.tensor([t]), clean)


def test_betas_that_make_no_schedule_are_refused() -> None:
    with pytest.raises(ValueError, match="beta_start=0"):
        Schedule.linear(beta_start=0)
    with pytest.raises(ValueError, match="timesteps=0"):
        Schedule.linear(timesteps=0)
