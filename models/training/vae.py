"""Training of the VAE on random crops."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pixel_shuffle, pixel_unshuffle

from models.pixels import from_unit
from models.precision import autocast, memory_format
from models.quality import contrast, retention
from models.segmenter import Labeled
from models.tensors import to_images
from models.training.latents import encode
from models.training.loop import train
from models.training.plan import Plan, Progress
from models.training.ranks import Batches
from models.training.sheets import SHEET_IMAGES, reconstruction_sheet
from models.vae import Vae, build_autoencoder

CROP = 128
PATCH = 8
KL_WEIGHT = 1e-6
Images = NDArray[np.uint8]


def train_vae(
    images: Images,
    plan: Plan,
    folder: Path,
    device: torch.device,
    show: Callable[[Progress], None],
    labeled: Labeled | None = None,
    workers: int = 0,
    compile_network: bool = False,
    subject: str = "",
) -> tuple[Vae, dict[str, Any]]:
    """Train an autoencoder on `images` (N, 256, 512) uint8; -> the VAE with its latents standardised, and the facts.

    About 64 images, or every eighth of fewer than 512, are kept for validation and never trained on. `labeled` images,
    which are not among `images`, tell in figures and sheets whether the canal survives. `subject`: see `train`.
    """
    held_out, kept = split(len(images))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        autoencoder = build_autoencoder().to(device, memory_format=memory_format(device))
    if compile_network:
        autoencoder.encoder.compile()
        autoencoder.decoder.compile()

    channels = autoencoder.config.latent_channels
    batches = Batches(partial(draw_row, images, kept, channels, plan.seed), plan.batch, workers)

    def loss(network: nn.Module, step: int) -> Tensor:
        crops, noise = batches(step, device)  # (B, 1, 128, 128), (B, C, 16, 16)
        with autocast(device):
            return reconstruction_loss(network, crops, noise)

    def validate(network: Any) -> dict[str, float]:
        restored = _restored(network, images[held_out], device)
        figures = {"psnr": float(np.median([psnr(*pair) for pair in zip(restored, images[held_out], strict=True)]))}
        if labeled is not None:
            figures["canal_retention"] = canal_retention(_restored(network, labeled.images, device), labeled)
        return figures

    def draw_sheet(network: Any) -> Images:
        shown, masks = images[held_out[:SHEET_IMAGES]], [None] * SHEET_IMAGES
        if labeled is not None:
            shown, masks = (
                np.concatenate([labeled.images[:SHEET_IMAGES], shown]),
                [*labeled.masks[:SHEET_IMAGES], *masks],
            )
        return reconstruction_sheet(shown, _restored(network, shown, device), masks[: len(shown)])

    average, facts = train(autoencoder, loss, validate, plan, folder, show, draw_sheet, subject)
    mean, scale = latent_statistics(average, images[kept[:: max(1, len(kept) // 512)]], device)
    return Vae(average, PATCH, mean, scale).cpu(), {"images": len(images), "crop": CROP, **facts}


def split(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices 0 ... count - 1 -> (kept for validation, trained on)."""
    indices = np.arange(count)
    held_out = indices[:: max(8, count // 64)]
    return held_out, np.setdiff1d(indices, held_out)


def reconstruction_loss(network: Any, image: Tensor, noise: Tensor) -> Tensor:
    """L1 over pixels, L1 over 4x4 means, KL; `image` (B, 1, H, W), `noise` (B, C, H / 8, W / 8) draws the latent.

    The second term is for the canal: a faint canal is a small but coherent difference, which the first hardly sees.
    """
    posterior = network.encode(pixel_unshuffle(image, PATCH)).latent_dist
    decoded = network.decode(posterior.mean + posterior.std * noise).sample
    error = pixel_shuffle(decoded.float(), PATCH) - image
    kl: Tensor = posterior.kl().float().mean() / image[0].numel()
    return error.abs().mean() + avg_pool2d(error, 4).abs().mean() + KL_WEIGHT * kl


def draw_row(
    images: Images, rows: NDArray[np.int64], channels: int, seed: int, step: int, row: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A crop (1, 128, 128) of one of `images[rows]`, and noise (C, 16, 16) for its latent, by seed, step and row."""
    random = np.random.default_rng([seed, step, row])
    crop = draw_crop(images[rows[random.integers(len(rows))]], random)
    return crop[None], random.standard_normal((channels, CROP // PATCH, CROP // PATCH), dtype=np.float32)


def draw_crop(image: Images, random: np.random.Generator) -> NDArray[np.float32]:
    """A random crop (128, 128) in [-1, 1] of an image (256, 512) uint8, its look varied.

    Half as large, mirrored, other gamma, contrast and brightness, sharpened, noisy: the VAE must serve devices that the
    training set does not know.
    """
    reduce = 2 if random.random() < 0.25 else 1
    side = CROP * reduce
    top, left = random.integers(256 - side + 1), random.integers(512 - side + 1)
    crop = image[top : top + side, left : left + side].astype(np.float32) / 255
    crop = crop.reshape(CROP, reduce, CROP, reduce).mean((1, 3))
    if random.random() < 0.5:
        crop = crop[:, ::-1]
    if random.random() < 0.5:
        crop = crop ** np.float32(np.exp(random.normal(0, 0.3)))
        crop = (crop - 0.5) * random.uniform(0.5, 1.6) + 0.5 + random.normal(0, 0.1)
    if random.random() < 0.25:
        wider = np.pad(crop, 1, mode="edge")
        around = (wider[:-2, 1:-1] + wider[2:, 1:-1] + wider[1:-1, :-2] + wider[1:-1, 2:]) / 4
        crop = crop + random.uniform(0, 1.5) * (crop - around)
    if random.random() < 0.25:
        crop = crop + random.normal(0, random.uniform(0, 0.02), crop.shape)
    return np.ascontiguousarray(np.clip(crop, 0, 1) * 2 - 1, dtype=np.float32)


def latent_statistics(autoencoder: Any, images: Images, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every latent channel over `images` (N, 256, 512) uint8: (C,), (C,) float32."""
    raw = _raw(autoencoder, device)
    latents = torch.cat([encode(raw, images[start : start + 8], device) for start in range(0, len(images), 8)])
    return latents.mean((0, 2, 3)), latents.std((0, 2, 3))


@torch.inference_mode()
def _restored(autoencoder: Any, images: Images, device: torch.device) -> Images:
    """Images (N, 256, 512) uint8 after a round trip, one at a time."""
    vae = _raw(autoencoder, device)
    restored = []
    for image in images:
        with autocast(device):
            decoded = vae.decode(vae.encode(to_images(image[None], device)))
        restored.append(from_unit(decoded[0, 0].float().cpu().numpy()))
    return np.stack(restored)


def _raw(autoencoder: Any, device: torch.device) -> Vae:
    """Its latents as they are."""
    count = autoencoder.config.latent_channels
    return Vae(autoencoder, PATCH, torch.zeros(count), torch.ones(count)).to(device)


def psnr(restored: Images, image: Images) -> float:
    """Peak signal-to-noise ratio, dB, of images (H, W) uint8."""
    error = restored.astype(np.float64) - image
    return float(10 * np.log10(255**2 / max(float(np.mean(error**2)), 1e-12)))


def canal_retention(restored: Images, labeled: Labeled) -> float:
    """The median share of the canal's contrast left in `restored` (N, 256, 512) uint8; nan where none had any."""
    kept = [
        retention(contrast(after, mask), contrast(image, mask))
        for after, image, mask in zip(restored, labeled.images, labeled.masks, strict=True)
    ]
    return float(np.median([share for share in kept if share is not None] or [np.nan]))
