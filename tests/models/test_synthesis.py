"""Appendix A from end to end, with small untrained networks.

The untrained VAE is a codec that keeps the image at half its resolution, so samples look as they should.
"""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor, nn

from models import precision
from models.blending import dilate, downsample_mask, feathered_band, image_band, soft_band
from models.denoiser import Denoiser, build_unet
from models.phantoms import PLAIN, phantom
from models.quality import contrast
from models.sampling import Sampler
from models.schedule import Schedule
from models.synthesis import Recipe, Stopped, sample_seed, synthesize
from models.vae import Vae, build_autoencoder
from models.weights import Networks
from tests.threads import threads

PAPER = Recipe(
    method="diffusion",
    sampler="ddpm",
    steps=3,
    start_timestep=25,
    dilation=1,
    reblend=False,
    match_statistics=False,
    transfer_detail=False,
    restore_background=False,
)
HARMONIZE = replace(
    PAPER,
    start_timestep=250,
    reblend=True,
    hold_anatomy=True,
    match_statistics=True,
    transfer_detail=True,
)
BLEND = replace(PAPER, method="blend")
PASTE = replace(PAPER, method="paste")


@pytest.fixture(scope="module")
def networks() -> Networks:
    torch.manual_seed(0)
    unet = build_unet(16, channels=(8, 16), norm_groups=4)
    nn.init.normal_(unet.conv_out.weight, std=0.05)
    return Networks(
        name="tiny",
        sha256="0" * 64,
        vae=Vae(build_autoencoder(16, width=64), 8, torch.zeros(16), torch.ones(16)).eval().requires_grad_(False),
        denoiser=Denoiser(unet).eval().requires_grad_(False),
        schedule=Schedule.linear(),
        device=torch.device("cpu"),
    )


def to_tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels)[None].float() / 127.5 - 1


@cache
def rows(count: int) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """Two guides in turn, each row with an unlabeled image of its own."""
    guides = [phantom(100 + i % 2, PLAIN) for i in range(count)]
    unlabeled = [phantom(200 + i, PLAIN) for i in range(count)]
    return (
        torch.stack([to_tensor(guide.image) for guide in guides]),
        torch.stack([torch.from_numpy(guide.mask)[None] for guide in guides]),
        torch.stack([to_tensor(image.image) for image in unlabeled]),
        [1000 + i for i in range(count)],
    )


def band(masks: Tensor, recipe: Recipe) -> Tensor:
    return image_band(dilate(downsample_mask(masks), recipe.dilation)) > 0


def to_pixels(images: Tensor) -> Tensor:
    return ((images + 1) * 127.5).round().to(torch.uint8)


@pytest.mark.parametrize("recipe", [PAPER, HARMONIZE, BLEND, PASTE], ids=["paper", "harmonize", "blend", "paste"])
def test_samples_are_images_of_the_same_size_in_range(networks: Networks, recipe: Recipe) -> None:
    samples = synthesize(networks, *rows(2)[:3], recipe, rows(2)[3])
    assert samples.shape == (2, 1, 256, 512)
    assert samples.dtype == torch.float32
    assert -1 <= float(samples.min()) < float(samples.max()) <= 1
    assert bool(samples.isfinite().all())


def test_the_anatomy_comes_from_the_guide_and_the_rest_from_the_unlabeled_image(networks: Networks) -> None:
    guides, masks, unlabeled, seeds = rows(2)
    sample = synthesize(networks, guides, masks, unlabeled, PAPER, seeds)
    inside, outside = masks, ~band(masks, replace(PAPER, dilation=2))

    def distance(images: Tensor, where: Tensor) -> float:
        return float((sample - images)[where].abs().mean())

    assert distance(guides, inside) < 0.5 * distance(unlabeled, inside)
    assert distance(unlabeled, outside) < 0.5 * distance(guides, outside)


def test_the_canal_survives(networks: Networks) -> None:
    guide, unlabeled = phantom(101, PLAIN), phantom(201, PLAIN)
    image = to_tensor(guide.image)[None]
    image[torch.from_numpy(guide.mask)[None, None]] -= 0.3  # beyond doubt
    mask = torch.from_numpy(guide.mask)[None, None]
    sample = synthesize(networks, image, mask, to_tensor(unlabeled.image)[None], BLEND, [1])
    before = contrast(to_pixels(image)[0, 0].numpy(), guide.mask)
    after = contrast(to_pixels(sample)[0, 0].numpy(), guide.mask)
    assert before is not None and after is not None
    assert after > 0.6 * before


# Rows of one run, and on how many cores.
COMPANY = [([2, 0, 1], 1), ([0, 1, 2], 2), ([0, 1, 2], 3), ([1], 1), ([2, 0], 1)]


@pytest.mark.parametrize(("recipe", "batch_size"), [(PAPER, 2), (HARMONIZE, 1)], ids=["paper", "harmonize"])
def test_a_sample_has_the_same_bits_in_any_company_on_any_number_of_cores(
    networks: Networks, recipe: Recipe, batch_size: int
) -> None:
    guides, masks, unlabeled, seeds = rows(3)
    with threads(1):
        whole = synthesize(networks, guides, masks, unlabeled, recipe, seeds, batch_size=batch_size)
    for chosen, cores in COMPANY:
        own = guides[chosen], masks[chosen], unlabeled[chosen]
        with threads(cores):
            some = synthesize(networks, *own, recipe, [seeds[i] for i in chosen], batch_size=batch_size)
        assert torch.equal(some, whole[chosen])


def test_the_seed_decides(networks: Networks) -> None:
    guides, masks, unlabeled, _ = rows(1)
    first, again, other = (synthesize(networks, guides, masks, unlabeled, PAPER, [seed]) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("sampler", "scheduler", "steps"), [("ddpm", DDPMScheduler, 25), ("ddim", DDIMScheduler, 5)])
def test_a_sample_is_appendix_a(
    networks: Networks,
    monkeypatch: pytest.MonkeyPatch,
    sampler: Sampler,
    scheduler: type[DDPMScheduler | DDIMScheduler],
    steps: int,
) -> None:
    """Written out plainly with diffusers' scheduler, in float32; a denoiser in bfloat16 stays within a gray level."""
    guide, mask, unlabeled, _ = rows(1)
    z_a, z_u = networks.vae.encode(guide), networks.vae.encode(unlabeled)
    anatomy = torch.nn.functional.max_pool2d(mask.float(), 8)
    grown = torch.nn.functional.max_pool2d(anatomy, 3, stride=1, padding=1)
    z = z_a * grown + z_u * (1 - grown)
    theirs = scheduler(beta_schedule="linear", clip_sample=False, timestep_spacing="trailing")
    theirs.set_timesteps(40 * steps)  # of all 1,000 levels, as `steps` of the last 25
    generator = torch.Generator().manual_seed(7)
    z = theirs.add_noise(z, torch.randn(z.shape, generator=generator), torch.tensor([24]))
    for timestep in theirs.timesteps[-steps:]:
        noise = networks.denoiser(z, timestep[None] + 1)
        z = theirs.step(noise, timestep, z, generator=generator).prev_sample
    plain = networks.vae.decode(z).clamp(-1, 1)
    recipe = replace(PAPER, sampler=sampler, steps=steps)
    own = synthesize(networks, guide, mask, unlabeled, recipe, [7])
    assert float((own - plain).abs().max()) * 127.5 < 1
    monkeypatch.setattr(precision, "has_bfloat16", lambda _: False)
    in_float32 = synthesize(networks, guide, mask, unlabeled, recipe, [7])
    assert float((in_float32 - plain).abs().max()) * 127.5 < 0.01


def test_blending_alone_is_diffusion_without_noise(networks: Networks) -> None:
    guides, masks, unlabeled, seeds = rows(1)
    blended = synthesize(networks, guides, masks, unlabeled, BLEND, seeds)
    sampled = synthesize(networks, guides, masks, unlabeled, PAPER, seeds)
    assert not torch.equal(blended, sampled)
    assert torch.equal(blended, synthesize(networks, guides, masks, unlabeled, BLEND, [99]))


def test_pasting_copies_the_guides_pixels_in_the_dilated_mask(networks: Networks) -> None:
    guides, masks, unlabeled, seeds = rows(2)
    pasted = synthesize(networks, guides, masks, unlabeled, PASTE, seeds)
    assert torch.equal(pasted, torch.where(band(masks, PASTE), guides, unlabeled))


def test_pasting_can_take_the_recipients_look_and_a_feathered_seam(networks: Networks) -> None:
    guides, masks, unlabeled, seeds = rows(1)
    recipe = replace(PASTE, match_statistics=True, restore_background=True)
    inside = band(masks, recipe)
    darker = torch.where(inside, (guides - 0.4).clamp(-1, 1), guides)
    pasted = synthesize(networks, darker, masks, unlabeled, recipe, seeds)
    assert torch.equal(pasted[~inside], unlabeled[~inside])
    assert float(pasted[inside].mean()) == pytest.approx(float(unlabeled[inside].mean()), abs=0.03)
    feathered = synthesize(networks, guides, masks, unlabeled, replace(PASTE, restore_background=True), seeds)
    share = feathered_band(dilate(downsample_mask(masks), 1), masks)
    torch.testing.assert_close(feathered, guides * share + unlabeled * (1 - share))


@pytest.mark.parametrize("recipe", [PAPER, HARMONIZE, BLEND], ids=["paper", "harmonize", "blend"])
def test_a_restored_background_is_the_unlabeled_images_own(networks: Networks, recipe: Recipe) -> None:
    guides, masks, unlabeled, seeds = rows(1)
    plain = synthesize(networks, guides, masks, unlabeled, recipe, seeds)
    restored = synthesize(networks, guides, masks, unlabeled, replace(recipe, restore_background=True), seeds)
    outside = ~band(masks, recipe)
    assert torch.equal(restored[outside], unlabeled[outside])
    assert torch.equal(restored[masks], plain[masks])


def test_transferred_detail_makes_the_background_the_recipients_and_the_anatomy_the_guides(
    networks: Networks,
) -> None:
    guides, masks, unlabeled, seeds = rows(1)
    detailed = synthesize(networks, guides, masks, unlabeled, replace(BLEND, transfer_detail=True), seeds)
    smooth = synthesize(networks, guides, masks, unlabeled, BLEND, seeds)
    far = ~band(masks, replace(BLEND, dilation=3))

    def closer(images: Tensor, where: Tensor) -> float:
        return float((detailed - images)[where].abs().mean() / (smooth - images)[where].abs().mean())

    assert closer(unlabeled, far) < 0.1
    assert closer(guides, masks) < 0.3


def test_transferred_detail_fades_across_the_bands_border_or_takes_the_recipients_strength(networks: Networks) -> None:
    """Images of checkerboards alone, which are all detail: the codec keeps means of 2 x 2 pixels."""
    _, masks, unlabeled, seeds = rows(1)
    board = ((torch.arange(256)[:, None] + torch.arange(512)) % 2 - 0.5).expand_as(unlabeled)
    share = soft_band(dilate(downsample_mask(masks), 1))
    for match_statistics, strength in ((False, 0.5 * share + 0.25 * (1 - share)), (True, torch.full_like(share, 0.25))):
        recipe = replace(BLEND, transfer_detail=True, match_statistics=match_statistics)
        made = synthesize(networks, board, masks, board / 2, recipe, seeds)
        torch.testing.assert_close(made.abs(), strength, rtol=0, atol=0.01)


@pytest.mark.parametrize("transfer_detail", [False, True], ids=["smooth", "with its detail"])
def test_matched_statistics_give_the_anatomy_the_recipients_brightness(
    networks: Networks, transfer_detail: bool
) -> None:
    guides, masks, unlabeled, seeds = rows(1)
    recipe = replace(BLEND, transfer_detail=transfer_detail)
    inside = band(masks, BLEND)
    darker = torch.where(inside, (guides - 0.5).clamp(-1, 1), guides)
    plain = synthesize(networks, darker, masks, unlabeled, recipe, seeds)
    matched = synthesize(networks, darker, masks, unlabeled, replace(recipe, match_statistics=True), seeds)
    wanted = float(unlabeled[inside].mean())
    assert abs(float(matched[inside].mean()) - wanted) < 0.05
    assert abs(float(plain[inside].mean()) - wanted) > 0.1


@pytest.mark.parametrize("recipe", [BLEND, PASTE], ids=["blend", "paste"])
def test_matched_statistics_follow_the_recipients_light_and_take_its_contrast(
    networks: Networks, recipe: Recipe
) -> None:
    """A guide of one gray in a light that comes from one side; then one that is the recipient, but paler."""
    _, masks, unlabeled, seeds = rows(1)
    matched, inside = replace(recipe, match_statistics=True), band(masks, recipe)
    light = torch.linspace(-0.5, 0.5, 512).expand_as(unlabeled)
    around = inside & ~(image_band(downsample_mask(masks)) > 0)

    def off(recipe: Recipe) -> float:
        made = synthesize(networks, torch.where(masks, -0.3, 0.0), masks, light, recipe, seeds)
        return float((made - light)[around].abs().mean())

    def contrast_kept(recipe: Recipe) -> float:
        made = synthesize(networks, unlabeled * 0.4, masks, unlabeled, recipe, seeds)
        return float(made[inside].std() / unlabeled[inside].std())

    assert off(matched) < 0.1 and off(recipe) > 0.25
    assert contrast_kept(matched) > 0.8 and contrast_kept(recipe) < 0.5


HIGH = replace(PAPER, start_timestep=500, steps=4)  # an untrained network leaves nothing of a latent at this level


def test_a_held_anatomy_stays_the_guides_at_any_noise_level(networks: Networks) -> None:
    guides, masks, unlabeled, seeds = rows(2)

    def change(recipe: Recipe) -> Tensor:
        made, blended = (
            synthesize(networks, guides, masks, unlabeled, kind, seeds) for kind in (recipe, replace(BLEND, dilation=2))
        )
        return (made - blended).abs()

    held = change(replace(HIGH, hold_anatomy=True, reblend=True, dilation=2))
    free = change(replace(HIGH, reblend=True, dilation=2))
    margin = band(masks, replace(HIGH, dilation=2)) & ~band(masks, replace(HIGH, dilation=1))
    assert float(held[masks].mean()) < 0.1 * float(free[masks].mean())
    assert float(held[margin].mean()) > 0.5 * float(free[margin].mean())


def test_where_nothing_is_left_to_sample_diffusion_is_the_blend(networks: Networks) -> None:
    guides, masks, unlabeled, seeds = rows(2)
    nothing = replace(HIGH, hold_anatomy=True, reblend=True, dilation=0, match_statistics=True)
    made = synthesize(networks, guides, masks, unlabeled, nothing, seeds)
    assert torch.equal(made, synthesize(networks, guides, masks, unlabeled, replace(nothing, method="blend"), seeds))


def test_a_held_anatomy_without_reblending_leaves_the_background_free(networks: Networks) -> None:
    guides, masks, unlabeled, seeds = rows(1)
    blended = synthesize(networks, guides, masks, unlabeled, BLEND, seeds)
    change = (synthesize(networks, guides, masks, unlabeled, replace(HIGH, hold_anatomy=True), seeds) - blended).abs()
    assert float(change[masks].mean()) < 0.1 * float(change[~band(masks, BLEND)].mean())


def test_stopping_ends_the_work_before_the_next_network_call(networks: Networks) -> None:
    guides, masks, unlabeled, seeds = rows(1)
    asked = []

    def after_four() -> bool:
        asked.append(1)
        return len(asked) > 4

    with pytest.raises(Stopped):
        synthesize(networks, guides, masks, unlabeled, PAPER, seeds, should_stop=after_four)
    assert len(asked) == 5


def test_rows_that_do_not_match_are_refused(networks: Networks) -> None:
    guides, masks, unlabeled, seeds = rows(2)
    with pytest.raises(ValueError, match="seeds 1; give as many of each"):
        synthesize(networks, guides, masks, unlabeled, PAPER, seeds[:1])
    with pytest.raises(ValueError, match=r"masks \(1, 1, 256, 512\)"):
        synthesize(networks, guides, masks[:1], unlabeled, PAPER, seeds)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"method": "magic"}, "method is 'magic'"),
        ({"sampler": "euler"}, "sampler is 'euler'"),
        ({"dilation": -1}, "dilation is -1"),
        ({"steps": 26}, "steps is 26 and start_timestep 25"),
    ],
)
def test_a_recipe_whose_fields_do_not_go_together_is_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(PAPER, **change)


def test_a_start_beyond_the_schedule_is_refused(networks: Networks) -> None:
    guides, masks, unlabeled, seeds = rows(1)
    with pytest.raises(ValueError, match="noise level 1001 is outside"):
        synthesize(networks, guides, masks, unlabeled, replace(PAPER, start_timestep=1001), seeds)


def test_a_samples_seed_depends_on_all_three_and_fits_sql() -> None:
    seeds = {sample_seed(job, guide, pool) for job in (0, 1) for guide in "ab" for pool in "ab"}
    assert len(seeds) == 8
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert sample_seed(0, "a", "b") == 5888029372115936617, "published samples are made anew by their seeds"
