"""Standard augmentation of labeled radiographs: affine, flip, intensity; drawn from a generator of the step's own."""

import math

import torch
from torch import Tensor
from torch.nn import functional

ROTATION_DEGREES = 10.0
SCALE = 0.15  # 0.85 ... 1.15
SHIFT = 0.08  # of the image's half size, both ways
GAMMA = 0.3  # exponent exp(-0.3) ... exp(0.3)
GAIN = 0.2
BIAS = 0.15
NOISE = 0.03


def augment(images: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images (B, 1, H, W) in [-1, 1], masks (B, H, W) bool -> the same, moved together and in another light.

    `generator` is a CPU generator; all but the grain is the same on every device.
    """
    count, _, height, width = images.shape
    grid = functional.affine_grid(
        _affine(count, height / width, generator).to(images), list(images.shape), align_corners=False
    )
    moved = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    # Bilinear and a threshold: nearest would break a line of one pixel.
    labels = functional.grid_sample(masks[:, None].to(images.dtype), grid, align_corners=False)[:, 0] >= 0.5
    return _relight(moved, generator), labels


def _affine(count: int, aspect: float, generator: torch.Generator) -> Tensor:
    """(B, 2, 3) in normalised coordinates; `aspect` is height over width, so that turns do not shear."""
    draw = torch.rand(count, 5, generator=generator) * 2 - 1
    angle = draw[:, 0] * math.radians(ROTATION_DEGREES)
    scale = 1 + draw[:, 1] * SCALE
    flip = torch.where(draw[:, 2] < 0, -1.0, 1.0)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    first = torch.stack([cos * flip, -sin * aspect, draw[:, 3] * SHIFT], dim=1)
    second = torch.stack([sin / aspect * flip, cos, draw[:, 4] * SHIFT], dim=1)
    return torch.stack([first, second], dim=1)


def _relight(images: Tensor, generator: torch.Generator) -> Tensor:
    draw = (torch.rand(len(images), 3, generator=generator) * 2 - 1).to(images)[:, :, None, None, None]
    unit = ((images + 1) / 2).clamp(0, 1) ** (draw[:, 0] * GAMMA).exp()
    # A million normal numbers a step would keep a GPU waiting for the CPU.
    own = torch.Generator(images.device).manual_seed(int(torch.randint(1 << 62, (1,), generator=generator)))
    noise = torch.randn(images.shape, generator=own, device=images.device) * NOISE
    return ((unit * 2 - 1) * (1 + draw[:, 1] * GAIN) + draw[:, 2] * BIAS + noise).clamp(-1, 1)
