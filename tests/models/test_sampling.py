"""The reverse process, whole loops against diffusers and against a plain float64 loop."""

import math
from collections.abc import Sequence

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from torch import Tensor

from models.sampling import Sampler, draw_noise, sample, timestep_pairs
from models.schedule import Schedule

SHAPE = (4, 8, 16)
SAMPLERS: tuple[Sampler, ...] = ("ddpm", "ddim")


@pytest.fixture(scope="module")
def network() -> UNet2DModel:
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=(8, 16),
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
    )
    return unet.eval().requires_grad_(False)


@pytest.fixture
def denoiser(network: UNet2DModel):  # type: ignore[no-untyped-def]
    return lambda noisy, timesteps: network(noisy, timesteps).sample


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def start(seeds: Sequence[int]) -> Tensor:
    return draw_noise(SHAPE, generators(*(seed + 1000 for seed in seeds)))


def test_a_samples_noise_is_its_own_however_many_are_drawn_at_once() -> None:
    seeds = range(40)
    with torch.inference_mode():
        together = draw_noise(SHAPE, generators(*seeds))
    assert torch.equal(together, torch.cat([draw_noise(SHAPE, generators(seed)) for seed in seeds]))


def test_the_last_25_steps_pass_every_level() -> None:
    assert timestep_pairs(25, 25) == [(t, t - 1) for t in range(25, 0, -1)]


def test_respaced_steps_are_even_and_end_at_the_clean_latent() -> None:
    assert timestep_pairs(100, 25) == [(t, t - 4) for t in range(100, 0, -4)]
    assert timestep_pairs(10, 3) == [(10, 6), (6, 3), (3, 0)]
    assert timestep_pairs(7, 1) == [(7, 0)]


@pytest.mark.parametrize(("start_timestep", "steps"), [(25, 26), (25, 0), (25, -1), (0, 0)])
def test_steps_that_would_pass_no_level_are_refused(start_timestep: int, steps: int) -> None:
    with pytest.raises(ValueError, match=f"steps is {steps} and start_timestep {start_timestep}"):
        timestep_pairs(start_timestep, steps)


@pytest.mark.parametrize("steps", [10, 25])
def test_ancestral_sampling_is_that_of_diffusers(denoiser, steps: int) -> None:  # type: ignore[no-untyped-def]
    scheduler = DDPMScheduler(
        beta_schedule="linear", clip_sample=False, variance_type="fixed_small", timestep_spacing="trailing"
    )
    scheduler.set_timesteps(steps)
    theirs, own = start([1, 2]), generators(1, 2)
    for t in scheduler.timesteps:
        predicted = denoiser(theirs, torch.full((2,), int(t) + 1))
        theirs = scheduler.step(predicted, int(t), theirs, generator=own).prev_sample

    ours = sample(denoiser, start([1, 2]), timestep_pairs(1000, steps), Schedule.linear(), generators(1, 2), "ddpm")
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_the_last_25_ancestral_steps_are_those_of_diffusers(denoiser) -> None:  # type: ignore[no-untyped-def]
    scheduler = DDPMScheduler(beta_schedule="linear", clip_sample=False, variance_type="fixed_small")
    scheduler.set_timesteps(1000)
    theirs, own = start([3]), generators(3)
    for t in scheduler.timesteps[-25:]:
        predicted = denoiser(theirs, torch.full((1,), int(t) + 1))
        theirs = scheduler.step(predicted, int(t), theirs, generator=own).prev_sample

    ours = sample(denoiser, start([3]), timestep_pairs(25, 25), Schedule.linear(), generators(3), "ddpm")
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_deterministic_sampling_is_that_of_diffusers(denoiser) -> None:  # type: ignore[no-untyped-def]
    scheduler = DDIMScheduler(
        beta_schedule="linear", clip_sample=False, set_alpha_to_one=True, timestep_spacing="trailing"
    )
    scheduler.set_timesteps(20)
    theirs = start([1, 2])
    for t in scheduler.timesteps:
        predicted = denoiser(theirs, torch.full((2,), int(t) + 1))
        theirs = scheduler.step(predicted, int(t), theirs).prev_sample

    ours = sample(denoiser, start([1, 2]), timestep_pairs(1000, 20), Schedule.linear(), generators(1, 2), "ddim")
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("reblend", [False, True])
def test_the_whole_loop_is_that_of_the_equations(sampler: Sampler, reblend: bool) -> None:
    """A plain float64 loop with betas multiplied out one by one; the "network" is a formula."""

    def denoiser(noisy: Tensor, timesteps: Tensor) -> Tensor:
        return 0.3 * noisy + 0.1 * torch.sin(noisy * timesteps.view(-1, 1, 1, 1))

    known = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    mask = torch.zeros(1, 1, *SHAPE[1:], dtype=torch.float64)
    mask[..., 2:5, 3:9] = 1
    noisy = start([5]).double()
    pairs = timestep_pairs(100, 20)
    ours = sample(denoiser, noisy, pairs, Schedule.linear(), generators(5), sampler, (known, mask) if reblend else None)

    betas = [1e-4 + (0.02 - 1e-4) * i / 999 for i in range(1000)]
    alpha_bar = [math.prod(1 - beta for beta in betas[:t]) for t in range(1001)]
    own = torch.Generator().manual_seed(5)
    z = noisy
    for t, s in pairs:
        predicted = denoiser(z, torch.tensor([t]))
        clean = (z - math.sqrt(1 - alpha_bar[t]) * predicted) / math.sqrt(alpha_bar[t])
        if sampler == "ddim":
            z = math.sqrt(alpha_bar[s]) * clean + math.sqrt(1 - alpha_bar[s]) * predicted
        else:
            beta = 1 - alpha_bar[t] / alpha_bar[s]
            z = (math.sqrt(alpha_bar[s]) * beta * clean + math.sqrt(1 - beta) * (1 - alpha_bar[s]) * z) / (
                1 - alpha_bar[t]
            )
            if s > 0:
                sd = math.sqrt(beta * (1 - alpha_bar[s]) / (1 - alpha_bar[t]))
                z = z + sd * torch.randn(SHAPE, generator=own).double()
        if reblend:
            fresh = torch.randn(SHAPE, generator=own).double() if s > 0 else 0
            at_s = math.sqrt(alpha_bar[s]) * known + math.sqrt(1 - alpha_bar[s]) * fresh
            z = torch.where(mask == 1, z, at_s)
    torch.testing.assert_close(ours, z, rtol=1e-10, atol=1e-10)


def test_a_perfect_denoiser_gives_the_clean_latent_back_unclipped() -> None:
    clean = 5 * torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    schedule = Schedule.linear()

    def perfect(noisy: Tensor, timesteps: Tensor) -> Tensor:
        signal = schedule.at(int(timesteps[0]))
        return (noisy - math.sqrt(signal) * clean) / math.sqrt(1 - signal)

    noisy = schedule.add_noise(clean, 250, start([1]).double())
    for sampler in SAMPLERS:
        found = sample(perfect, noisy, timestep_pairs(250, 25), schedule, generators(1), sampler)
        torch.testing.assert_close(found, clean, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sample_does_not_depend_on_its_batch(denoiser, sampler: Sampler) -> None:  # type: ignore[no-untyped-def]
    known, mask = draw_noise(SHAPE, generators(50)), torch.ones(1, 1, *SHAPE[1:])
    mask[..., 8:] = 0

    def run(*seeds: int) -> Tensor:
        count = len(seeds)
        both = (known.expand(count, -1, -1, -1), mask.expand(count, -1, -1, -1))
        pairs = timestep_pairs(60, 6)
        return sample(denoiser, start(seeds), pairs, Schedule.linear(), generators(*seeds), sampler, both)

    alone, among_others = run(2), run(3, 2, 1)
    torch.testing.assert_close(alone[0], among_others[1], rtol=1e-5, atol=1e-5)


def test_reblending_ends_with_the_known_latent_itself_outside_the_anatomy(denoiser) -> None:  # type: ignore[no-untyped-def]
    known = draw_noise(SHAPE, generators(50))
    mask = torch.zeros(1, 1, *SHAPE[1:])
    mask[..., 2:4, 5:9] = 1
    pairs = timestep_pairs(40, 4)
    found = sample(denoiser, start([1]), pairs, Schedule.linear(), generators(1), "ddim", (known, mask))
    outside = (mask == 0).expand_as(known)
    assert torch.equal(found[outside], known[outside])
    assert not torch.equal(found[~outside], known[~outside])


@pytest.mark.parametrize(
    ("sampler", "reblend", "draws"),
    [("ddpm", False, 3), ("ddim", False, 0), ("ddim", True, 3), ("ddpm", True, 6)],
)
def test_how_often_a_generator_is_used_is_part_of_the_result(sampler: Sampler, reblend: bool, draws: int) -> None:
    known = (torch.zeros(1, *SHAPE), torch.ones(1, 1, *SHAPE[1:])) if reblend else None
    used, counted = generators(7, 7)
    sample(lambda z, _: z, start([1]), timestep_pairs(4, 4), Schedule.linear(), [used], sampler, known)
    for _ in range(draws):
        torch.randn(SHAPE, generator=counted)
    assert torch.equal(used.get_state(), counted.get_state())


def test_too_few_generators_are_refused() -> None:
    with pytest.raises(ValueError, match="2 latents and 1 generators"):
        sample(lambda z, _: z, start([1, 2]), [(1, 0)], Schedule.linear(), generators(1))
