"""Synthetic labeled radiographs: a guide's anatomy in an unlabeled image (the paper's Appendix A)."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from models.batches import FixedBatches
from models.blending import blend, dilate, downsample_mask, feathered_band, image_band, soft_band
from models.precision import autocast
from models.sampling import Sampler, draw_noise, sample, timestep_pairs
from models.statistics import match_brightness, match_spread, match_statistics
from models.weights import Networks

Method = Literal["diffusion", "blend", "paste"]


class Stopped(Exception):
    """`should_stop` said so; nothing was made."""


@dataclass(frozen=True)
class Recipe:
    """How samples are made. Raises ValueError for an unknown value, or fields that do not go together.

    method: `diffusion`, or one of its controls: `blend`, the same without noise and denoising, and `paste`,
    the guide's pixels copied in the same place, without any network.
    sampler, steps, start_timestep: the reverse steps, see `models.sampling`.
    dilation: latent pixels by which the anatomy mask grows.
    reblend: put the unlabeled latent back outside the mask after every step, not only before the first.
    hold_anatomy: put the guide's latent back on the anatomy itself, too, undilated. Only the margin that the
    dilation adds is sampled, so the seam can be painted anew at high noise levels and the label stays true.
    match_statistics: give the guide the unlabeled image's brightness around the anatomy, place by place, and its mean
    and spread under the mask.
    transfer_detail: put back the fine detail that the autoencoder loses; without effect on `paste`.
    restore_background: put the unlabeled image's own pixels back outside the mask, with a feathered seam.
    """

    method: Method
    sampler: Sampler
    steps: int
    start_timestep: int
    dilation: int
    reblend: bool
    match_statistics: bool
    transfer_detail: bool
    restore_background: bool
    hold_anatomy: bool = False  # jobs of earlier versions have none

    def __post_init__(self) -> None:
        if self.method not in ("diffusion", "blend", "paste"):
            raise ValueError(f"method is {self.method!r}; choose diffusion, blend or paste")
        if self.sampler not in ("ddpm", "ddim"):
            raise ValueError(f"sampler is {self.sampler!r}; choose ddpm or ddim")
        if self.dilation < 0:
            raise ValueError(f"dilation is {self.dilation}; give 0 or more latent pixels")
        timestep_pairs(self.start_timestep, self.steps)


def synthesize(
    networks: Networks,
    guide_images: Tensor,
    guide_masks: Tensor,
    unlabeled_images: Tensor,
    recipe: Recipe,
    seeds: Sequence[int],
    should_stop: Callable[[], bool] = lambda: False,
    batch_size: int = 1,
) -> Tensor:
    """One sample per row: Appendix A of the paper, and the remedies of `recipe` around it.

    guide_images, unlabeled_images: (B, 1, 256, 512) float32 in [-1, 1]; guide_masks: (B, 1, 256, 512) bool,
    the anatomy, and so the samples' labels; seeds: one per row. Returns (B, 1, 256, 512) float32 in [-1, 1]
    on the CPU.

    `batch_size` is that of `FixedBatches`: on one kind of CPU a row's result has the same bits whatever the
    other rows, their number and torch's threads are. `should_stop` is asked before every network call, from
    several threads; where it answers True, Stopped is raised. Raises ValueError for unequal shapes.
    """
    _check_rows(guide_images, guide_masks, unlabeled_images, seeds)
    guides, masks, unlabeled = (rows.to(networks.device) for rows in (guide_images, guide_masks, unlabeled_images))
    schedule = networks.schedule
    anatomy = downsample_mask(masks)
    anatomy_mask = dilate(anatomy, recipe.dilation)  # G'
    if recipe.match_statistics:
        guides = match_brightness(guides, unlabeled, anatomy_mask)

    with torch.inference_mode(), FixedBatches(batch_size, before_call=partial(_stop_if, should_stop)) as batches:
        encode = partial(batches.run, networks.vae.encode)
        decode = partial(batches.run, networks.vae.decode)
        denoiser = partial(batches.run, partial(predict_noise, networks))

        if recipe.method == "paste":
            image = _paste(unlabeled, guides, anatomy_mask, recipe)
        else:
            unlabeled_latent, guide_latent = encode(unlabeled), _for_each_distinct(encode, guides)  # line 1
            foreground = guide_latent
            if recipe.match_statistics:
                foreground = match_statistics(guide_latent, unlabeled_latent, anatomy_mask)
            latent = blend(unlabeled_latent, foreground, anatomy_mask)  # lines 3-4

            if recipe.method == "diffusion":
                generators = [torch.Generator().manual_seed(seed) for seed in seeds]
                noise = draw_noise(latent.shape[1:], generators).to(latent)
                noisy = schedule.add_noise(latent, recipe.start_timestep, noise)  # line 5
                pairs = timestep_pairs(recipe.start_timestep, recipe.steps)
                known = None
                if recipe.reblend or recipe.hold_anatomy:
                    known = latent, _sampled(anatomy_mask, anatomy, recipe)
                latent = sample(denoiser, noisy, pairs, schedule, generators, recipe.sampler, known)  # 6-8
            image = decode(latent)  # line 9

            if recipe.transfer_detail:
                guide_detail = guides - _for_each_distinct(decode, guide_latent)
                unlabeled_detail = unlabeled - decode(unlabeled_latent)
                image = image + _detail(unlabeled_detail, guide_detail, anatomy_mask, recipe)

        if recipe.restore_background:
            image = blend(unlabeled, image, feathered_band(anatomy_mask, masks))
        return image.clamp(-1, 1).cpu()


def sample_seed(job_seed: int, guide_sha256: str, pool_image_sha256: str) -> int:
    """The sample's own seed, 63 bits: it depends on the job's seed and on both images' content alone."""
    digest = hashlib.sha256(f"{job_seed}:{guide_sha256}:{pool_image_sha256}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _paste(unlabeled: Tensor, guides: Tensor, anatomy_mask: Tensor, recipe: Recipe) -> Tensor:
    """Copy-paste of pixels, in the very squares in which the other methods blend latents."""
    band = image_band(anatomy_mask)
    foreground = match_statistics(guides, unlabeled, band) if recipe.match_statistics else guides
    return blend(unlabeled, foreground, band)


def _sampled(anatomy_mask: Tensor, anatomy: Tensor, recipe: Recipe) -> Tensor:
    """Where the sampler is free, (B, 1, 32, 64) in {0, 1}; elsewhere the blend is known and put back."""
    where = anatomy_mask if recipe.reblend else torch.ones_like(anatomy_mask)
    return where - anatomy if recipe.hold_anatomy else where


def _detail(unlabeled_detail: Tensor, guide_detail: Tensor, anatomy_mask: Tensor, recipe: Recipe) -> Tensor:
    """What the autoencoder lost of both images (B, 1, 256, 512), each in its place, with a soft transition."""
    if recipe.match_statistics:
        guide_detail = match_spread(guide_detail, unlabeled_detail, image_band(anatomy_mask))
    return blend(unlabeled_detail, guide_detail, soft_band(anatomy_mask))


def predict_noise(networks: Networks, noisy: Tensor, timesteps: Tensor) -> Tensor:
    """The denoiser's noise for latents (B, C, 32, 64), in float32.

    Most of a sample's time goes here; the VAE, whose pixels are seen, keeps its float32.
    """
    with autocast(networks.device):
        noise: Tensor = networks.denoiser(noisy, timesteps)
    return noise.float()


def _for_each_distinct(network: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """`network(rows)`, computed once for equal rows that follow one another: samples come guide by guide."""
    new = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    new[1:] = (rows[1:] != rows[:-1]).flatten(1).any(dim=1)
    return network(rows[new])[new.cumsum(0) - 1]


def _stop_if(should_stop: Callable[[], bool]) -> None:
    if should_stop():
        raise Stopped


def _check_rows(guide_images: Tensor, guide_masks: Tensor, unlabeled_images: Tensor, seeds: Sequence[int]) -> None:
    shapes = {tuple(rows.shape) for rows in (guide_images, guide_masks, unlabeled_images)}
    if len(shapes) != 1 or len(seeds) != len(guide_images):
        raise ValueError(
            f"guide images are {tuple(guide_images.shape)}, masks {tuple(guide_masks.shape)}, unlabeled "
            f"images {tuple(unlabeled_images.shape)}, seeds {len(seeds)}; give as many of each, of one size"
        )
