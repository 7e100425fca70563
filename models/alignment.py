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
from typing import NamedTuple

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
LOOK_AGAIN = 10  # steps, after which the pixels that count are chosen anew
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


def align(guides: Tensor, masks: Tensor, unlabeled: Tensor) -> Aligned:
    """Move guides and masks to where the unlabeled images have their anatomy.

    guides, unlabeled: (B, 1, H, W) float32 in [-1, 1]; masks: (B, 1, H, W) bool, none empty. On a CPU every row is
    registered by itself on one thread, as many at once as torch has threads, so a row's result has the same bits in
    any company; on a GPU all rows at once. The result is where the input was.
    """
    if guides.is_cuda:
        return _align(guides, masks, unlabeled)
    with threads_of_one_core("align") as pool:
        rows = list(pool.map(_align, *(torch.split(images, 1) for images in (guides, masks, unlabeled))))
    return Aligned(*(torch.cat([getattr(row, name) for row in rows]) for name in ("images", "masks", "fit")))


def _align(guides: Tensor, masks: Tensor, unlabeled: Tensor) -> Aligned:
    with torch.inference_mode(mode=False), torch.enable_grad():
        images = guides.clone(), masks.clone(), unlabeled.clone()
        jaw = torch.zeros(len(guides), 1, 2, len(POWERS), device=guides.device)
        for view in (jaw_views := [_view(*images, stage) for stage in JAW]):
            jaw = _fitted(jaw, view)
        canal_views = [_view(*images, stage) for stage in CANAL]
        movements = torch.cat([jaw, jaw + _places(jaw[:, 0], canal_views[0])], dim=1)
        for view, kept in zip(canal_views, (KEPT, 1), strict=True):
            movements = _fitted(movements, view)
            movements, fits = _likeliest(movements, _fits(movements, view), jaw, _fits(movements, jaw_views[-1]), kept)
    grid = _grid(movements[:, 0], _terms(guides))
    grid = grid.clamp(-1, 1)  # beyond its edge the guide goes on as it ends there, and its anatomy with it
    return Aligned(
        images=F.grid_sample(guides, grid, align_corners=True),
        masks=move_masks(masks, grid, align_corners=True),
        fit=fits[:, 0],
    )


class _View(NamedTuple):
    """What a stage compares.

    terms: (10, h, w), the polynomial's; moving, fixed: (B, 1, h, w), guides and recipients without their look; near:
    (B, 1, h, w) in [0, 1], how near each pixel of the guides is to their anatomy.
    """

    stage: Stage
    terms: Tensor
    moving: Tensor
    fixed: Tensor
    near: Tensor


class _Points(NamedTuple):
    """The pixels of recipients that count: N for each movement (B, M), those that look near the guide's anatomy.

    terms: (B, M, 10, N); fixed: (B, M, N), the recipient there; moving, near: the whole guides', as in `_View`.
    """

    terms: Tensor
    moving: Tensor
    fixed: Tensor
    near: Tensor


def _fitted(start: Tensor, view: _View) -> Tensor:
    """Movements (B, M, 2, 10) from `start` on, improved at one stage."""
    movements = start.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([movements], lr=STEP_SIZE)
    for step in range(view.stage.steps):
        if step % LOOK_AGAIN == 0:
            points = _points(movements.detach(), view)
        loss = (1 - _fit(movements, points)).sum() + STIFFNESS * (movements**2).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return movements.detach()


def _fits(movements: Tensor, view: _View) -> Tensor:
    """How well the guides, moved (B, M, 2, 10), fit near their anatomy: (B, M)."""
    return _fit(movements, _points(movements, view))


def _points(movements: Tensor, view: _View) -> _Points:
    """The points of movements (B, M, 2, 10): around a canal about a fifth of all pixels.

    Of one movement there are as many as of the one that has most; those beyond its own lie outside and weigh nothing.
    """
    terms = view.terms.flatten(1)
    weights = F.grid_sample(view.near, _looks(movements, terms), align_corners=True)[:, 0]
    count = max(1, int((weights > 0).sum(dim=2).max()))
    chosen = weights.topk(count, dim=2, sorted=False).indices
    return _Points(
        terms=terms.expand(*chosen.shape[:2], -1, -1).gather(3, chosen[:, :, None].expand(-1, -1, len(terms), -1)),
        moving=view.moving,
        fixed=view.fixed.flatten(2).expand(-1, chosen.shape[1], -1).gather(2, chosen),
        near=view.near,
    )


def _fit(movements: Tensor, points: _Points) -> Tensor:
    """As `_fits`, at points chosen before, for a movement that is on its way."""
    grid = _looks(movements, points.terms)
    moved = F.grid_sample(points.moving, grid, padding_mode="border", align_corners=True)[:, 0]
    # The neighbourhood moves along, but is no way to a better fit by itself.
    return _correlation(moved, points.fixed, F.grid_sample(points.near, grid.detach(), align_corners=True)[:, 0])


def _likeliest(movements: Tensor, fits: Tensor, jaw: Tensor, jaw_fits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` likeliest of movements (B, M, 2, 10), and their fits (B, M), the likeliest first.

    Something as dark and as long as a canal is often found in the air. So it counts, too, how well the jaw still fits,
    jaw_fits (B, M), and how far the movement is from the one that fitted it, jaw (B, 1, 2, 10).
    """
    far = ((movements - jaw) ** 2).sum(dim=(2, 3))
    best = (fits + JAW_WEIGHT * jaw_fits - DISTANCE_WEIGHT * far).topk(count, dim=1).indices
    return torch.take_along_dim(movements, best[..., None, None], dim=1), fits.gather(1, best)


def _places(movements: Tensor, view: _View) -> Tensor:
    """What to add to movements (B, 2, 10), so that the halves of the anatomy come to likely places: (B, M, 2, 10).

    Left and right of its middle the anatomy is looked for in the recipient by itself, unchanged in shape; PLACES
    maxima of the correlation for each half.
    """
    grid = _grid(movements, view.terms)
    moved = F.grid_sample(view.moving, grid, padding_mode="border", align_corners=True)
    near = F.grid_sample(view.near, grid, align_corners=True)
    x = torch.linspace(-1, 1, near.shape[-1], device=near.device)
    left = x < _middle(near, x)[:, None, None, None]
    halves = [near * left, near * ~left]
    first, second = (_middle(half, x)[:, None] for half in halves)
    one, other = (_shifts(moved, view.fixed, half, view.stage.pixel) for half in halves)
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


def _view(guides: Tensor, masks: Tensor, unlabeled: Tensor, stage: Stage) -> _View:
    moving, fixed = (_normalised(F.avg_pool2d(images, stage.pixel), stage.blur) for images in (guides, unlabeled))
    return _View(stage, _terms(guides, stage.pixel), moving, fixed, _neighbourhood(masks, stage))


def _middle(weights: Tensor, x: Tensor) -> Tensor:
    """(B,): the mean x of weights (B, 1, h, w); 0 without any."""
    columns = weights.sum(dim=(1, 2))
    return (columns * x).sum(dim=1) / (columns.sum(dim=1) + 1e-6)


def _terms(images: Tensor, pixel: int = 1) -> Tensor:
    """The polynomial's terms at every `pixel` pixels of (B, 1, H, W): (10, h, w), the coefficients' reach included.

    The corners of a reduced picture count as those of the whole one, though they lie a little inside: after the last
    stage a movement goes 0.2 % too far across and 0.4 % too far down.
    """
    height, width = (side // pixel for side in images.shape[-2:])
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, height, device=images.device),
        torch.linspace(-1, 1, width, device=images.device),
        indexing="ij",
    )
    return torch.stack([REACHES[p + q] * x**p * y**q for p, q in POWERS])


def _grid(movements: Tensor, terms: Tensor) -> Tensor:
    """Where in the guide each pixel of the recipient looks: (B, 2, 10), (10, h, w) -> (B, h, w, 2) in [-1, 1]."""
    return _looks(movements, terms.flatten(1)).view(-1, *terms.shape[1:], 2)


def _looks(movements: Tensor, terms: Tensor) -> Tensor:
    """The same of some pixels: (..., 2, 10), (..., 10, N) -> (..., N, 2)."""
    stay = torch.zeros(2, len(POWERS), device=terms.device)
    stay[0, 1] = stay[1, 2] = 1 / REACHES[1]
    return ((movements + stay) @ terms).mT


def _correlation(moved: Tensor, fixed: Tensor, weights: Tensor) -> Tensor:
    """(..., N) each -> (...); of locally normalised images, so of mean zero nearly everywhere."""
    weighted = weights * moved
    both, own, others = (weighted * fixed).sum(-1), (weighted * moved).sum(-1), (weights * fixed**2).sum(-1)
    return both / (own * others + 1e-6).sqrt()


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
