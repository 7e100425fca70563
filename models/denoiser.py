"""The unconditional denoiser: the noise in a noisy latent (paper section 2.1; a U-Net after Medfusion)."""

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from models.vae import LATENT_SIZE


class Denoiser(nn.Module):
    """A `UNet2DModel` that predicts the noise; it counts noise levels from 1, diffusers from 0."""

    def __init__(self, unet: UNet2DModel) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """Noisy latents (B, C, 32, 64) at noise levels (B,) int64 in 1 ... 1000 -> predicted noise (B, C, 32, 64)."""
        noise: Tensor = self.unet(noisy, timesteps - 1).sample
        return noise


def build_unet(
    latent_channels: int = 16, channels: tuple[int, ...] = (64, 128, 192), norm_groups: int = 16
) -> UNet2DModel:
    """An untrained U-Net without attention, as Medfusion's; it starts by predicting no noise at all."""
    unet = UNet2DModel(
        sample_size=LATENT_SIZE,
        in_channels=latent_channels,
        out_channels=latent_channels,
        down_block_types=("DownBlock2D",) * len(channels),
        up_block_types=("UpBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=1,
        norm_num_groups=norm_groups,
        add_attention=False,
    )
    with torch.no_grad():
        nn.init.zeros_(unet.conv_out.weight)
        nn.init.zeros_(unet.conv_out.bias)
    return unet
