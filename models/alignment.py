"""Registering a guide to an unlabeled image, so that its anatomy comes to lie on the recipient's own.

Where that succeeds the blend covers the recipient's unlabeled anatomy, which would otherwise stay in the picture as a
"ghost", and every pair gives a mask of a new shape. The mask is moved with its image, so it stays true however well
the two fit.

The movement is a cubic polynomial over the image: 20 numbers, smooth by construction. They are found by Adam on the
normalised cross-correlation of the locally normalised images near the anatomy, coarse to fine, in an ever narrower
neighbourhood: first the jaw, at last the canal. A thin canal is seen by a descent only from within its own width, and
teeth look alike from one to the next; so once the jaw fits, either half of the anatomy is looked for wherever it may
be, by template matching, and the last stages start from every pair of likely places. Of all that they find the
likeliest wins, by its fit, the jaw's, and how far it had to go: what looks like a canal may lie in the air.
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


JAW = (Stage(60, 4, 40, 2.0), Stage(60, 4, 24, 1.0))
CANAL = (Stage(60, 4, 8, 0.5), Stage(60, 2, 8, 0.5))
SEARCH = (40, 32)  # image pixels up and down, left and right
PLACES = 3  # of either half that are tried
KEPT = 3  # movements that go on to the last stage
JAW_WEIGHT = 0.25  # of the jaw's fit, beside the canal's, when the likeliest movement is chosen
DISTANCE_WEIGHT = 0.05  # of the squared distance from the movement that fitted the jaw
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
    with torch.inference_mode(mode=False), torch.enable_grad():
        images = guides.clone(), masks.clone(), unlabeled.clone()
        movements = torch.zeros(len(guides), 1, 2, len(POWERS), device=guides.device)
        for stage in JAW:
            movements, _ = _fitted(movements, *images, stage)
        jaw, near_jaw = movements, (_terms(guides, JAW[-1].pixel), *_compared(*images, JAW[-1]))
        movements = torch.cat([jaw, jaw + _places(jaw[:, 0], *images, CANAL[0])], dim=1)
        for stage, kept in zip(CANAL, (KEPT, 1), strict=True):
            movements, fit = _fitted(movements, *images, stage)
            movements, fit = _likeliest(movements, fit, jaw, _fit(movements, *near_jaw), kept)
    grid = _grid(movements[:, 0], _terms(guides))
    return Aligned(
        images=F.grid_sample(guides, grid, padding_mode="border", align_corners=True),
        masks=move_masks(masks, grid, align_corners=True),
        fit=fit[:, 0],
    )


def _fitted(start: Tensor, guides: Tensor, masks: Tensor, unlabeled: Tensor, stage: Stage) -> tuple[Tensor, Tensor]:
    """Movements (B, M, 2, 10) from `start` on, improved at one stage, and their fits (B, M)."""
    compared = _compared(guides, masks, unlabeled, stage)
    terms = _terms(guides, stage.pixel)
    movements = start.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([movements], lr=STEP_SIZE)
    for _ in range(stage.steps):
        fit = _fit(movements, terms, *compared)
        loss = (1 - fit).sum() + STIFFNESS * (movements**2).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return movements.detach(), fit.detach()


def _fit(movements: Tensor, terms: Tensor, moving: Tensor, fixed: Tensor, near: Tensor) -> Tensor:
    """How well the guides, moved, fit near their anatomy: (B, M, 2, 10) and what `_compared` gives -> (B, M)."""
    count = movements.shape[1]
    moving, fixed, near = (part.repeat_interleave(count, dim=0) for part in (moving, fixed, near))
    grid = _grid(movements.flatten(0, 1), terms)
    moved = F.grid_sample(moving, grid, padding_mode="border", align_corners=True)
    # The neighbourhood moves along, but is no way to a better fit by itself.
    fit = _correlation(moved, fixed, F.grid_sample(near, grid.detach(), align_corners=True))
    return fit.view(-1, count)


def _likeliest(movements: Tensor, fits: Tensor, jaw: Tensor, jaw_fits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` likeliest of movements (B, M, 2, 10), and their fits (B, M), the likeliest first.

    Something as dark and as long as a canal is often found in the air. So it counts, too, how well the jaw still fits,
    jaw_fits (B, M), and how far the movement is from the one that fitted it, jaw (B, 1, 2, 10).
    """
    far = ((movements - jaw) ** 2).sum(dim=(2, 3))
    best = (fits + JAW_WEIGHT * jaw_fits - DISTANCE_WEIGHT * far).topk(count, dim=1).indices
    return torch.take_along_dim(movements, best[..., None, None], dim=1), fits.gather(1, best)


def _places(movements: Tensor, guides: Tensor, masks: Tensor, unlabeled: Tensor, stage: Stage) -> Tensor:
    """What to add to movements (B, 2, 10), so that the halves of the anatomy come to likely places: (B, M, 2, 10).

    Left and right of its middle the anatomy is looked for in the recipient by itself, unchanged in shape; PLACES
    maxima of the correlation for each half.
    """
    moving, fixed, near = _compared(guides, masks, unlabeled, stage)
    grid = _grid(movements, _terms(guides, stage.pixel))
    moved = F.grid_sample(moving, grid, padding_mode="border", align_corners=True)
    near = F.grid_sample(near, grid, align_corners=True)
    x = torch.linspace(-1, 1, near.shape[-1], device=near.device)
    left = x < _middle(near, x)[:, None, None, None]
    halves = [near * left, near * ~left]
    first, second = (_middle(half, x)[:, None] for half in halves)
    one, other = (_shifts(moved, fixed, half, stage.pixel) for half in halves)
    one, other = one.repeat_interleave(PLACES, dim=1), other.repeat(1, PLACES, 1)  # every pair of them
    slope = (other - one) / (second - first).clamp(min=0.1)[..., None]
    added = torch.zeros(*one.shape, len(POWERS), device=near.device)
    added[..., 0] = (one - slope * first[..., None]) / REACHES[0]
    added[..., 1] = slope / REACHES[1]
    return -added  # a grid says where to look, and what is to come from there looks back


def _shifts(moved: Tensor, fixed: Tensor, weights: Tensor, pixel: int) -> Tensor:
    """The likeliest movements of what lies under the weights: (B, PLACES, 2), x and y in half images."""
    height, width = moved.shape[-2:]
    up, left = (reach // pixel for reach in SEARCH)
    around = F.pad(fixed, (left, left, up, up), mode="replicate").transpose(0, 1)

    def slid(values: Tensor, template: Tensor) -> Tensor:
        return F.conv2d(values, template, groups=len(template)).transpose(0, 1)

    energy = slid(around**2, weights) * (weights * moved**2).sum(dim=(2, 3), keepdim=True)
    correlation = slid(around, weights * moved) / (energy + 1e-6).sqrt()
    peaks = torch.where(correlation == F.max_pool2d(correlation, 3, 1, 1), correlation, -2.0)
    found = peaks.flatten(1).topk(PLACES, dim=1).indices
    row, column = found // correlation.shape[-1], found % correlation.shape[-1]
    return torch.stack([(column - left) * (2 / (width - 1)), (row - up) * (2 / (height - 1))], dim=-1)


def _compared(guides: Tensor, masks: Tensor, unlabeled: Tensor, stage: Stage) -> tuple[Tensor, Tensor, Tensor]:
    """What a stage compares: guides and recipients without their look (B, 1, h, w), and where, weights in [0, 1]."""
    moving, fixed = (_normalised(F.avg_pool2d(images, stage.pixel), stage.blur) for images in (guides, unlabeled))
    return moving, fixed, _neighbourhood(masks, stage)


def _middle(weights: Tensor, x: Tensor) -> Tensor:
    """(B,): the mean x of weights (B, 1, h, w); 0 without any."""
    columns = weights.sum(dim=(1, 2))
    return (columns * x).sum(dim=1) / (columns.sum(dim=1) + 1e-6)


def _terms(images: Tensor, pixel: int = 1) -> Tensor:
    """The polynomial's terms at every `pixel` pixels of (B, 1, H, W): (10, h, w), the coefficients' reach included."""
    height, width = (side // pixel for side in images.shape[-2:])
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
