"""The variational autoencoder: radiographs to latents of an eighth of their size and back (paper section 2.1)."""

from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from models.blending import LATENT_PIXEL

LATENT_SIZE = (32, 64)  # of a radiograph of 256 x 512
NORM_GROUPS = 8
CARRIER = 4.0  # constant channels of this size dominate a group's variance, so its normalisation is nearly linear


class Vae(nn.Module):
    """An `AutoencoderKL` on patches, whose latents are standardised per channel.

    Noise levels only mean something for latents of unit scale, so the mean and the scale of every channel over the
    training set travel with the weights. With `patch_size` 8 the 64 pixels of a patch are the channels of one position
    and no convolution runs at full resolution; with 1 the autoencoder sees the image itself.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, autoencoder: AutoencoderKL, patch_size: int, mean: Tensor, scale: Tensor) -> None:
        """`mean` and `scale` (C,) of the raw posterior means over the training set.

        Raises ValueError for an autoencoder of colours, for latents that have not an eighth of the image's size, for
        another number of channels, and for a scale that is not above 0.
        """
        super().__init__()
        channels = autoencoder.config.in_channels
        shrink = patch_size * 2 ** (len(autoencoder.config.block_out_channels) - 1)
        if (channels, shrink) != (patch_size**2, LATENT_PIXEL):
            raise ValueError(
                f"the autoencoder takes {channels} channels, and its latents have 1/{shrink} of the image's size; "
                f"with patches of {patch_size} x {patch_size} give one of {patch_size**2} channels and 1/{LATENT_PIXEL}"
            )
        count = autoencoder.config.latent_channels
        if not mean.shape == scale.shape == (count,):
            raise ValueError(
                f"mean and scale of the latents are {(*mean.shape,)} and {(*scale.shape,)}; give {count} numbers each"
            )
        if not (scale > 0).all():  # all that is encoded would be nan, and no pool image like any guide
            raise ValueError(f"the scale of the latents is {scale.tolist()}; give one above 0 for every channel")
        self.autoencoder = autoencoder
        self.patch_size = patch_size
        self.register_buffer("mean", mean.view(1, -1, 1, 1).float())
        self.register_buffer("scale", scale.view(1, -1, 1, 1).float())

    def encode(self, image: Tensor) -> Tensor:
        """Image (B, 1, 256, 512) in [-1, 1] -> standardised posterior mean (B, C, 32, 64), never a sample of it."""
        mean: Tensor = self.autoencoder.encode(pixel_unshuffle(image, self.patch_size)).latent_dist.mode()
        return (mean - self.mean) / self.scale

    def decode(self, latent: Tensor) -> Tensor:
        """Standardised latent (B, C, 32, 64) -> image (B, 1, 256, 512), in [-1, 1] but for over- and undershoot."""
        patches: Tensor = self.autoencoder.decode(latent * self.scale + self.mean).sample
        return pixel_shuffle(patches, self.patch_size)


def build_autoencoder(latent_channels: int = 16, width: int = 128) -> AutoencoderKL:
    """An untrained autoencoder of 8x8 patches, without attention so that it can train on crops.

    It starts as a codec that halves the resolution: the path around the zero-initialised residual branches carries the
    4x4 means of 2x2 pixels of a patch into the 16 latent channels and back. Training adds what that loses.
    """
    autoencoder = AutoencoderKL(
        in_channels=64,
        out_channels=64,
        down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",),
        block_out_channels=(width,),
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=NORM_GROUPS,
        mid_block_add_attention=False,
        sample_size=list(LATENT_SIZE),
    )
    with torch.no_grad():
        for module in autoencoder.modules():
            if type(module).__name__ == "ResnetBlock2D":
                _zero(module.conv2)
        for conv in (autoencoder.quant_conv, autoencoder.post_quant_conv):
            nn.init.dirac_(conv.weight)
            nn.init.zeros_(conv.bias)
        _start_encoder(autoencoder.encoder, latent_channels)
        _start_decoder(autoencoder.decoder, latent_channels)
    return autoencoder


def _start_encoder(encoder: Any, latent_channels: int) -> None:
    halved = nn.functional.avg_pool2d(torch.eye(64).view(64, 1, 8, 8), 2).view(64, 16).T  # (16, 64)
    values = halved[:latent_channels]
    positions = _carry_linearly(encoder.conv_in, values)
    _zero(encoder.conv_out)
    nn.init.constant_(encoder.conv_out.bias[latent_channels:], -7.0)  # log variance: a posterior of sd 0.03
    _read_linearly(encoder.conv_out, positions, torch.eye(len(values)))


def _start_decoder(decoder: Any, latent_channels: int) -> None:
    values = torch.eye(latent_channels)[:16]
    positions = _carry_linearly(decoder.conv_in, values)
    doubled = torch.eye(16).view(16, 4, 4).repeat_interleave(2, 1).repeat_interleave(2, 2).view(16, 64)
    _zero(decoder.conv_out)
    _read_linearly(decoder.conv_out, positions, doubled[: len(values)].T)


def _carry_linearly(conv: Any, values: Tensor) -> Tensor:
    """Put each row of `values` (N, in) into a pair of output channels x, -x beside constants; -> their positions (N,).

    A later normalisation and SiLU leave them intact but for a gain: silu(x) - silu(-x) = x.
    """
    group_width = conv.out_channels // NORM_GROUPS
    index = torch.arange(len(values))
    positions: Tensor = index % NORM_GROUPS * group_width + index // NORM_GROUPS * 2
    for sign, channels in ((1, positions), (-1, positions + 1)):
        conv.weight[channels] = 0
        conv.weight[channels, :, 1, 1] = sign * values
        conv.bias[channels] = 0
    for sign in (1, -1):
        channels = torch.arange(NORM_GROUPS) * group_width + group_width - (1 if sign > 0 else 2)
        conv.weight[channels] = 0
        conv.bias[channels] = sign * CARRIER
    return positions


def _read_linearly(conv: Any, positions: Tensor, values: Tensor) -> None:
    """Make output o the sum over n of `values` (O, N) [o, n] times the value that was carried at `positions[n]`."""
    gain = CARRIER * (2 / (conv.in_channels // NORM_GROUPS)) ** 0.5
    conv.weight[: len(values), positions, 1, 1] = gain * values
    conv.weight[: len(values), positions + 1, 1, 1] = -gain * values


def _zero(conv: Any) -> None:
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
