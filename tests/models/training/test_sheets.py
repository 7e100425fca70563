"""models/training/sheets.py: the pictures show what they say."""

import numpy as np
import pytest
import torch

from models.schedule import Schedule
from models.tensors import to_images
from models.training.sheets import CROP_ZOOM, HEADING, reconstruction_sheet, sample_sheet

HEIGHT, WIDTH = 256, 512


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(40, 200, (HEIGHT, WIDTH), np.uint8)


def tile(sheet: np.ndarray, line: int, column: int) -> np.ndarray:
    top = line * (HEIGHT + HEADING) + HEADING
    return sheet[top : top + HEIGHT, column * WIDTH : (column + 1) * WIDTH]


def test_original_reconstruction_and_four_times_their_difference_stand_side_by_side() -> None:
    image = picture(0)
    sheet = reconstruction_sheet(image[None], image[None] + np.uint8(5), [None])
    assert sheet.shape == (HEIGHT + HEADING, 3 * WIDTH) and sheet.dtype == np.uint8
    assert np.array_equal(tile(sheet, 0, 0), image)
    assert np.array_equal(tile(sheet, 0, 1), image + 5)
    assert (tile(sheet, 0, 2) == 148).all()


@pytest.mark.parametrize("left", [0, 100, 300, 500])
def test_under_a_labeled_image_its_canal_is_enlarged(left: int) -> None:
    image, mask = picture(1), np.zeros((HEIGHT, WIDTH), bool)
    mask[150:154, left : left + 12] = True
    image[mask] = 255
    sheet = reconstruction_sheet(image[None], image[None], [mask])
    assert sheet.shape == (2 * (HEIGHT + HEADING), 3 * WIDTH)
    assert (tile(sheet, 1, 0) == 255).sum() == mask.sum() * CROP_ZOOM**2


def test_an_image_whose_mask_is_empty_has_no_canal_to_show() -> None:
    sheet = reconstruction_sheet(picture(1)[None], picture(1)[None], [np.zeros((HEIGHT, WIDTH), bool)])
    assert len(sheet) == HEIGHT + HEADING


class Perfect(torch.nn.Module):
    """Knows the clean latent, which is 0.5 everywhere, and so the noise."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.alpha_bar = schedule.alpha_bar

    def forward(self, noisy: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        share = self.alpha_bar[levels].view(-1, 1, 1, 1)
        return ((noisy - share.sqrt() * 0.5) / (1 - share).sqrt()).float()


def test_a_perfect_denoiser_gives_back_the_clean_image_from_every_level() -> None:
    schedule = Schedule.linear()
    clean = torch.full((2, 4, 32, 64), 0.5)

    def decode(latent: torch.Tensor) -> torch.Tensor:
        return latent.mean(1, keepdim=True).repeat_interleave(8, 2).repeat_interleave(8, 3)

    sheet = sample_sheet(Perfect(schedule), decode, clean, schedule, torch.device("cpu"))
    assert sheet.shape == (3 * (HEIGHT + HEADING), 5 * WIDTH)
    for line in range(3):
        for column in range(5):
            shown = to_images(tile(sheet, line, column)[None], torch.device("cpu"))
            assert (shown - 0.5).abs().max() < 0.02
