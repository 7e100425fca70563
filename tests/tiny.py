"""Tiny real weights: a small autoencoder that starts as a codec, and a small denoiser that is not trained."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DModel

from models.denoiser import Denoiser, build_unet
from models.vae import Vae, build_autoencoder
from models.weights import save_denoiser, save_vae

CHANNELS = 4


def tiny_autoencoder() -> AutoencoderKL:
    return build_autoencoder(CHANNELS, width=32)


def tiny_unet(channels: int = CHANNELS) -> UNet2DModel:
    return build_unet(channels, channels=(8, 16), norm_groups=8)


def make_tiny_weights(folder: Path, seed: int = 0) -> Path:
    """Write weights that load in milliseconds into `folder`, whose name is theirs. Returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        autoencoder, unet = tiny_autoencoder(), tiny_unet()
        with torch.no_grad():
            unet.conv_out.weight.normal_(std=0.1)  # untrained it would predict no noise at all
    save_vae(folder, Vae(autoencoder, 8, torch.zeros(CHANNELS), torch.full((CHANNELS,), 0.5)), {})
    save_denoiser(folder, Denoiser(unet), {})
    (folder / "card.md").write_text("Tiny untrained weights for tests.\n")
    return folder
