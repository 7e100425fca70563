"""Pictures to look at while a network trains: what the VAE loses, and what the denoiser makes."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor, nn

from models.pixels import from_unit
from models.precision import autocast
from models.sampling import draw_noise, sample, timestep_pairs
from models.schedule import Schedule

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

SHEET_IMAGES = 2
START_LEVELS = (25, 100, 250, 500)
STEPS = 25
SAMPLES = 1 + len(START_LEVELS)
SAMPLE_STEPS = 50
DIFFERENCE_GAIN = 4
CROP_ZOOM = 4
HEADING = 16  # pixels


def reconstruction_sheet(images: Pixels, restored: Pixels, masks: Sequence[Mask | None]) -> Pixels:
    """Original, reconstruction and their difference, side by side, (N, H, W) uint8 each -> one picture.

    Under an image with a mask the same three around its canal, four times enlarged.
    """
    lines = []
    for image, after, mask in zip(images, restored, masks, strict=True):
        difference = np.clip(128 + DIFFERENCE_GAIN * (after.astype(np.int16) - image), 0, 255).astype(np.uint8)
        columns = {"original": image, "reconstruction": after, f"difference x {DIFFERENCE_GAIN}": difference}
        lines.append(_line(columns.items()))
        if mask is not None and mask.any():
            around = _around(mask)
            lines.append(_line((f"canal, {heading}", _enlarged(tile[around])) for heading, tile in columns.items()))
    return np.concatenate(lines)


@torch.inference_mode()
def sample_sheet(
    denoiser: nn.Module, decode: Callable[[Tensor], Tensor], clean: Tensor, schedule: Schedule, device: torch.device
) -> Pixels:
    """Lines: each of the latents `clean` (N, C, 32, 64), then noised to several levels and denoised; last, samples
    from noise alone. All by DDIM. `decode`: latents (B, C, 32, 64) -> images (B, 1, 256, 512) in [-1, 1].
    """

    def denoise(noisy: Tensor, start: int, steps: int) -> list[Pixels]:
        generators = [torch.Generator() for _ in noisy]
        pairs = timestep_pairs(start, steps)
        with autocast(device):
            latents = sample(denoiser, noisy.to(device), pairs, schedule, generators, "ddim")
        return _decoded(decode, latents.float().cpu())

    noise = draw_noise(clean.shape[1:], [torch.Generator().manual_seed(row) for row in range(len(clean))])
    columns = [("original, decoded", _decoded(decode, clean))]
    for level in START_LEVELS:
        restored = denoise(schedule.add_noise(clean, level, noise), level, STEPS)
        columns.append((f"noised to {level}, denoised", restored))
    lines = [_line((heading, tiles[row]) for heading, tiles in columns) for row in range(len(clean))]
    pure = draw_noise(clean.shape[1:], [torch.Generator().manual_seed(100 + row) for row in range(SAMPLES)])
    samples = denoise(pure, schedule.timesteps, SAMPLE_STEPS)
    lines.append(_line(("from noise alone", tile) for tile in samples))
    return np.concatenate(lines)


def _decoded(decode: Callable[[Tensor], Tensor], latents: Tensor) -> list[Pixels]:
    return [from_unit(decode(latent[None])[0, 0].float().cpu().numpy()) for latent in latents]


def _line(tiles: Iterable[tuple[str, Pixels]]) -> Pixels:
    """Tiles of one size side by side, each under its heading."""
    return np.concatenate([_headed(tile, heading) for heading, tile in tiles], axis=1)


def _headed(tile: Pixels, heading: str) -> Pixels:
    strip = Image.new("L", (tile.shape[1], HEADING))
    ImageDraw.Draw(strip).text((4, 2), heading, fill=255)
    return np.concatenate([np.asarray(strip), tile])


def _around(mask: Mask) -> tuple[slice, slice]:
    """A window of a quarter of the image's height and width around the left end of the anatomy."""
    height, width = mask.shape
    rows, columns = np.nonzero(mask[:, : width // 2] if mask[:, : width // 2].any() else mask)
    left = int(np.clip(columns.min() - 8, 0, width - width // CROP_ZOOM))
    near = rows[columns < left + width // CROP_ZOOM]
    top = int(np.clip(near.mean() - height // CROP_ZOOM // 2, 0, height - height // CROP_ZOOM))
    return slice(top, top + height // CROP_ZOOM), slice(left, left + width // CROP_ZOOM)


def _enlarged(tile: Pixels) -> Pixels:
    return tile.repeat(CROP_ZOOM, axis=0).repeat(CROP_ZOOM, axis=1)
