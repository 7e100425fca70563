import threading
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.transform import resize

from models.image_errors import (
    FullMask,
    ImageError,
    MaskSizeMismatch,
    NotBinary,
    TooManyPixels,
    UnsupportedImage,
    decoding,
)
from models.pixels import (
    HEIGHT,
    WIDTH,
    check_same_size,
    from_unit,
    image_from_png,
    image_png,
    mask_from_png,
    mask_png,
    read_image,
    read_mask,
    resize_image,
    resize_mask,
    sha256,
)
from models.tensors import to_images
from tests import bad_files

UPLOADS = {role: build() for role, build in bad_files.BUILDERS.items()}
READ = {"image": read_image, "mask": read_mask}


@pytest.mark.parametrize("name", UPLOADS["image"])
def test_an_image_file_is_read_or_refused_by_its_name(name: str) -> None:
    upload = UPLOADS["image"][name]
    if upload.error is None:
        image = read_image(upload.data)
        assert image.dtype == np.float32
        assert sorted(image.shape) == [96, 160]
        assert image.min() == pytest.approx(0, abs=0.02)
        assert image.max() == pytest.approx(1, abs=0.02)
    else:
        with pytest.raises(upload.error) as refusal:
            read_image(upload.data)
        assert type(refusal.value) is upload.error
        assert ";" in str(refusal.value)  # the trouble; the remedy
        assert bad_files.PATIENT not in str(refusal.value)


@pytest.mark.parametrize("name", UPLOADS["mask"])
def test_a_mask_file_is_read_or_refused_by_its_name(name: str) -> None:
    upload = UPLOADS["mask"][name]
    if upload.error is None:
        mask = read_mask(upload.data)
        assert mask.dtype == np.bool_
        assert mask.shape == (96, 160)
        assert name == "one colour on black" or np.array_equal(mask, bad_files.disc())
    else:
        with pytest.raises(upload.error) as refusal:
            read_mask(upload.data)
        assert type(refusal.value) is upload.error
        assert ";" in str(refusal.value)


@settings(max_examples=1000, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_a_file_with_flipped_bits_is_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    role = data.draw(st.sampled_from(["image", "mask"]))
    small = [name for name, upload in UPLOADS[role].items() if 8 <= len(upload.data) < 60_000]
    file = bytearray(UPLOADS[role][data.draw(st.sampled_from(small))].data)
    reach = data.draw(st.sampled_from([64, 700, len(file)]))  # headers are worth more flips
    places = st.integers(0, min(reach, len(file)) * 8 - 1)
    for bit in data.draw(st.lists(places, min_size=1, max_size=6)):
        file[bit // 8] ^= 1 << bit % 8
    try:
        READ[role](bytes(file))
    except ImageError as refusal:
        assert bad_files.PATIENT not in str(refusal)


def test_pixels_are_counted_before_anything_is_decoded() -> None:
    header = bad_files.png_bomb()[:60]  # next to nothing to decode is there
    with pytest.raises(TooManyPixels, match=r"30000 x 30000 pixels, 900,000,000 in all.* 60,000,000"):
        read_image(header)


def test_the_limit_of_pixels_is_the_callers() -> None:
    data = UPLOADS["image"]["8-bit png"].data
    assert read_image(data, max_pixels=96 * 160).size == 96 * 160
    with pytest.raises(TooManyPixels, match="15,360 in all, and at most 15,359"):
        read_image(data, max_pixels=96 * 160 - 1)


def test_the_limit_may_be_above_that_of_pillow() -> None:
    with pytest.raises(ImageError, match="black all over"):
        read_mask(bad_files.png_bomb(9_600), max_pixels=100_000_000)


def test_a_mask_that_is_not_binary_names_what_it_holds_and_the_remedy() -> None:
    with pytest.raises(NotBinary, match=r"the values 0, 1, 2 and more; give it two.*as PNG"):
        read_mask(UPLOADS["mask"]["many grays"].data)
    with pytest.raises(NotBinary, match=r"#000000, #00ff00, #ff0000; give it two"):
        read_mask(UPLOADS["mask"]["two colours on black"].data)


def test_a_mask_that_is_white_along_every_edge_is_told_to_be_inverted() -> None:
    with pytest.raises(FullMask, match=r"is 255 along all four edges, so it seems inverted; give the background 0"):
        read_mask(UPLOADS["mask"]["black on white"].data)


def test_a_mask_of_another_size_than_its_image_is_refused_with_both_sizes() -> None:
    image, mask = np.zeros((96, 160), np.float32), np.zeros((160, 96), bool)
    check_same_size(image.shape, mask.T.shape)
    with pytest.raises(MaskSizeMismatch, match=r"mask is 96 x 160 pixels .* its image 160 x 96; give both"):
        check_same_size(image.shape, mask.shape)


def test_files_are_read_in_many_threads_and_the_warnings_stay_as_they_were() -> None:
    before = list(warnings.filters)
    good = read_image(UPLOADS["image"]["16-bit tiff"].data)
    seen: list[bool] = []

    def read() -> None:
        for _ in range(20):
            seen.append(np.array_equal(read_image(UPLOADS["image"]["16-bit tiff"].data), good))
            with pytest.raises(ImageError):
                read_image(UPLOADS["image"]["tiff cut in the middle"].data)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [True] * 80
    assert list(warnings.filters) == before


def test_files_are_decoded_at_once_and_none_of_their_warnings_is_seen() -> None:
    """The first to begin is not the last to end."""
    met = threading.Barrier(2, timeout=30)
    first_left = threading.Event()

    def first() -> None:
        with decoding("PNG"):
            met.wait()
        first_left.set()

    thread = threading.Thread(target=first)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        thread.start()
        with decoding("PNG"):
            met.wait()  # inside with the other
            assert first_left.wait(30)
            warnings.warn("quotes the file", stacklevel=1)
        thread.join()
        assert not seen
        warnings.warn("of another matter", stacklevel=1)
        assert [str(warning.message) for warning in seen] == ["of another matter"]


def lanczos(signal: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Along the first axis, by the definition, in float64."""
    n = len(signal)
    stretch = max(n / count, 1.0)
    out = []
    for i in range(count):
        center = (i + 0.5) * n / count
        offset = (np.arange(n) + 0.5 - center) / stretch
        weights = np.where(np.abs(offset) < 3, np.sinc(offset) * np.sinc(offset / 3), 0.0)
        out.append(np.tensordot(weights / weights.sum(), signal, 1))
    return np.array(out)


@pytest.mark.parametrize("size", [(700, 1501), (256, 700), (150, 300), (1024, 512)])
def test_resizing_an_image_is_lanczos_by_its_definition(size: tuple[int, int]) -> None:
    image = np.random.default_rng(2).random(size, np.float32)
    wanted = lanczos(lanczos(image.astype(np.float64), HEIGHT).T, WIDTH).T
    levels = np.rint(wanted.clip(0, 1) * 255)
    resized = resize_image(image).astype(int)
    assert np.abs(resized - levels).max() <= 1
    assert (resized != levels).mean() < 1e-3  # a level apart only where a half is rounded


def test_resizing_an_image_agrees_with_scikit_image_on_smooth_pictures() -> None:
    y, x = np.mgrid[:1300, :2900]
    image = (0.5 + 0.4 * np.sin(x / 90) * np.cos(y / 70)).astype(np.float32)
    wanted = resize(image, (HEIGHT, WIDTH), anti_aliasing=True) * 255
    assert np.abs(resize_image(image)[3:-3, 3:-3] - wanted[3:-3, 3:-3]).max() < 3


def test_stripes_finer_than_the_grid_become_gray_and_no_coarser_stripes() -> None:
    image = np.tile(np.array([0, 1], np.float32), (1300, 1450))
    assert np.ptp(resize_image(image)[:, 4:-4].astype(int)) <= 2


def test_an_image_of_the_right_size_is_left_as_it_is() -> None:
    levels = np.random.default_rng(3).integers(0, 256, (HEIGHT, WIDTH)).astype(np.uint8)
    assert np.array_equal(resize_image(read_image(image_png(levels))), levels)


def test_a_mirrored_image_gives_the_mirrored_result() -> None:
    image = np.random.default_rng(4).random((1300, 2900), np.float32)
    difference = resize_image(image[::-1, ::-1])[::-1, ::-1].astype(int) - resize_image(image)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("size", [(1300, 2900), (1360, 2950), (200, 320), (997, 1501)])
def test_image_and_mask_are_resized_on_the_same_grid(size: tuple[int, int]) -> None:
    height, width = size
    y, x = np.mgrid[:height, :width]
    disc = (y - 0.31 * height) ** 2 + (x - 0.67 * width) ** 2 < (0.08 * height) ** 2
    image, mask = resize_image(disc.astype(np.float32)), resize_mask(disc)
    weights = image / image.sum()
    center = [(weights * axis).sum() for axis in np.mgrid[:HEIGHT, :WIDTH]]
    assert np.abs(np.argwhere(mask).mean(0) - center).max() < 0.5
    wanted = [(0.31 * height + 0.5) * HEIGHT / height - 0.5, (0.67 * width + 0.5) * WIDTH / width - 0.5]
    assert np.abs(np.subtract(center, wanted)).max() < 0.1


def test_png_bytes_hold_the_pixels_and_nothing_else_and_never_change() -> None:
    levels = (np.add.outer(np.arange(HEIGHT), np.arange(WIDTH)) // 3).astype(np.uint8)
    data = image_png(levels)
    assert data == image_png(np.asfortranarray(levels))
    assert np.array_equal(image_from_png(data), levels)
    names, place = [], 8
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        names.append(data[place + 4 : place + 8])
        place += 12 + length
    assert set(names) == {b"IHDR", b"IDAT", b"IEND"}


def test_a_mask_png_holds_0_and_255_and_comes_back() -> None:
    mask = resize_mask(bad_files.disc())
    assert set(np.unique(image_from_png(mask_png(mask)))) == {0, 255}
    assert np.array_equal(mask_from_png(mask_png(mask)), mask)
    assert np.array_equal(read_mask(mask_png(mask)), mask)


def test_pixels_of_another_shape_are_neither_written_nor_read() -> None:
    with pytest.raises(ValueError, match=r"\(96, 160\) uint8; give \(256, 512\)"):
        image_png(np.zeros((96, 160), np.uint8))
    with pytest.raises(UnsupportedImage, match=r"\(96, 160\)"):
        image_from_png(UPLOADS["image"]["8-bit png"].data)
    with pytest.raises(ImageError):
        mask_from_png(b"nothing of the kind")


def test_levels_go_to_unit_range_and_back_unchanged() -> None:
    levels = np.arange(256, dtype=np.uint8)
    unit = to_images(levels[None, None], torch.device("cpu"))
    assert unit.dtype == torch.float32 and unit.shape == (1, 1, 1, 256)
    assert (unit.min(), unit.max()) == (-1, 1)
    assert np.array_equal(from_unit(unit[0, 0, 0].numpy()), levels)
    assert np.array_equal(from_unit(np.array([-3.0, 0.001, 7.0])), [0, 128, 255])


def test_sha256_is_the_standards() -> None:
    assert sha256(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
