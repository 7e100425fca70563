import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from models.masks import _is_simple
from models.pixels import HEIGHT, WIDTH, resize_mask

EIGHT = np.ones((3, 3))
Mask = NDArray[np.bool_]


def components(mask: Mask) -> int:
    return int(ndimage.label(mask, EIGHT)[1])


def canal(points: list[tuple[float, float]], thickness: int, height: int = 1300, width: int = 2900) -> Mask:
    """A line through points given as fractions of the image."""
    picture = Image.new("1", (width, height))
    path = [(x * (width - 1), y * (height - 1)) for x, y in points]
    ImageDraw.Draw(picture).line(path, fill=1, width=thickness, joint="curve")
    return np.array(picture)


def wave(thickness: int, bends: float = 3.0, height: int = 1300, width: int = 2900) -> Mask:
    x = np.linspace(0.1, 0.9, 300)
    return canal(list(zip(x, 0.5 + 0.3 * np.sin(bends * 4 * x), strict=True)), thickness, height, width)


def touched(mask: Mask) -> Mask:
    """The cells that any pixel of the mask reaches into, pixel by pixel."""
    cells = np.zeros((HEIGHT, WIDTH), bool)
    height, width = mask.shape
    for y, x in np.argwhere(mask):
        rows = slice(y * HEIGHT // height, -(-(y + 1) * HEIGHT // height))
        cells[rows, x * WIDTH // width : -(-(x + 1) * WIDTH // width)] = True
    return cells


def half_covered(mask: Mask) -> Mask:
    """Of a mask whose sides are whole multiples of the grid's."""
    blocks = mask.reshape(HEIGHT, mask.shape[0] // HEIGHT, WIDTH, mask.shape[1] // WIDTH)
    halves: Mask = blocks.mean((1, 3)) >= 0.5
    return halves


@pytest.mark.parametrize("thickness", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("bends", [0.0, 3.7, 9.0])
def test_a_thin_canal_stays_one_connected_line(thickness: int, bends: float) -> None:
    mask = wave(thickness, bends)
    resized = resize_mask(mask)
    assert resized.shape == (HEIGHT, WIDTH)
    assert components(resized) == 1
    reach = touched(mask)
    assert not (resized & ~reach).any()
    assert not (reach & ~ndimage.binary_dilation(resized, EIGHT, iterations=2)).any()


points = st.tuples(st.floats(0.02, 0.98), st.floats(0.02, 0.98))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(points, min_size=2, max_size=5), st.integers(1, 5), st.integers(90, 900), st.integers(90, 1500))
def test_a_drawn_line_of_any_course_stays_one_component(
    path: list[tuple[float, float]], thickness: int, height: int, width: int
) -> None:
    mask = canal(path, thickness, height, width)
    if components(mask) == 1:
        assert components(resize_mask(mask)) == 1


@pytest.mark.parametrize("thickness", [1, 3, 5])
def test_a_thin_canal_is_not_thickened(thickness: int) -> None:
    resized = resize_mask(wave(thickness))
    assert not ndimage.binary_erosion(resized, EIGHT).any()  # nowhere three cells wide
    line = resized.sum()
    corners = ndimage.correlate(resized.astype(int), np.ones((2, 2)), mode="constant") == 4
    assert corners.sum() < 0.1 * line  # hardly anywhere two


def test_the_ends_of_a_thin_canal_are_kept_to_a_cell() -> None:
    mask = np.zeros((1300, 2900), bool)
    mask[700:703, 300:2600] = True
    columns = np.flatnonzero(resize_mask(mask).any(0))
    assert abs(columns[0] - 300 * WIDTH / 2900) <= 1
    assert abs(columns[-1] + 1 - 2600 * WIDTH / 2900) <= 1


def test_a_line_that_lies_on_the_border_of_two_rows_of_cells_stays_whole() -> None:
    mask = np.zeros((2560, 1024), bool)
    mask[1279:1281, 100:900] = True
    resized = resize_mask(mask)
    assert resized.sum() == 400
    assert components(resized) == 1


def test_a_thick_figure_is_the_half_covered_cells_and_nothing_else() -> None:
    y, x = np.mgrid[:1280, :3072]
    mask = ((y - 610.3) / 300) ** 2 + ((x - 1433.7) / 700) ** 2 < 1
    assert np.array_equal(resize_mask(mask), half_covered(mask))


def test_a_canal_of_usual_width_keeps_its_area() -> None:
    mask = wave(30)
    assert resize_mask(mask).mean() == pytest.approx(mask.mean(), rel=0.02)


def test_a_thin_tail_stays_on_a_thick_body() -> None:
    mask = np.zeros((1280, 2560), bool)
    mask[500:700, 400:900] = True
    mask[600:602, 900:2000] = True
    resized = resize_mask(mask)
    assert components(resized) == 1
    assert resized[:, 390].any()


@pytest.mark.parametrize("gap", [6, 7, 9, 12])
def test_neighbours_are_not_joined_by_the_repair_of_lines(gap: int) -> None:
    mask = np.zeros((1280, 2560), bool)  # 5 x 5 pixels a cell
    for k in range(12):
        left = 200 + k * (120 + gap)
        mask[300:700, left : left + 120] = True
        mask[300:700:7, left + 120] = True  # a ragged side
    joined = components(half_covered(mask))
    assert components(resize_mask(mask)) == joined


def test_specks_do_not_vanish() -> None:
    mask = np.zeros((1300, 2900), bool)
    mask[100:1200:100, 100:2800:200] = True
    assert components(resize_mask(mask)) == components(mask)


def test_a_thin_ring_stays_closed() -> None:
    picture = Image.new("1", (2900, 1300))
    ImageDraw.Draw(picture).ellipse((800, 300, 1600, 900), outline=1, width=2)
    resized = resize_mask(np.array(picture))
    assert components(resized) == 1
    assert ndimage.label(~resized)[1] == 2  # inside and outside


@pytest.mark.parametrize("thickness", [3, 5, 16, 40])
def test_a_mirrored_mask_gives_the_mirrored_result(thickness: int) -> None:
    mask = wave(thickness, 2.3)
    resized = resize_mask(mask)
    assert np.array_equal(resize_mask(mask[:, ::-1]), resized[:, ::-1])
    assert np.array_equal(resize_mask(mask[::-1]), resized[::-1])


def test_a_diagonal_one_pixel_wide_is_still_connected_when_enlarged() -> None:
    mask = np.eye(50, 70, dtype=bool)
    assert components(resize_mask(mask)) == 1


def test_a_mask_of_the_right_size_is_left_as_it_is() -> None:
    mask = np.random.default_rng(5).random((HEIGHT, WIDTH)) < 0.3
    assert np.array_equal(resize_mask(mask), mask)


def test_noise_is_treated_as_one_figure_and_comes_through() -> None:
    resized = resize_mask(np.random.default_rng(6).random((700, 900)) < 0.2)
    assert resized.any()
    assert not resized.all()


def test_a_cell_may_go_only_where_its_neighbourhood_stays_as_connected_as_it_was() -> None:
    for around in range(256):
        bits = [around >> k & 1 for k in range(8)]
        figure = np.zeros((3, 3), bool)
        places = [(0, 0), (1, 0), (2, 0), (2, 1), (2, 2), (1, 2), (0, 2), (0, 1)]
        for bit, (column, row) in zip([bits[7], *bits[:7]], places, strict=True):
            figure[row, column] = bool(bit)
        pieces = ndimage.label(figure, EIGHT)[1]
        ground = ~figure
        ground[1, 1] = False
        labels = ndimage.label(ground)[0]
        gaps = len({labels[0, 1], labels[1, 0], labels[1, 2], labels[2, 1]} - {0})
        assert _is_simple(around) == (pieces == 1 and gaps == 1), figure
