"""Tiny real weights: a small autoencoder that starts as a codec, and a small denoiser that is not trained."""

from pathlib import Path

import torch

from models.denoiser import Denoiser, build_unet
from models.vae import Vae, build_autoencoder
from models.weights import save_denoiser, save_vae


def make_tiny_weights(folder: Path, seed: int = 0) -> Path:
    """Write weights that load in milliseconds into `folder`, whose name is theirs. Returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    channels = 4
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        autoencoder = build_autoencoder(channels, width=64)
        unet = build_unet(channels, channels=(16, 32), norm_groups=8)
        with torch.no_grad():
            unet.conv_out.weight.normal_(std=0.1)  # untrained it would predict no noise at all
    save_vae(folder, Vae(autoencoder, 8, torch.zeros(channels), torch.full((channels,), 0.5)), {})
    save_denoiser(folder, Denoiser(unet), {})
    (folder / "card.md").write_text("Tiny untrained weights for tests.\n")
    return folder
