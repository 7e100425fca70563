"""Standard augmentation of labeled radiographs: affine, flip, intensity; drawn from a generator of the step's own."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from models.moved_masks import move_masks


@dataclass(frozen=True)
class Reach:
    """How far an image is moved, both ways: degrees, share of its size, share of its half size."""

    rotation_degrees: float = 10.0
    scale: float = 0.15
    shift: float = 0.08


STANDARD = Reach()
WIDE = Reach(scale=0.3, shift=0.25)  # for large structures, which the edge may cut
GAMMA = 0.3  # exponent exp(-0.3) ... exp(0.3)
GAIN = 0.2
BIAS = 0.15
NOISE = 0.03


def augment(
    images: Tensor, masks: Tensor, generator: torch.Generator, reach: Reach = STANDARD
) -> tuple[Tensor, Tensor]:
    """Images (B, 1, H, W) in [-1, 1], masks (B, H, W) bool -> the same, moved together and in another light.

    `generator` is a CPU generator; all but the grain is the same on every device.
    """
    count, _, height, width = images.shape
    grid = functional.affine_grid(
        _affine(count, height / width, generator, reach).to(images), list(images.shape), align_corners=False
    )
    # Beyond the edge the image goes on and the mask does not, on purpose: docs/decisions.md.
    moved = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return _relight(moved, generator), move_masks(masks[:, None], grid, align_corners=False)[:, 0]


def _affine(count: int, aspect: float, generator: torch.Generator, reach: Reach) -> Tensor:
    """(B, 2, 3) in normalised coordinates; `aspect` is height over width, so that turns do not shear."""
    draw = torch.rand(count, 5, generator=generator) * 2 - 1
    angle = draw[:, 0] * math.radians(reach.rotation_degrees)
    scale = 1 + draw[:, 1] * reach.scale
    flip = torch.where(draw[:, 2] < 0, -1.0, 1.0)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    first = torch.stack([cos * flip, -sin * aspect, draw[:, 3] * reach.shift], dim=1)
    second = torch.stack([sin / aspect * flip, cos, draw[:, 4] * reach.shift], dim=1)
    return torch.stack([first, second], dim=1)


def _relight(images: Tensor, generator: torch.Generator) -> Tensor:
    draw = (torch.rand(len(images), 3, generator=generator) * 2 - 1).to(images)[:, :, None, None, None]
    unit = ((images + 1) / 2).clamp(0, 1) ** (draw[:, 0] * GAMMA).exp()
    # A million normal numbers a step would keep a GPU waiting for the CPU.
    own = torch.Generator(images.device).manual_seed(int(torch.randint(1 << 62, (1,), generator=generator)))
    noise = torch.randn(images.shape, generator=own, device=images.device) * NOISE
    return ((unit * 2 - 1) * (1 + draw[:, 1] * GAIN) + draw[:, 2] * BIAS + noise).clamp(-1, 1)
