"""models/region.py: what the shipped finder finds, and the box that is cut."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from models.metrics import dice
from models.phantoms import Phantom, phantoms
from models.region import ASPECTS, Box, crop_box, find_region, load_region, reduce_region, save_region
from models.segmenter import Segmenter, build_segmenter
from models.weights import WeightsError
from tests.threads import threads

SHIPPED = Path(__file__).parents[2] / "models" / "weights" / "region"


@pytest.fixture(scope="module")
def finder() -> Segmenter:
    return load_region(SHIPPED)


@pytest.fixture(scope="module")
def radiographs() -> Sequence[Phantom]:
    return list(phantoms(seed=41, count=4))


def unit(phantom: Phantom) -> np.ndarray:
    return phantom.image.astype(np.float32) / np.float32(255)


def region(rows: slice, columns: slice) -> np.ndarray:
    found = np.zeros((64, 128), bool)
    found[rows, columns] = True
    return found


def test_the_shipped_finder_finds_the_jaw_of_phantoms_that_it_never_saw(
    finder: Segmenter, radiographs: Sequence[Phantom]
) -> None:
    for phantom in radiographs:
        found = find_region(finder, unit(phantom))
        assert found is not None
        assert dice(found, reduce_region(phantom.region)) > 0.93
        assert crop_box(found, phantom.image.shape).cut(phantom.mask).sum() == phantom.mask.sum()


def test_a_radiograph_of_any_size_has_the_same_region(finder: Segmenter, radiographs: Sequence[Phantom]) -> None:
    image = unit(radiographs[0])
    small, large = (find_region(finder, each) for each in (image, np.kron(image, np.ones((3, 4), np.float32))))
    assert small is not None and large is not None
    assert dice(small, large) > 0.99


def test_the_same_region_is_found_on_any_number_of_threads(finder: Segmenter, radiographs: Sequence[Phantom]) -> None:
    found = []
    for count in (1, 3):
        with threads(count):
            found.append(find_region(finder, unit(radiographs[1])))
    assert found[0] is not None and found[1] is not None
    assert (found[0] == found[1]).all()


def test_nothing_is_found_in_a_black_picture_and_the_whole_frame_is_kept(finder: Segmenter) -> None:
    assert find_region(finder, np.zeros((300, 500), np.float32)) is None
    assert crop_box(None, (300, 500)) == Box(0, 0, 500, 300, 500, 300, found=False)


class Bright(nn.Module):
    """Takes for the region whatever is brighter than half."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([-images, images], dim=1)


def test_the_region_is_the_largest_piece_without_its_holes() -> None:
    seen = region(slice(10, 50), slice(20, 100))
    expected = seen.copy()
    seen[20:25, 40:50] = False
    seen[2:6, 3:9] = seen[58:62, 110:120] = True
    found = find_region(Bright(), seen.astype(np.float32))
    assert found is not None and (found == expected).all()


@pytest.mark.parametrize(("columns", "is_one"), [(52, True), (51, False)])
def test_what_fills_less_than_a_fifth_of_the_picture_is_no_region(columns: int, is_one: bool) -> None:
    seen = region(slice(16, 48), slice(10, 10 + columns))
    assert (find_region(Bright(), seen.astype(np.float32)) is not None) == is_one


def test_a_cell_is_of_the_region_where_half_of_its_pixels_are() -> None:
    whole = np.zeros((256, 512), bool)
    whole[0, 0:4] = whole[1, 0:4] = True  # 8 of the first cell's 16
    whole[0, 4:8] = whole[1, 4:7] = True  # 7 of the next one's
    assert np.argwhere(reduce_region(whole)).tolist() == [[0, 0]]


def test_the_box_has_a_margin_around_the_region() -> None:
    box = crop_box(region(slice(16, 48), slice(32, 96)), (640, 1280))
    assert box == Box(288, 144, 704, 352, 1280, 640, found=True)


@pytest.mark.parametrize(("rows", "columns"), [(slice(30, 34), slice(4, 124)), (slice(2, 62), slice(60, 68))])
def test_a_narrow_region_gets_a_crop_of_a_sensible_shape(rows: slice, columns: slice) -> None:
    box = crop_box(region(rows, columns), (1000, 2200))
    assert ASPECTS[0] - 0.01 <= box.width / box.height <= ASPECTS[1] + 0.01
    assert min(box.left, box.top) >= 0
    assert (box.left + box.width <= 2200, box.top + box.height <= 1000) == (True, True)


def test_a_frame_that_is_narrower_is_taken_in_full_width() -> None:
    box = crop_box(region(slice(0, 64), slice(40, 90)), (1000, 800))
    assert (box.left, box.width, box.top, box.height) == (0, 800, 0, 1000)


@pytest.mark.parametrize("corner", [(0, 0), (0, 1279), (639, 0), (639, 1279), (100, 640)])
def test_no_pixel_of_the_anatomy_is_ever_lost(corner: tuple[int, int]) -> None:
    anatomy = np.zeros((640, 1280), bool)
    anatomy[corner] = anatomy[320, 640] = True
    box = crop_box(region(slice(16, 48), slice(32, 96)), (640, 1280), anatomy)
    assert box.cut(anatomy).sum() == 2


def test_an_array_of_another_size_is_not_cut() -> None:
    with pytest.raises(ValueError, match="the box is of"):
        Box(0, 0, 5, 5, 10, 10, found=True).cut(np.zeros((10, 11)))


def test_what_is_saved_in_half_precision_finds_the_same(
    finder: Segmenter, radiographs: Sequence[Phantom], tmp_path: Path
) -> None:
    save_region(tmp_path / "again", finder, {"steps": 1})
    again = find_region(load_region(tmp_path / "again"), unit(radiographs[2]))
    before = find_region(finder, unit(radiographs[2]))
    assert again is not None and before is not None
    assert (again == before).all()


def test_weights_that_were_changed_or_are_others_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds no weights"):
        load_region(tmp_path)
    shutil.copytree(SHIPPED, tmp_path / "changed")
    with (tmp_path / "changed" / "config.json").open("a") as file:
        file.write(" ")
    with pytest.raises(WeightsError, match="sha256"):
        load_region(tmp_path / "changed")
    with pytest.raises(WeightsError, match="no region finder"):
        load_region(SHIPPED.parent / "default")


def test_the_shipped_weights_are_a_segformer_b0() -> None:
    own, built = (sum(value.numel() for value in net.parameters()) for net in (load_region(SHIPPED), build_segmenter()))
    assert own == built
