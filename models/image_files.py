"""PNG, JPEG, TIFF and BMP files to arrays of their stored values."""

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from models.image_errors import NotAnImage, TooManyPixels, UnsupportedImage, check_pixel_count, decoding

# Each format's own class and not `Image.open`, which holds to one limit of pixels for the whole process.
_READERS: dict[bytes, tuple[str, type[ImageFile.ImageFile]]] = {
    b"\x89PNG\r\n\x1a\n": ("PNG", PngImageFile),
    b"\xff\xd8\xff": ("JPEG", JpegImageFile),
    b"II*\0": ("TIFF", TiffImageFile),
    b"MM\0*": ("TIFF", TiffImageFile),
    b"II+\0": ("TIFF", TiffImageFile),
    b"MM\0+": ("TIFF", TiffImageFile),
    b"BM": ("BMP", BmpImageFile),
}
_OTHERS = {
    b"GIF8": "GIF",
    b"RIFF": "WebP",
    b"\0\0\0\x0cjP": "JPEG 2000",
    b"%PDF": "PDF",
    b"PK\x03\x04": "zip",
}
_FIRST_GROUPS = (b"\2\0", b"\x08\0")  # of a DICOM file's elements, and of those that travel without a file
_READ = "PNG, JPEG, TIFF, BMP or DICOM"
_ORIENTATION, _PHOTOMETRIC, _TILE_WIDTH, _TILE_LENGTH = 0x0112, 262, 322, 323  # EXIF and TIFF tags
_CEILINGS = [(1 << bits) - 1 for bits in (8, 10, 12, 14, 16)]


def decode(data: bytes, max_pixels: int) -> NDArray[Any]:
    """File -> its values, upright: (H, W) bool, uint8, uint16, int32 or float32, or colours (H, W, 3) uint8.

    Palettes, CMYK and the like become RGB; what is transparent becomes black; of 16-bit colours the upper 8
    bits stay. Raises ImageError.
    """
    kind, reader = _reader(data)
    with decoding(kind):
        image = reader(BytesIO(data))
        _check_header(image, kind, max_pixels)
        image.load()
        values = np.asarray(_plain(image))
        if image.mode.startswith("I") and "transparency" in image.info:
            values = np.where(values == image.info["transparency"], 0, values)
        if image.mode in ("I;16", "I;16B", "F") and _stores_white_as_zero(image):
            values = _white(values) - values
        return _upright(values, image.getexif().get(_ORIENTATION, 1))


def _reader(data: bytes) -> tuple[str, type[ImageFile.ImageFile]]:
    for signature, reader in _READERS.items():
        if data.startswith(signature):
            return reader
    for signature, kind in _OTHERS.items():
        if data.startswith(signature):
            remedy = "unpack it and send the images" if kind == "zip" else "save it as PNG"
            raise UnsupportedImage(f"the file is a {kind} file; {remedy}")
    if data[:2] in _FIRST_GROUPS and data[3:4] == b"\0":
        raise UnsupportedImage(
            "the file seems to be DICOM without its header (DICM at byte 128); export it anew, or as PNG"
        )
    if not data:
        raise NotAnImage(f"the file is empty (0 bytes); send a {_READ} file")
    raise NotAnImage(f"the file ({len(data):,} bytes) is not an image; send a {_READ} file")


def _check_header(image: ImageFile.ImageFile, kind: str, max_pixels: int) -> None:
    check_pixel_count(*image.size, max_pixels)
    if isinstance(image, TiffImageFile):
        tile = int(image.tag_v2.get(_TILE_WIDTH, 0)), int(image.tag_v2.get(_TILE_LENGTH, 0))
        if tile[0] * tile[1] > max_pixels:
            raise TooManyPixels(
                f"the TIFF file is cut into tiles of {tile[0]} x {tile[1]} pixels, and at most "
                f"{max_pixels:,} are taken; save it without tiles"
            )
    if getattr(image, "is_animated", False):
        raise UnsupportedImage(f"the {kind} file holds several pictures; save the one that is meant by itself")


def _plain(image: Image.Image) -> Image.Image:
    """One channel of values as they are stored, or RGB on black."""
    if image.mode.startswith("I"):  # Pillow would cut all that is deeper than 8 bits off at 255
        return image
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        on_black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        on_black.alpha_composite(image.convert("RGBA"))
        return on_black.convert("RGB")
    if image.mode in ("1", "L", "F", "RGB"):
        return image
    return image.convert("RGB")


def _stores_white_as_zero(image: ImageFile.ImageFile) -> bool:
    # Pillow itself inverts such files of 1 to 8 bits, but not deeper ones
    return isinstance(image, TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == 0


def _upright(values: NDArray[Any], orientation: object) -> NDArray[Any]:
    """Undo the EXIF orientation 2 ... 8 by the standard's table; Pillow has done it for TIFF already."""
    match orientation:
        case 2:
            return values[:, ::-1]
        case 3:
            return values[::-1, ::-1]
        case 4:
            return values[::-1]
        case 5:
            return values.swapaxes(0, 1)
        case 6:
            return np.rot90(values, -1)
        case 7:
            return np.rot90(values, 2).swapaxes(0, 1)
        case 8:
            return np.rot90(values)
    return values


def ceiling(values: NDArray[Any]) -> int:
    """The white of deep values that begin at 0: that of the 8, 10, 12, 14 or 16 bits the maximum needs.

    Scanners store 12 bits in 16-bit files and say so nowhere; taken at 16 bits these would be all but black.
    """
    highest = values.max()
    return next((white for white in _CEILINGS if white >= highest), int(highest))


def _white(values: NDArray[Any]) -> float:
    """The white of values that begin at 0: 1 of float ones below 2 (a filter may overshoot), else their `ceiling`."""
    return 1.0 if np.issubdtype(values.dtype, np.floating) and values.max() < 2 else ceiling(values)


def brightness(values: NDArray[Any]) -> NDArray[np.float32]:
    """Stored values as `decode` gives them -> (H, W) float32 in [0, 1], black 0.

    8-bit values by 255 and colours by their luminance (ITU-R BT.601); 16-bit ones by `ceiling`; float ones in
    [0, 1] as they are, cut off there if none reaches 2; where any is below 0 or past 16 bits, from the file's own
    minimum to its maximum.
    """
    if values.ndim == 3:
        return (values @ np.array([0.299, 0.587, 0.114], np.float32) / np.float32(255)).clip(0, 1)
    if values.dtype == np.bool_:
        return values.astype(np.float32)
    if values.dtype == np.uint8:
        return values.astype(np.float32) / np.float32(255)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise UnsupportedImage("some pixels are infinite or not a number; save the image with whole gray levels")
    if low < 0 or high > _CEILINGS[-1]:
        return ((values.astype(np.float64) - low) / max(high - low, 1e-30)).clip(0, 1).astype(np.float32)
    shown = (values / _white(values)).astype(np.float32)
    return shown.clip(max=1, out=shown)
