"""Uploads that are no good, or only look so, made in memory; for every test that sends files."""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEGLosslessSV1,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from models.image_errors import (
    EmptyMask,
    FullMask,
    ImageError,
    NotAnImage,
    NotARadiograph,
    NotBinary,
    TooFewPixels,
    TooManyPixels,
    TruncatedImage,
    UnsupportedImage,
)

PATIENT = "SECRET^PATIENT"


@dataclass(frozen=True)
class Upload:
    """A file and what is expected of it; `error` is None where it must be taken."""

    data: bytes
    error: type[ImageError] | None


def gradient(height: int = 96, width: int = 160, top: int = 255) -> NDArray[np.uint16]:
    """A picture with 0 at the upper left and `top` at the lower right corner."""
    ramp = np.add.outer(np.arange(height) * width, np.arange(width) * height).astype(np.float64)
    levels: NDArray[np.uint16] = np.rint(ramp / ramp.max() * top).astype(np.uint16)
    return levels


def disc(height: int = 96, width: int = 160) -> NDArray[np.bool_]:
    y, x = np.mgrid[:height, :width]
    inside: NDArray[np.bool_] = (y - height / 2) ** 2 + (x - width / 2) ** 2 < (height / 4) ** 2
    return inside


def encode(picture: Image.Image | NDArray[Any], kind: str = "PNG", **options: Any) -> bytes:
    """As a file of this kind."""
    out = BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(out, kind, **options)
    return out.getvalue()


def dicom_dataset(values: NDArray[Any], **elements: Any) -> Dataset:
    """A secondary capture of stored values (H, W) or (H, W, 3), of 8 or 16 bits, signed or not."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid(entropy_srcs=["one"])
    dataset.PatientName = PATIENT
    dataset.PatientID = PATIENT
    dataset.Rows, dataset.Columns = values.shape[:2]
    dataset.SamplesPerPixel = 3 if values.ndim == 3 else 1
    if values.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = "RGB" if values.ndim == 3 else "MONOCHROME2"
    dataset.BitsAllocated = 8 * values.dtype.itemsize
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    dataset.PixelData = values.tobytes() + bytes(values.nbytes % 2)
    dataset.BitsStored = elements.get("BitsStored", dataset.BitsAllocated)
    dataset.HighBit = dataset.BitsStored - 1
    for name, value in elements.items():
        setattr(dataset, name, value)
    return dataset


def dicom_file(dataset: Dataset) -> bytes:
    out = BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


@cache
def png_bomb(side: int = 30_000) -> bytes:
    """A valid 1-bit PNG of side x side black pixels in some 100 kB; as grays it would fill 900 MB."""
    rows = zlib.compressobj(9)
    pixels = b"".join(rows.compress(bytes(1 + side // 8)) for _ in range(side)) + rows.flush()
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")


def tiff_bomb(side: int = 30_000) -> bytes:
    """A TIFF that announces side x side grays and holds 100 bytes."""
    tags = [
        (256, side),
        (257, side),
        (258, 8),
        (259, 1),
        (262, 1),
        (273, 200),
        (277, 1),
        (278, side),
        (279, 100),
    ]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0)
    return head.ljust(200, b"\0") + bytes(100)


def _animated(kind: str) -> bytes:
    frames = [Image.fromarray((gradient() // n).astype(np.uint8)) for n in (1, 2, 3)]
    return encode(frames[0], kind, save_all=True, append_images=frames[1:])


def _dicom_without_pixels() -> bytes:
    dataset = dicom_dataset(gradient())
    del dataset.PixelData
    return dicom_file(dataset)


def _dicom_in(syntax: UID) -> bytes:
    """Compressed as this, or so the file says."""
    dataset = dicom_dataset(gradient())
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax == JPEGLosslessSV1:
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        dataset.PixelData = bytes.fromhex("feff00e000000000 feff00e004000000 ffd8ffd9 feffdde000000000")
    return dicom_file(dataset)


def _png(values: NDArray[Any]) -> bytes:
    return encode(values.astype(np.uint8))


def _colours(*colours: tuple[int, int, int]) -> bytes:
    """Black with one stripe of each colour."""
    pixels = np.zeros((96, 160, 3), np.uint8)
    for k, colour in enumerate(colours):
        pixels[10:80, 20 + 30 * k : 40 + 30 * k] = colour
    return encode(pixels)


def _palette(foreground: int) -> bytes:
    picture = Image.fromarray(disc().astype(np.uint8) * np.uint8(foreground)).convert("P")
    picture.putpalette([0, 0, 0] + [200, 30, 30] * 255)
    return encode(picture)


def _transparent(opacity: NDArray[np.uint8]) -> bytes:
    """White where it is opaque."""
    return encode(np.dstack([np.full((96, 160, 3), 255, np.uint8), opacity]))


@cache
def not_images() -> dict[str, Upload]:
    """Files that neither an image nor a mask may be."""
    png, jpeg, tiff = (encode(gradient().astype(np.uint8), kind) for kind in ("PNG", "JPEG", "TIFF"))
    dicom = dicom_file(dicom_dataset(gradient(top=4095)))
    return {
        "nothing": Upload(b"", NotAnImage),
        "one byte": Upload(b"\x89", NotAnImage),
        "text": Upload(b"a radiograph, believe me\n" * 40, NotAnImage),
        "html": Upload(b"<!doctype html><html><body><img src='pan.png'></body></html>", NotAnImage),
        "svg": Upload(b"<svg xmlns='http://www.w3.org/2000/svg' width='600' height='300'/>", NotAnImage),
        "pdf": Upload(b"%PDF-1.7\n1 0 obj\n", UnsupportedImage),
        "zip": Upload(b"PK\x03\x04" + bytes(200), UnsupportedImage),
        "postscript": Upload(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 600 300\n", NotAnImage),
        "animated gif": Upload(_animated("GIF"), UnsupportedImage),
        "animated png": Upload(_animated("PNG"), UnsupportedImage),
        "tiff of three pages": Upload(_animated("TIFF"), UnsupportedImage),
        "webp": Upload(encode(gradient().astype(np.uint8), "WEBP"), UnsupportedImage),
        "png signature alone": Upload(png[:8], TruncatedImage),
        "png cut in the middle": Upload(png[: len(png) // 2], TruncatedImage),
        "png of 8 kB that is cut": Upload(
            _png(np.random.default_rng(1).integers(0, 256, (96, 160)))[:8000], TruncatedImage
        ),
        "jpeg cut in the middle": Upload(jpeg[: len(jpeg) // 2], TruncatedImage),
        "tiff cut in the middle": Upload(tiff[: len(tiff) // 2], TruncatedImage),
        "bmp cut in the middle": Upload(encode(gradient().astype(np.uint8), "BMP")[:5000], TruncatedImage),
        "dicom cut in the middle": Upload(dicom[: len(dicom) // 2], TruncatedImage),
        "png bomb": Upload(png_bomb(), TooManyPixels),
        "tiff bomb": Upload(tiff_bomb(), TooManyPixels),
        "dicom bomb": Upload(dicom_file(dicom_dataset(gradient(), Rows=30_000, Columns=30_000)), TooManyPixels),
        "icon": Upload(_png(gradient(16, 16)), TooFewPixels),
        "dicom without pixels": Upload(_dicom_without_pixels(), UnsupportedImage),
        "dicom without its header": Upload(dicom[132:], UnsupportedImage),
        "dicom in lossless jpeg": Upload(_dicom_in(JPEGLosslessSV1), UnsupportedImage),
        "deflated dicom": Upload(_dicom_in(DeflatedExplicitVRLittleEndian), UnsupportedImage),
        "dicom with its bits at the upper end": Upload(
            dicom_file(dicom_dataset(gradient(top=4095) * np.uint16(16), BitsStored=12, HighBit=15)), UnsupportedImage
        ),
        "dicom of two frames": Upload(
            dicom_file(dicom_dataset(gradient(), Rows=48, NumberOfFrames=2)), UnsupportedImage
        ),
    }


@cache
def images() -> dict[str, Upload]:
    """What may come as a guide's image or into a pool."""
    deep = gradient(top=65_535)
    colour = np.dstack([gradient().astype(np.uint8)] * 3)
    rotated = Image.Exif()
    rotated[0x0112] = 6
    return not_images() | {
        "8-bit png": Upload(_png(gradient()), None),
        "16-bit png": Upload(encode(deep), None),
        "16-bit tiff": Upload(encode(deep, "TIFF", compression="tiff_deflate"), None),
        "float tiff": Upload(encode(gradient().astype(np.float32) / 255, "TIFF"), None),
        "float tiff with a hole": Upload(encode(np.full((96, 160), np.nan, np.float32), "TIFF"), UnsupportedImage),
        "blank": Upload(_png(np.full((96, 160), 200)), NotARadiograph),
        "blank dicom": Upload(dicom_file(dicom_dataset(np.zeros((96, 160)))), NotARadiograph),
        "a mask": Upload(_png(disc() * 255), NotARadiograph),
        "a mask of 1 bit": Upload(encode(Image.fromarray(disc())), NotARadiograph),
        "colour png": Upload(encode(colour), None),
        "cmyk jpeg": Upload(encode(Image.fromarray(colour).convert("CMYK"), "JPEG"), None),
        "palette png": Upload(encode(Image.fromarray(colour).convert("P")), None),
        "bmp": Upload(encode(gradient().astype(np.uint8), "BMP"), None),
        "jpeg on its side": Upload(encode(gradient().astype(np.uint8), "JPEG", exif=rotated), None),
        "dicom": Upload(dicom_file(dicom_dataset(gradient(top=4095))), None),
    }


@cache
def masks() -> dict[str, Upload]:
    """What may come as a mask."""
    inside = disc()
    soft = encode(Image.fromarray(inside.astype(np.uint8) * np.uint8(255)), "JPEG", quality=60)
    two_colours = _colours((255, 0, 0), (0, 255, 0))
    return not_images() | {
        "0 and 1": Upload(_png(inside), None),
        "0 and 255": Upload(_png(inside * 255), None),
        "1 bit": Upload(encode(Image.fromarray(inside)), None),
        "16 bit": Upload(encode(inside.astype(np.uint16) * np.uint16(65_535)), None),
        "one colour on black": Upload(_colours((255, 0, 0)), None),
        "palette": Upload(_palette(7), None),
        "white on nothing": Upload(_transparent(inside.astype(np.uint8) * np.uint8(255)), None),
        "dicom mask": Upload(dicom_file(dicom_dataset(inside.astype(np.uint8))), None),
        "two colours on black": Upload(two_colours, NotBinary),
        "many grays": Upload(_png(gradient()), NotBinary),
        "1 and 2": Upload(_png(inside + np.uint8(1)), NotBinary),
        "jpeg with artefacts": Upload(soft, NotBinary),
        "half transparent": Upload(_transparent(gradient().astype(np.uint8)), NotBinary),
        "all black": Upload(_png(np.zeros((96, 160))), EmptyMask),
        "all white": Upload(_png(np.full((96, 160), 255)), FullMask),
        "all red": Upload(encode(np.full((96, 160, 3), (255, 0, 0), np.uint8)), FullMask),
        "black on white": Upload(_png(~inside * 255), FullMask),
        "empty dicom mask": Upload(dicom_file(dicom_dataset(np.zeros((96, 160), np.uint8))), EmptyMask),
    }


BUILDERS: dict[str, Callable[[], dict[str, Upload]]] = {"image": images, "mask": masks}
