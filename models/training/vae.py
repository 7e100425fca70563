"""Training of the VAE on random crops."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pixel_shuffle, pixel_unshuffle

from models.training.latents import encode
from models.training.loop import Plan, Progress, autocast, train
from models.vae import Vae, build_autoencoder

CROP = 128
PATCH = 8
KL_WEIGHT = 1e-6
Images = NDArray[np.uint8]


def train_vae(
    images: Images, plan: Plan, folder: Path, device: torch.device, show: Callable[[Progress], None]
) -> tuple[Vae, dict[str, Any]]:
    """Train an autoencoder on `images` (N, 256, 512) uint8; -> the VAE with its latents standardised, and the facts.

    About 64 images, at most an eighth, are kept for validation and never trained on.
    """
    held_out, kept = split(len(images))
    autoencoder = build_autoencoder().to(device, memory_format=torch.channels_last)

    def loss(network: nn.Module, step: int) -> Tensor:
        random = np.random.default_rng([plan.seed, step])
        crops = np.stack([draw_crop(images[kept[random.integers(len(kept))]], random) for _ in range(plan.batch)])
        batch = torch.from_numpy(crops).unsqueeze(1).to(device)  # (B, 1, 128, 128)
        generator = torch.Generator(device).manual_seed(plan.seed * 1_000_003 + step)
        with autocast(device):
            return reconstruction_loss(network, batch, generator)

    def validate(network: Any) -> dict[str, float]:
        vae = Vae(network, PATCH, torch.zeros(16), torch.ones(16)).to(device)
        return {"psnr": float(np.median([_psnr(vae, image, device) for image in images[held_out]]))}

    average, facts = train(autoencoder, loss, validate, plan, folder, show)
    mean, scale = latent_statistics(average, images[kept[:: max(1, len(kept) // 512)]], device)
    return Vae(average, PATCH, mean, scale).cpu(), {"images": len(images), "crop": CROP, **facts}


def split(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices 0 ... count - 1 -> (kept for validation, trained on)."""
    indices = np.arange(count)
    held_out = indices[:: max(8, count // 64)]
    return held_out, np.setdiff1d(indices, held_out)


def reconstruction_loss(network: Any, image: Tensor, generator: torch.Generator) -> Tensor:
    """L1 over pixels, L1 over 4x4 means, KL.

    The second term is for the canal: a faint canal is a small but coherent difference, which the first hardly sees.
    """
    posterior = network.encode(pixel_unshuffle(image, PATCH).contiguous(memory_format=torch.channels_last)).latent_dist
    decoded = network.decode(posterior.sample(generator)).sample
    error = pixel_shuffle(decoded.float(), PATCH) - image
    kl: Tensor = posterior.kl().float().mean() / image[0].numel()
    return error.abs().mean() + avg_pool2d(error, 4).abs().mean() + KL_WEIGHT * kl


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
        around = (np.roll(crop, 1, 0) + np.roll(crop, -1, 0) + np.roll(crop, 1, 1) + np.roll(crop, -1, 1)) / 4
        crop = crop + random.uniform(0, 1.5) * (crop - around)
    if random.random() < 0.25:
        crop = crop + random.normal(0, random.uniform(0, 0.02), crop.shape)
    return np.ascontiguousarray(np.clip(crop, 0, 1) * 2 - 1, dtype=np.float32)


def latent_statistics(autoencoder: Any, images: Images, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every latent channel over `images` (N, 256, 512) uint8: (C,), (C,) float32."""
    count = autoencoder.config.latent_channels
    raw = Vae(autoencoder, PATCH, torch.zeros(count), torch.ones(count)).to(device)
    latents = torch.cat([encode(raw, images[start : start + 8], device) for start in range(0, len(images), 8)])
    return latents.mean((0, 2, 3)), latents.std((0, 2, 3))


@torch.inference_mode()
def _psnr(vae: Vae, image: Images, device: torch.device) -> float:
    pixels = torch.from_numpy(np.asarray(image))[None, None].to(device).float() / 127.5 - 1
    with autocast(device):
        restored = vae.decode(vae.encode(pixels)).float().clamp(-1, 1)
    return float(-10 * torch.log10(((restored - pixels) / 2).square().mean()))
