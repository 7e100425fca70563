"""models/training/augmentation.py: labels stay true, whatever is done to the images."""

import numpy as np
import pytest
import torch
from scipy.ndimage import label
from torch import Tensor

from models.phantoms import phantoms
from models.tensors import to_images
from models.training.augmentation import WIDE, Reach, augment

HEIGHT, WIDTH = 256, 512
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def radii(mask: Tensor) -> np.ndarray:
    """The two half axes of an ellipse, in pixels."""
    return 2 * np.sqrt(np.linalg.eigvalsh(np.cov(np.argwhere(mask.numpy()).T)))


def test_what_is_turned_and_scaled_keeps_its_shape_in_an_image_that_is_not_square() -> None:
    disc = torch.from_numpy((ROWS - 128) ** 2 + (COLUMNS - 256) ** 2 < 60**2).expand(16, -1, -1)
    reach = Reach(rotation_degrees=30, scale=0.3, shift=0.1)
    _, masks = augment(torch.zeros(16, 1, HEIGHT, WIDTH), disc, drawn(0), reach)
    found = np.array([radii(mask) for mask in masks])
    assert found[:, 1] == pytest.approx(found[:, 0], rel=0.02)
    assert 60 / 1.3 - 1 < found.min() < 50 and 70 < found.max() < 60 / 0.7 + 1


def test_an_image_is_shifted_across_and_down_independently_by_so_much_of_half_its_size_at_most() -> None:
    disc = torch.from_numpy((ROWS - 128) ** 2 + (COLUMNS - 256) ** 2 < 30**2).expand(40, -1, -1)
    reach = Reach(rotation_degrees=0, scale=0, shift=0.2)
    _, masks = augment(torch.zeros(40, 1, HEIGHT, WIDTH), disc, drawn(4), reach)
    down, across = np.array([np.argwhere(mask.numpy()).mean(0) - (128, 256) for mask in masks]).T
    for shifts, half in ((down, HEIGHT / 2), (across, WIDTH / 2)):
        assert 0.15 * half < shifts.max() < 0.2 * half + 1 and -0.2 * half - 1 < shifts.min() < -0.15 * half
    assert abs(np.corrcoef(down, across)[0, 1]) < 0.4


def test_a_canal_stays_in_as_many_pieces_as_it_was() -> None:
    made = list(phantoms(52, 12))
    masks = torch.from_numpy(np.stack([phantom.mask for phantom in made]))
    images = to_images(np.stack([phantom.image for phantom in made]), torch.device("cpu"))
    _, moved = augment(images, masks, drawn(1))
    pieces = [[label(mask, np.ones((3, 3)))[1] for mask in part.numpy()] for part in (masks, moved)]
    assert pieces[0] == pieces[1]


def test_half_of_the_images_are_mirrored_and_their_masks_with_them() -> None:
    left = torch.from_numpy((ROWS - 128) ** 2 + (COLUMNS - 120) ** 2 < 30**2).expand(40, -1, -1)
    images, masks = augment(left[:, None] * 2.0 - 1, left, drawn(2))
    on_the_right = masks[:, :, WIDTH // 2 :].any(dim=(1, 2))
    assert 12 <= int(on_the_right.sum()) <= 28
    for image, mask in zip(images[:, 0], masks, strict=True):
        assert float(image[mask].mean()) > float(image[~mask].mean()) + 1


def test_the_generator_decides_all_and_every_image_has_its_own_light() -> None:
    image = to_images(next(phantoms(53, 1)).image[None], torch.device("cpu")).expand(4, -1, -1, -1)
    masks = torch.zeros(4, HEIGHT, WIDTH, dtype=torch.bool)
    first, again, other = (augment(image, masks, drawn(seed), WIDE)[0] for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert float(first.mean(dim=(1, 2, 3)).std()) > 0.01
    assert -1 <= float(first.min()) < float(first.max()) <= 1
