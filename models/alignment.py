"""Registering a guide to an unlabeled image, so that its anatomy comes to lie on the recipient's own.

Where that succeeds the blend covers the recipient's unlabeled anatomy, which would otherwise stay in the picture as a
"ghost", and every pair gives a mask of a new shape. The mask is moved with its image, so it stays true however well
the two fit.

The movement is a cubic polynomial over the image: 20 numbers, smooth by construction. They are found by Adam on the
normalised cross-correlation of the locally normalised images near the anatomy, coarse to fine, in an ever narrower
neighbourhood: first the jaw, at last the canal.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.batches import threads_of_one_core
from models.moved_masks import move_masks


@dataclass(frozen=True)
class Stage:
    """steps: of the optimiser; pixel: image pixels per pixel compared; reach: image pixels around the anatomy that
    are compared; blur: sd of the smoothing, in pixels compared."""

    steps: int
    pixel: int
    reach: int
    blur: float


STAGES = (Stage(60, 4, 40, 2.0), Stage(60, 4, 24, 1.0), Stage(60, 4, 12, 0.5), Stage(40, 2, 8, 0.5))
NORMALISATION = 6  # sd of the window of local normalisation, in sd of the blur
LEAST_VARIANCE = 4e-4  # of a window, images in [-1, 1]: below it there is only noise to amplify
STEP_SIZE = 0.02
STIFFNESS = 0.02  # weight of the squared coefficients
# By power of x and y: what a coefficient of 1 moves the border by, in half images.
REACHES = {0: 0.6, 1: 0.3, 2: 0.15, 3: 0.1}
POWERS = tuple((x, degree - x) for degree in REACHES for x in range(degree, -1, -1))


@dataclass(frozen=True)
class Aligned:
    """images: guides (B, 1, 256, 512) float32 in [-1, 1] as their recipients' anatomy lies; masks: theirs, bool.

    fit: (B,) float32, the normalised cross-correlation of guide and recipient near the anatomy after the movement, at
    most 1. On phantoms it tells how well the canals cover each other (correlation with their Dice 0.7).
    """

    images: Tensor
    masks: Tensor
    fit: Tensor


def align(guides: Tensor, masks: Tensor, unlabeled: Tensor, threads: int | None = None) -> Aligned:
    """Move guides and masks to where the unlabeled images have their anatomy.

    guides, unlabeled: (B, 1, H, W) float32 in [-1, 1]; masks: (B, 1, H, W) bool, none empty. On a CPU every row is
    registered by itself on one thread, `threads` rows at once (None: as many as torch has), so a row's result has the
    same bits in any company; on a GPU all rows at once. The result is where the input was.
    """
    if guides.is_cuda:
        return _align(guides, masks, unlabeled)
    with threads_of_one_core("align", threads) as pool:
        rows = list(pool.map(_align, *(torch.split(images, 1) for images in (guides, masks, unlabeled))))
    return Aligned(*(torch.cat([getattr(row, name) for row in rows]) for name in ("images", "masks", "fit")))


def _align(guides: Tensor, masks: Tensor, unlabeled: Tensor) -> Aligned:
    coefficients = torch.zeros(len(guides), 2, len(POWERS), device=guides.device)
    with torch.inference_mode(mode=False), torch.enable_grad():
        for stage in STAGES:
            coefficients, fit = _fitted(coefficients, guides.clone(), masks.clone(), unlabeled.clone(), stage)
    grid = _grid(coefficients, _terms(guides))
    return Aligned(
        images=F.grid_sample(guides, grid, padding_mode="border", align_corners=True),
        masks=move_masks(masks, grid, align_corners=True),
        fit=fit,
    )


def _fitted(start: Tensor, guides: Tensor, masks: Tensor, unlabeled: Tensor, stage: Stage) -> tuple[Tensor, Tensor]:
    """Coefficients (B, 2, 10) from `start` on, improved at one stage, and the fit (B,) they reach."""
    moving, fixed = (_normalised(F.avg_pool2d(images, stage.pixel), stage.blur) for images in (guides, unlabeled))
    near = _neighbourhood(masks, stage)
    terms = _terms(moving)
    coefficients = start.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([coefficients], lr=STEP_SIZE)
    for _ in range(stage.steps):
        grid = _grid(coefficients, terms)
        moved = F.grid_sample(moving, grid, padding_mode="border", align_corners=True)
        # The neighbourhood moves along, but is no way to a better fit by itself.
        fit = _correlation(moved, fixed, F.grid_sample(near, grid.detach(), align_corners=True))
        loss = (1 - fit).sum() + STIFFNESS * (coefficients**2).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return coefficients.detach(), fit.detach()


def _terms(images: Tensor) -> Tensor:
    """The polynomial's terms at every pixel of (B, 1, H, W): (10, H, W), the coefficients' reach included."""
    height, width = images.shape[-2:]
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, height, device=images.device),
        torch.linspace(-1, 1, width, device=images.device),
        indexing="ij",
    )
    return torch.stack([REACHES[p + q] * x**p * y**q for p, q in POWERS])


def _grid(coefficients: Tensor, terms: Tensor) -> Tensor:
    """Where in the guide each pixel of the recipient looks: (B, 2, 10), (10, H, W) -> (B, H, W, 2) in [-1, 1]."""
    moved = torch.einsum("bck,khw->bhwc", coefficients, terms)
    x, y = terms[1:3] / REACHES[1]
    return moved + torch.stack([x, y], dim=-1)


def _correlation(moved: Tensor, fixed: Tensor, weights: Tensor) -> Tensor:
    """(B,): of locally normalised images, so of mean zero nearly everywhere."""

    def total(values: Tensor) -> Tensor:
        return (weights * values).sum(dim=(1, 2, 3))

    return total(moved * fixed) / (total(moved**2) * total(fixed**2) + 1e-6).sqrt()


def _normalised(images: Tensor, blur: float) -> Tensor:
    """Smoothed, then each pixel in standard deviations of its neighbourhood: the look of a device is gone."""
    smooth = _gaussian(images, blur)
    window = NORMALISATION * blur
    centred = smooth - _gaussian(smooth, window)
    return centred / (_gaussian(centred**2, window) + LEAST_VARIANCE).sqrt()


def _neighbourhood(masks: Tensor, stage: Stage) -> Tensor:
    """Weights (B, 1, h, w) in [0, 1] around the anatomy, with a soft border."""
    reach = max(1, round(stage.reach / stage.pixel))
    near = F.max_pool2d(F.max_pool2d(masks.float(), stage.pixel), 2 * reach + 1, stride=1, padding=reach)
    return _gaussian(near, reach / 3)


def _gaussian(images: Tensor, sd: float) -> Tensor:
    """(B, 1, H, W) smoothed; beyond the border the border's values."""
    radius = int(3 * sd + 0.5)
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, device=images.device) / sd) ** 2)
    kernel = kernel / kernel.sum()
    across = F.conv2d(F.pad(images, (radius, radius, 0, 0), mode="replicate"), kernel.view(1, 1, 1, -1))
    return F.conv2d(F.pad(across, (0, 0, radius, radius), mode="replicate"), kernel.view(1, 1, -1, 1))
