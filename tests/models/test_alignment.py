"""models/alignment.py and moved_guides.py: a guide comes to lie on its recipient's anatomy, its mask with it."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from models.alignment import CANAL, POWERS, Aligned, _fit, _fits, _grid, _places, _points, _terms, _view, align
from models.moved_guides import move_guides
from models.moved_masks import move_masks
from models.phantoms import LOOKS, Phantom, nth_phantom, phantoms
from models.tensors import to_images
from tests.threads import threads

PAIRS = ((0, 2), (0, 3), (0, 5), (1, 4), (1, 6), (1, 7))  # guide and recipient
CPU = torch.device("cpu")

Rows = tuple[Tensor, Tensor, Tensor]


@pytest.fixture(scope="module")
def radiographs() -> list[Phantom]:
    return list(phantoms(seed=900, count=8))


@pytest.fixture(scope="module")
def rows(radiographs: list[Phantom]) -> Rows:
    """Guides, their masks and recipients: another patient, another device."""
    guides, recipients = zip(*((radiographs[g], radiographs[r]) for g, r in PAIRS), strict=True)
    return images_of(*guides), masks_of(*guides), images_of(*recipients)


@pytest.fixture(scope="module")
def aligned(rows: Rows) -> Aligned:
    with threads(2):
        return align(*rows)


def images_of(*chosen: Phantom) -> Tensor:
    return to_images(np.stack([phantom.image for phantom in chosen]), CPU)


def masks_of(*chosen: Phantom) -> Tensor:
    return torch.from_numpy(np.stack([phantom.mask for phantom in chosen]))[:, None]


def dice(first: Tensor, second: Tensor) -> float:
    """Mean over rows (B, 1, H, W)."""
    both = (first & second).sum(dim=(1, 2, 3))
    return float((2 * both / (first.sum(dim=(1, 2, 3)) + second.sum(dim=(1, 2, 3)))).mean())


def moved_by(images: Tensor, turn: float, scale: float, right: float, down: float) -> Tensor:
    """Turned (radians) and scaled about the centre, moved by shares of half an image."""
    ratio = images.shape[-1] / images.shape[-2]
    cos, sin = np.cos(turn) / scale, np.sin(turn) / scale
    theta = torch.tensor([[cos, -sin / ratio, -right], [sin * ratio, cos, -down]], dtype=torch.float32)
    grid = F.affine_grid(theta.expand(len(images), 2, 3), list(images.shape), align_corners=True)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=True)


def test_a_moved_mask_covers_much_more_of_the_recipients_own_canal(
    radiographs: list[Phantom], rows: Rows, aligned: Aligned
) -> None:
    truth = masks_of(*(radiographs[recipient] for _, recipient in PAIRS))
    before, after = dice(rows[1], truth), dice(aligned.masks, truth)
    assert after > before + 0.4, f"{before:.3f} before, {after:.3f} after"


def test_the_fit_is_that_of_what_comes_out(rows: Rows, aligned: Aligned) -> None:
    moved = _view(aligned.images, aligned.masks, rows[2], CANAL[-1])
    found = _fits(torch.zeros(len(PAIRS), 1, 2, len(POWERS)), moved)[:, 0]
    assert aligned.fit.tolist() == pytest.approx(found.tolist(), abs=0.1)  # before: between -0.1 and 0.1


def test_what_comes_out_is_as_what_went_in(rows: Rows, aligned: Aligned) -> None:
    assert (aligned.images.shape, aligned.images.dtype) == (rows[0].shape, torch.float32)
    assert (aligned.masks.shape, aligned.masks.dtype) == (rows[1].shape, torch.bool)
    assert (aligned.fit.shape, aligned.fit.dtype) == ((len(PAIRS),), torch.float32)
    assert float(aligned.images.min()) >= -1 and float(aligned.images.max()) <= 1


def test_a_rows_bits_do_not_depend_on_its_company_or_on_threads(rows: Rows, aligned: Aligned) -> None:
    with threads(1):
        alone = align(*(part[4:5] for part in rows))
    assert torch.equal(alone.images, aligned.images[4:5])
    assert torch.equal(alone.masks, aligned.masks[4:5])
    assert torch.equal(alone.fit, aligned.fit[4:5])


def test_a_known_movement_is_found_again(radiographs: list[Phantom]) -> None:
    image, mask = images_of(radiographs[0]), masks_of(radiographs[0])
    movement = {"turn": 0.04, "scale": 1.05, "right": 0.03, "down": -0.08}
    truth = moved_by(mask.float(), **movement) >= 0.5
    assert dice(mask, truth) < 0.5
    assert dice(align(image, mask, moved_by(image, **movement)).masks, truth) > 0.8


def test_a_canal_that_lies_elsewhere_in_the_same_jaw_is_found(radiographs: list[Phantom]) -> None:
    """Ten pixels lower, twice its width: a descent from where the jaw fits ends on the bone in between."""
    image, mask = radiographs[0].image, radiographs[0].mask
    truth = np.roll(mask, 10, axis=0)
    bone = np.where(mask, np.roll(image, 12, axis=0), image)
    recipient = np.where(truth, np.roll(image, 10, axis=0), bone)
    _, masks, _ = move_guides(image[None], mask[None], recipient[None], CPU)
    assert dice(torch.from_numpy(masks)[:, None], torch.from_numpy(truth)[None, None]) > 0.8


def test_one_of_the_starts_goes_through_the_places_of_both_halves(radiographs: list[Phantom]) -> None:
    """One canal lies higher, the other lower. It is a start, not yet the end: such a jaw is unlikely."""

    def moved(picture: NDArray[Any], pixels: int) -> NDArray[Any]:
        """The left half up, the right half down."""
        return np.hstack([np.roll(picture[:, :256], -pixels, axis=0), np.roll(picture[:, 256:], pixels, axis=0)])

    image, mask = radiographs[4].image, radiographs[4].mask
    truth = moved(mask, 10)
    recipient = np.where(truth, moved(image, 10), np.where(mask, moved(image, 12), image))
    guide, masks, unlabeled = (
        to_images(image[None], CPU),
        torch.from_numpy(mask)[None, None],
        to_images(recipient[None], CPU),
    )
    starts = _places(torch.zeros(1, 2, len(POWERS)), _view(guide, masks, unlabeled, CANAL[0]))[0]
    moves = (move_masks(masks, _grid(start[None], _terms(guide, 1)), align_corners=True) for start in starts)
    assert max(dice(one, torch.from_numpy(truth)[None, None]) for one in moves) > 0.6


def test_the_pixels_that_are_left_out_weigh_nothing(rows: Rows) -> None:
    movements = 0.2 * torch.randn(2, 3, 2, len(POWERS), generator=torch.Generator().manual_seed(0))
    view = _view(*(part[::3] for part in rows), CANAL[0])
    points = _points(movements, view)
    assert points.fixed.shape[-1] < 0.4 * view.fixed[0].numel()
    moving, fixed, near = (part.repeat_interleave(3, dim=0) for part in (view.moving, view.fixed, view.near))
    grid = torch.cat([_grid(some, view.terms) for some in movements])
    moved = F.grid_sample(moving, grid, padding_mode="border", align_corners=True)
    weights = F.grid_sample(near, grid, align_corners=True)

    def over_all(values: Tensor) -> Tensor:
        return (weights * values).double().sum(dim=(1, 2, 3))

    fit = over_all(moved * fixed) / (over_all(moved**2) * over_all(fixed**2)).sqrt()
    assert _fit(movements, points).flatten().tolist() == pytest.approx(fit.tolist(), abs=1e-5)


def test_a_guide_stays_where_it_is_on_its_own_picture(radiographs: list[Phantom]) -> None:
    image, mask = images_of(radiographs[0]), masks_of(radiographs[0])
    found = align(image, mask, image)
    assert dice(found.masks, mask) > 0.95
    assert float(found.fit) > 0.95


def test_image_and_mask_are_moved_together(rows: Rows) -> None:
    """The mask as a picture of itself: what is bright in it afterwards is the moved mask, but for its corners."""
    mask = rows[1][:1]
    found = align(mask.float() * 2 - 1, mask, rows[2][:1])
    assert not torch.equal(found.masks, mask)
    bright = found.images >= 0
    assert found.masks[bright].all()
    assert found.masks.sum() <= bright.sum() * 1.01


def test_anatomy_that_the_guides_edge_cuts_is_labeled_as_far_as_it_is_seen() -> None:
    """A mask as a picture of itself, in a recipient where it reaches further: there the edge's pixels are repeated."""
    mask = np.zeros((256, 512), bool)
    mask[100:150, :200] = mask[60:190, 150:200] = True
    recipient = np.pad(mask, ((0, 0), (20, 0)), mode="edge")[:, :512]
    guide, recipient = mask * np.uint8(255), recipient * np.uint8(255)
    images, masks, _ = move_guides(guide[None], mask[None], recipient[None], CPU)
    bright = images >= 128
    assert bright[0, 120, 0] and np.count_nonzero(masks) > np.count_nonzero(mask) + 500
    assert np.count_nonzero(masks != bright) < 30


def test_a_guide_whose_anatomy_would_leave_the_picture_stays_where_it_was(radiographs: list[Phantom]) -> None:
    image, mask = radiographs[0].image, np.zeros((256, 512), bool)
    mask[150:153, 0:3] = True
    recipient = np.roll(image, -12, axis=1)
    images, masks, fits = move_guides(
        np.stack([image, image]), np.stack([mask, radiographs[0].mask]), np.stack([recipient, recipient]), CPU
    )
    assert fits[0] is None and fits[1] is not None
    assert (masks[0] == mask).all() and (images[0] == image).all()
    assert masks[1].any() and (masks[1] != radiographs[0].mask).any()
    assert (images.dtype, masks.dtype) == (np.uint8, bool)


def test_a_canal_is_not_taken_to_what_resembles_it_above_the_jaw() -> None:
    """The recipient's own canals are hardly seen; the gap between its jaws is as dark and as long as one."""
    guide, recipient = nth_phantom(900_002, 0, LOOKS), nth_phantom(900_001, 38, LOOKS)
    _, masks, _ = move_guides(guide.image[None], guide.mask[None], recipient.image[None], CPU)
    for half in (slice(0, 256), slice(256, 512)):
        height, own = (np.nonzero(mask[:, half])[0].mean() for mask in (masks[0], recipient.mask))
        assert abs(height - own) < 12
