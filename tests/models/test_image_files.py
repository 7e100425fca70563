import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from models.image_errors import TruncatedImage, UnsupportedImage
from models.image_files import ceiling
from models.pixels import read_image, read_mask
from tests.bad_files import encode, gradient


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_8_bit_levels_are_divided_by_255(kind: str) -> None:
    levels = gradient().astype(np.uint8)
    assert np.abs(read_image(encode(levels, kind)) - levels / 255).max() < 1e-6


def test_a_jpeg_is_read_to_a_few_levels() -> None:
    levels = gradient().astype(np.uint8)
    assert np.abs(read_image(encode(levels, "JPEG", quality=95)) - levels / 255).max() < 5 / 255


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_white_is_that_of_the_bits_that_the_brightest_pixel_needs(kind: str, bits: int) -> None:
    white = (1 << bits) - 1
    values = gradient(top=white)
    assert np.abs(read_image(encode(values, kind)) - values / white).max() < 1e-6


@pytest.mark.parametrize(("highest", "white"), [(1, 255), (256, 1023), (1024, 4095), (4096, 16_383), (65_535, 65_535)])
def test_the_ceiling_is_the_next_depth_in_use(highest: int, white: int) -> None:
    assert ceiling(np.array([0, highest])) == white


def test_big_endian_tiff_is_read_alike() -> None:
    values = gradient(top=4095)
    tags = [
        (256, 160),
        (257, 96),
        (258, 16),
        (259, 1),
        (262, 1),
        (273, 200),
        (277, 1),
        (278, 96),
        (279, 30_720),
    ]
    entries = b"".join(struct.pack(">HHII", tag, 4, 1, value) for tag, value in tags)
    head = (b"MM\0*" + struct.pack(">IH", 8, len(tags)) + entries + bytes(4)).ljust(200, b"\0")
    image = read_image(head + values.astype(">u2").tobytes())
    assert np.abs(image - values / 4095).max() < 1e-6


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_a_tiff_whose_white_is_zero_is_turned_round(depth: type[np.unsignedinteger[Any]]) -> None:
    white = np.iinfo(depth).max
    values = gradient(top=white).astype(depth)
    # Pillow turns 8 bits round when it writes this tag, too; 16 bits it leaves
    stored = values if depth == np.uint8 else white - values
    image = read_image(encode(stored.astype(depth), "TIFF", tiffinfo={262: 0}))
    assert np.abs(image - values / white).max() < 1e-6


def test_a_tiff_of_floats_whose_white_is_zero_is_turned_round() -> None:
    values = (gradient() / 512).astype(np.float32)
    assert np.abs(read_image(encode(1 - values, "TIFF", tiffinfo={262: 0})) - values).max() < 1e-6


@pytest.mark.parametrize("highest", [0.5, 1.0, 1.02], ids=["dark", "white", "sharpened past white"])
def test_floats_in_the_unit_range_are_taken_as_they_are(highest: float) -> None:
    values = (gradient() / 255 * highest).astype(np.float32)
    assert np.array_equal(read_image(encode(values, "TIFF")), values.clip(max=1))


def test_a_whole_file_of_a_kind_that_is_not_read_is_not_called_cut_short_alone() -> None:
    tifffile.imwrite(file := BytesIO(), gradient() / 255)
    with pytest.raises(TruncatedImage, match="or of a rare kind; export it again, if need be as PNG"):
        read_image(file.getvalue())


def test_values_below_zero_are_stretched_from_the_files_minimum_to_its_maximum() -> None:
    values = gradient(top=3000).astype(np.int32) - 1000
    image = read_image(encode(values, "TIFF"))
    assert np.abs(image - (values + 1000) / 3000).max() < 1e-6
    assert np.array_equal(read_image(encode(values.astype(np.float32), "TIFF")), image)


def test_colour_becomes_its_luminance() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    wanted = (0.299 * colours[..., 0] + 0.587 * colours[..., 1] + 0.114 * colours[..., 2]) / 255
    assert np.abs(read_image(encode(colours)) - wanted).max() < 1e-6


def test_gray_stored_as_colour_is_that_gray() -> None:
    levels = gradient().astype(np.uint8)
    for picture in (Image.fromarray(levels).convert(mode) for mode in ("RGB", "P", "RGBA", "LA")):
        assert np.abs(read_image(encode(picture)) - levels / 255).max() < 1e-6
    for mode in ("CMYK", "YCbCr"):
        assert np.abs(read_image(encode(Image.fromarray(levels).convert(mode), "TIFF")) - levels / 255).max() < 0.01


def test_16_bit_colour_keeps_its_upper_8_bits() -> None:
    values = np.random.default_rng(1).integers(0, 65_536, (40, 50)).astype(np.uint16)
    rows = np.repeat(values[..., None], 3, 2).astype(">u2")
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 50, 40, 16, 2, 0, 0, 0)), (b"IDAT", body), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(text)) + name + text + struct.pack(">I", zlib.crc32(name + text)) for name, text in chunks
    )
    assert np.abs(read_image(data) - values / 65_535).max() < 1 / 255


def test_what_is_transparent_becomes_black() -> None:
    levels = gradient().astype(np.uint8)
    opacity = levels[:, ::-1]
    image = read_image(encode(np.dstack([levels, levels, levels, opacity])))
    assert np.abs(image - levels / 255 * (opacity / 255)).max() < 1.1 / 255


def test_a_palette_with_a_transparent_entry_is_read_on_black() -> None:
    picture = Image.fromarray(gradient().astype(np.uint8)).convert("P")
    image = read_image(encode(picture, transparency=255))
    assert image[-1, -1] == 0
    assert image[-1, -8] > 0.9


def test_a_level_of_16_bits_that_is_transparent_becomes_black_and_the_others_stay() -> None:
    values = gradient(top=4095)
    values[:8] = 3000
    data = encode(values, transparency=3000)
    assert np.abs(read_image(data) - np.where(values == 3000, 0, values) / 4095).max() < 1e-6
    assert np.array_equal(
        read_mask(encode(np.where(values > 2000, 65_535, 0).astype(np.uint16), transparency=0)), values > 2000
    )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_image_and_mask_are_turned_upright(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    levels = np.zeros((96, 160), np.uint8)
    levels[:40, :64] = 255  # blocks of 8, which JPEG keeps
    shaded = levels.copy()
    shaded[64:] = 128
    options: dict[str, Any] = {"exif": exif} | ({"quality": 100} if kind == "JPEG" else {})
    mask, image = encode(levels, kind, **options), encode(shaded, kind, **options)
    upright_mask, upright = (np.asarray(ImageOps.exif_transpose(Image.open(BytesIO(data)))) for data in (mask, image))
    assert upright.shape == ((96, 160) if orientation < 5 else (160, 96))
    assert np.array_equal(read_image(image), (upright / 255).astype(np.float32))
    assert np.array_equal(read_mask(mask), upright_mask > 0)


def test_a_zip_among_the_images_is_to_be_unpacked() -> None:
    with pytest.raises(UnsupportedImage, match="is a zip file; unpack it"):
        read_image(b"PK\x03\x04" + bytes(100))
