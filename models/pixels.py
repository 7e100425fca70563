"""Image files in and out, on the one grid of 512 x 256.

Of `models` the API imports this and `image_errors` alone. So importing it loads no more than numpy and Pillow: pydicom
comes with the first DICOM file, scipy with the first mask. Files are read by `models.image_files` and `models.dicom`;
whatever is wrong with one is an `ImageError`.
"""

import hashlib
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from models import dicom, image_files
from models.image_errors import (
    EmptyMask,
    FullMask,
    MaskSizeMismatch,
    NotARadiograph,
    NotBinary,
    UnsupportedImage,
    decoding,
)
from models.masks import resize_keeping_lines

HEIGHT, WIDTH = 256, 512
MAX_PIXELS = 60_000_000


def read_image(data: bytes, max_pixels: int = MAX_PIXELS) -> NDArray[np.float32]:
    """An uploaded radiograph of any depth or colour -> (H, W) float32 in [0, 1], upright, at its own size.

    Raises ImageError. The pixels are counted in the header, before anything is decoded.
    """
    if dicom.is_dicom(data):
        image = dicom.read_brightness(data, max_pixels)
    else:
        image = image_files.brightness(image_files.decode(data, max_pixels))
    lowest, highest = image.min(), image.max()
    if lowest == highest:
        raise NotARadiograph("the image is blank, one gray level all over; send a radiograph as the scanner exports it")
    if ((image == lowest) | (image == highest)).all():
        raise NotARadiograph("the image has two gray levels alone, as a mask has; send the radiograph itself")
    return image


def read_mask(data: bytes, max_pixels: int = MAX_PIXELS) -> NDArray[np.bool_]:
    """An uploaded mask, black and one other value or colour -> (H, W) bool, upright, at its own size.

    Raises ImageError: NotBinary at any third value, since only its maker knows which threshold was meant.
    """
    decode = dicom.read_stored if dicom.is_dicom(data) else image_files.decode
    values = decode(data, max_pixels)
    if values.ndim == 3:
        values = values.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
        return _foreground(values, _colour)
    return _foreground(values.astype(np.uint8) if values.dtype == np.bool_ else values, str)


def _foreground(values: NDArray[Any], name: Callable[[Any], str]) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = values != 0
    if not mask.any():
        raise EmptyMask("the mask is black all over; mark the anatomy with one value above 0, such as 255")
    value = values[mask][0]
    others = mask & (values != value)
    if others.any():
        another = values[others][0]
        found = sorted([*([] if mask.all() else [0]), value, another])
        more = " and more" if (others & (values != another)).any() else ""
        raise NotBinary(
            f"the mask holds the values {', '.join(map(name, found))}{more}; give it two, 0 for the background and "
            "one other, and save it as PNG (JPEG and anti-aliasing blur the edges)"
        )
    if mask.all():
        raise FullMask(f"the mask is {name(value)} all over; leave the background at 0")
    if all(edge.all() for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1])):  # as ImageJ may save them
        raise FullMask(
            f"the mask is {name(value)} along all four edges, so it seems inverted; give the background 0 and the "
            "anatomy one other value"
        )
    return mask


def _colour(packed: int) -> str:
    return f"#{int(packed):06x}"


def check_same_size(image: tuple[int, ...], mask: tuple[int, ...]) -> None:
    """Raise MaskSizeMismatch unless both shapes are the same (H, W)."""
    if image != mask:
        (height, width), (mask_height, mask_width) = image, mask
        raise MaskSizeMismatch(
            f"the mask is {mask_width} x {mask_height} pixels (width x height) and its image "
            f"{width} x {height}; give both at the same size"
        )


def resize_image(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(H, W) in [0, 1] -> (256, 512) uint8, by a Lanczos filter, widened when shrinking (antialiased)."""
    source = Image.fromarray(np.ascontiguousarray(image, np.float32))
    resized: NDArray[np.float32] = np.asarray(source.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS))
    levels: NDArray[np.uint8] = np.rint(resized.clip(0, 1) * 255).astype(np.uint8)
    return levels


def resize_mask(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(H, W) -> (256, 512) on the grid of `resize_image`; a line thinner than a pixel stays one line."""
    return resize_keeping_lines(mask, HEIGHT, WIDTH)


def image_png(pixels: NDArray[np.uint8]) -> bytes:
    """(256, 512) uint8 -> a grayscale PNG: the same pixels give the same bytes."""
    if pixels.shape != (HEIGHT, WIDTH) or pixels.dtype != np.uint8:
        raise ValueError(f"pixels are {pixels.shape} {pixels.dtype}; give ({HEIGHT}, {WIDTH}) uint8")
    out = BytesIO()
    # On filtered rows of grain, runs alone are as small as the full search for repeats and four times as fast.
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, "PNG", compress_type=zlib.Z_RLE)
    return out.getvalue()


def mask_png(mask: NDArray[np.bool_]) -> bytes:
    """(256, 512) bool -> a grayscale PNG of 0 and 255."""
    return image_png(mask.astype(np.uint8) * np.uint8(255))


def image_from_png(data: bytes) -> NDArray[np.uint8]:
    """What `image_png` wrote -> (256, 512) uint8; anything else raises ImageError."""
    pixels = _full_from_png(data)
    if pixels.shape != (HEIGHT, WIDTH) or pixels.dtype != np.uint8:
        raise UnsupportedImage(f"the stored PNG is {pixels.shape} {pixels.dtype}, not ({HEIGHT}, {WIDTH}) uint8")
    return pixels


def mask_from_png(data: bytes) -> NDArray[np.bool_]:
    """What `mask_png` wrote -> (256, 512) bool."""
    return image_from_png(data) >= 128


def to_levels(image: NDArray[np.float32]) -> NDArray[np.uint16]:
    """(H, W) in [0, 1] -> the nearest of 0 ... 65535."""
    levels: NDArray[np.uint16] = np.rint(image.clip(0, 1).astype(np.float64) * 65535).astype(np.uint16)
    return levels


def from_levels(levels: NDArray[np.uint16]) -> NDArray[np.float32]:
    """0 ... 65535 -> [0, 1]; the inverse of `to_levels`."""
    return levels.astype(np.float32) / np.float32(65535)


def full_image_png(levels: NDArray[np.uint16]) -> bytes:
    """(H, W) uint16 of `to_levels` -> a grayscale PNG of that size, 16 bit."""
    return _full_png(levels)


def full_image_from_png(data: bytes) -> NDArray[np.float32]:
    """What `full_image_png` wrote -> (H, W) float32 in [0, 1]."""
    return from_levels(_full_from_png(data))


def full_mask_png(mask: NDArray[np.bool_]) -> bytes:
    """(H, W) bool -> a grayscale PNG of that size, 0 and 255."""
    return _full_png(mask.astype(np.uint8) * np.uint8(255))


def full_mask_from_png(data: bytes) -> NDArray[np.bool_]:
    """What `full_mask_png` wrote -> (H, W) bool."""
    mask: NDArray[np.bool_] = _full_from_png(data) >= 128
    return mask


def _full_png(values: NDArray[Any]) -> bytes:
    out = BytesIO()
    Image.fromarray(np.ascontiguousarray(values)).save(out, "PNG", compress_level=1)
    return out.getvalue()


def _full_from_png(data: bytes) -> NDArray[Any]:
    with decoding("PNG"):
        return np.array(PngImageFile(BytesIO(data)))  # not `Image.open`, which has a limit of pixels of its own


def from_unit(values: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """-1 ... 1, clipped -> uint8, rounded, of the same shape; undoes `models.tensors.to_images` exactly."""
    return np.rint((values.clip(-1, 1) + 1) * 127.5).astype(np.uint8)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def file_sha256(path: Path) -> str:
    """The same of a file, which need not fit into memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
