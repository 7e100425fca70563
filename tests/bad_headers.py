"""Files whose headers lie, made in memory: one fault each, in every format."""

import struct
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import JPEGBaseline8Bit, RLELossless

from models.image_errors import ImageError, TooFewPixels, TooManyPixels, TruncatedImage, UnsupportedImage
from tests.bad_files import Upload, dicom_dataset, dicom_file, encode, gradient, png_chunk

PNG = b"\x89PNG\r\n\x1a\n"
DAMAGED, MANY, FEW, OTHER = TruncatedImage, TooManyPixels, TooFewPixels, UnsupportedImage


def gray() -> bytes:
    return encode(gradient().astype(np.uint8))


def png(width: int = 160, height: int = 96, depth: int = 8, colour: int = 0, body: bytes | None = None) -> bytes:
    """A PNG whose header says this, over the rows of a picture of 160 x 96 grays."""
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in gradient().astype(np.uint8)))
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return PNG + header + png_chunk(b"IDAT", rows if body is None else body) + png_chunk(b"IEND", b"")


def pngs() -> dict[str, tuple[bytes, type[ImageError]]]:
    good = png()
    return {
        "png of no width": (png(width=0), DAMAGED),
        "png of no height": (png(height=0), DAMAGED),
        "png of 2**31 - 1 columns": (png(width=2**31 - 1), MANY),
        "png of 2**31 - 1 rows": (png(height=2**31 - 1), MANY),
        "png of one row": (png(height=1), FEW),
        "png of three bits": (png(depth=3), DAMAGED),
        "png of colour type 5": (png(colour=5), DAMAGED),
        "png without pixels": (png(body=b""), DAMAGED),
        "png that is not deflated": (png(body=b"not deflated at all"), DAMAGED),
        "png with a header damaged": (good[:20] + b"\xff" + good[21:], DAMAGED),
        "png with a wrong checksum": (good[:29] + bytes(4) + good[33:], DAMAGED),
        "png whose first chunk is 2 GB": (PNG + b"\x7f\xff\xff\xffIHDR" + good[16:], DAMAGED),
        "png that begins with its pixels": (PNG + good[33:], DAMAGED),
        "png with a text that unpacks to 90 MB": (good[:33] + _text_bomb() + good[33:], DAMAGED),
    }


def _text_bomb() -> bytes:
    return png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(90_000_000)))


def jpegs() -> dict[str, tuple[bytes, type[ImageError]]]:
    good = encode(gradient().astype(np.uint8), "JPEG")
    size = good.index(b"\xff\xc0") + 5  # height and width, two bytes each

    def sized(height: int, width: int) -> bytes:
        return good[:size] + struct.pack(">HH", height, width) + good[size + 4 :]

    def framed(marker: int, precision: int = 8) -> bytes:
        return good[: size - 4] + bytes([marker]) + good[size - 3 : size - 1] + bytes([precision]) + good[size:]

    return {
        "jpeg signature alone": (good[:3], DAMAGED),
        "jpeg of its first segment": (good[:20], DAMAGED),
        "jpeg without a frame": (good[: size - 5] + good[size + 12 :], DAMAGED),
        "jpeg of no height": (sized(0, 160), DAMAGED),
        "jpeg of no width": (sized(96, 0), DAMAGED),
        "jpeg of 65,535 x 65,535": (sized(65_535, 65_535), MANY),
        "lossless jpeg": (framed(0xC3), DAMAGED),
        "jpeg of 12 bits": (framed(0xC1, 12), DAMAGED),
        "jpeg of 200 channels": (good[: size + 4] + b"\xc8" + good[size + 5 :], DAMAGED),
        "jpeg of a segment past the end": (good[:4] + b"\xff\xff" + good[6:100], DAMAGED),
    }


def tiff(*changes: tuple[int, int], data: bytes = bytes(96 * 160)) -> bytes:
    """A TIFF of 160 x 96 grays, whose tags are changed to these values."""
    found = {256: 160, 257: 96, 258: 8, 259: 1, 262: 1, 273: 200, 277: 1, 278: 96, 279: len(data)} | dict(changes)
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(found.items()))
    head = b"II*\0" + struct.pack("<IH", 8, len(found)) + entries + bytes(4)
    return head.ljust(200, b"\0") + data


def tiffs() -> dict[str, tuple[bytes, type[ImageError]]]:
    return {
        "tiff signature alone": (b"II*\0", DAMAGED),
        "tiff whose directory lies past the end": (b"II*\0" + struct.pack("<I", 10**6) + bytes(100), DAMAGED),
        "tiff whose directory is the header": (b"II*\0" + bytes(200), DAMAGED),
        "tiff of no tags": (b"II*\0" + struct.pack("<IH", 8, 0) + bytes(100), DAMAGED),
        "tiff of no width": (tiff((256, 0)), DAMAGED),
        "tiff of no height": (tiff((257, 0)), DAMAGED),
        "tiff of 2**32 - 1 columns": (tiff((256, 2**32 - 1)), MANY),
        "tiff of an unknown compression": (tiff((259, 9999)), DAMAGED),
        "tiff in the old jpeg": (tiff((259, 6)), DAMAGED),
        "tiff that is not lzw": (tiff((259, 5)), DAMAGED),
        "tiff that is not deflated": (tiff((259, 8)), DAMAGED),
        "tiff that is no fax": (tiff((259, 4), (258, 1)), DAMAGED),
        "tiff of 64 bits": (tiff((258, 64)), DAMAGED),
        "tiff of no bits": (tiff((258, 0)), DAMAGED),
        "tiff of 1,000 channels": (tiff((277, 1000)), DAMAGED),
        "tiff of unknown colours": (tiff((262, 77)), DAMAGED),
        "tiff whose pixels lie past the end": (tiff((273, 10**6)), DAMAGED),
        "tiff of too few pixels": (tiff(data=bytes(100)), DAMAGED),
        "tiff of a tile of 10**10 pixels": (tiff((322, 100_000), (323, 100_000), (324, 200)), MANY),
    }


def bmp(offset: int, form: str, value: int) -> bytes:
    good = encode(gradient().astype(np.uint8), "BMP")
    return good[:offset] + struct.pack(form, value) + good[offset + struct.calcsize(form) :]


def bmps() -> dict[str, tuple[bytes, type[ImageError]]]:
    return {
        "bmp signature alone": (b"BM", DAMAGED),
        "bmp of its header alone": (bmp(0, "<H", 0x4D42)[:54], DAMAGED),
        "bmp of no width": (bmp(18, "<i", 0), DAMAGED),
        "bmp of no height": (bmp(22, "<i", 0), DAMAGED),
        "bmp of 2**31 - 1 columns": (bmp(18, "<i", 2**31 - 1), MANY),
        "bmp of 2**31 - 1 rows": (bmp(22, "<i", 2**31 - 1), MANY),
        "bmp of 3 bits": (bmp(28, "<H", 3), DAMAGED),
        "bmp with a header of 7 bytes": (bmp(14, "<I", 7), DAMAGED),
        "bmp with a jpeg inside": (bmp(30, "<I", 4), DAMAGED),
        "bmp whose pixels lie past the end": (bmp(10, "<I", 10**6), DAMAGED),
        "bmp of 2**31 colours": (bmp(46, "<I", 2**31), DAMAGED),
    }


def dicom(change: Callable[[Dataset], Any] = lambda _: None, **elements: Any) -> bytes:
    dataset = dicom_dataset(gradient(top=4095), **elements)
    change(dataset)
    return dicom_file(dataset)


def _without(keyword: str) -> bytes:
    return dicom(lambda dataset: delattr(dataset, keyword))


def _compressed(syntax: Any, data: bytes) -> bytes:
    def change(dataset: Dataset) -> None:
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        dataset.PixelData = data

    return dicom(change)


def dicoms() -> dict[str, tuple[bytes, type[ImageError]]]:
    good = dicom()
    empty_frames = bytes.fromhex("feff00e000000000 feffdde000000000")
    return {
        "dicom signature alone": (bytes(128) + b"DICM", DAMAGED),
        "dicom cut in its meta group": (good[:180], DAMAGED),
        "dicom cut before its pixels": (good[: -96 * 160 * 2], DAMAGED),
        "dicom of no rows": (dicom(Rows=0), FEW),
        "dicom of no columns": (dicom(Columns=0), FEW),
        "dicom of 65,535 x 65,535": (dicom(Rows=65_535, Columns=65_535), MANY),
        "dicom without rows": (_without("Rows"), DAMAGED),
        "dicom without bits": (_without("BitsStored"), DAMAGED),
        "dicom without a kind of colours": (_without("PhotometricInterpretation"), DAMAGED),
        "dicom of 12 bits allocated": (dicom(BitsAllocated=12), DAMAGED),
        "dicom of 4 channels": (dicom(SamplesPerPixel=4), DAMAGED),
        "dicom of palette colours": (dicom(PhotometricInterpretation="PALETTE COLOR"), OTHER),
        "dicom of half its pixels": (dicom(Rows=192), DAMAGED),
        "dicom of a thousand frames": (dicom(NumberOfFrames=1000), OTHER),
        "dicom of -1 frames": (dicom(NumberOfFrames=-1), OTHER),
        "dicom in a syntax of its maker": (good.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.99999.1.2.1\0"), OTHER),
        "dicom of no frame in jpeg": (_compressed(JPEGBaseline8Bit, empty_frames), DAMAGED),
        "dicom of no frame in rle": (_compressed(RLELossless, empty_frames), DAMAGED),
        "dicom in a syntax it does not keep": (good.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.2\0"), OTHER),
    }


@cache
def liars() -> dict[str, Upload]:
    """All of them; neither an image nor a mask may be one."""
    found = pngs() | jpegs() | tiffs() | bmps() | dicoms()
    return {name: Upload(data, error) for name, (data, error) in found.items()}
