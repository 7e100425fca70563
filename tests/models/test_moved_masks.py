"""models/moved_masks.py: labels that turn and stretch with their images."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import label
from torch import Tensor
from torch.nn.functional import affine_grid

from models.moved_masks import move_masks


def curve(width: int) -> NDArray[np.bool_]:
    """A sine curve (256, 512) bool of so many pixels from top to bottom."""
    mask = np.zeros((256, 512), np.bool_)
    columns = np.arange(60, 450)
    rows = np.round(128 + 40 * np.sin(columns / 50)).astype(int)
    for row in range(width):
        mask[rows + row, columns] = True
    return mask


def turns(count: int) -> Tensor:
    """(count, 256, 512, 2): turns of -10 to 10 degrees and sizes of 0.9 to 1.1, without shear."""
    angles, sizes = torch.linspace(-0.1745, 0.1745, count), torch.linspace(0.9, 1.1, count)
    cos, sin, none = sizes * angles.cos(), sizes * angles.sin(), torch.zeros(count)
    rows = [torch.stack([cos, -sin / 2, none], dim=1), torch.stack([sin * 2, cos, none], dim=1)]
    return affine_grid(torch.stack(rows, dim=1), [count, 1, 256, 512], align_corners=False)


@pytest.mark.parametrize("width", [1, 2, 3, 6])
def test_a_line_stays_in_one_piece_and_hardly_grows(width: int) -> None:
    mask = curve(width)
    moved = move_masks(torch.from_numpy(mask).expand(24, 1, -1, -1), turns(24), align_corners=False)
    assert moved.dtype == torch.bool
    for found in moved[:, 0].numpy():
        assert label(found, np.ones((3, 3)))[1] == 1
        assert found.sum() < mask.sum() * (1.7 if width == 1 else 1.5)


def test_what_is_not_thin_is_what_is_covered_by_half() -> None:
    rows, columns = np.mgrid[:256, :512]
    disc = (rows - 120) ** 2 + (columns - 250) ** 2 < 60**2
    grid = turns(8)
    moved = move_masks(torch.from_numpy(disc).expand(8, 1, -1, -1), grid, align_corners=False)
    covered = torch.nn.functional.grid_sample(
        torch.from_numpy(disc).float().expand(8, 1, -1, -1), grid, align_corners=False
    )
    different = (moved != (covered >= 0.5)).sum().item()
    assert different < 0.001 * moved.sum().item()


def test_outside_the_frame_there_is_nothing() -> None:
    away = affine_grid(torch.tensor([[[1.0, 0, 2], [0, 1, 0]]]), [1, 1, 256, 512], align_corners=False)
    assert not move_masks(torch.ones(1, 1, 256, 512, dtype=torch.bool), away, align_corners=False)[..., 1:].any()
