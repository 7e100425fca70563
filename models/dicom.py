"""DICOM files to radiographs: only what gives pixels is read, no name, date or number of a patient."""

from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.image_errors import TruncatedImage, UnsupportedImage, check_pixel_count, decoding
from models.image_files import brightness

if TYPE_CHECKING:
    from pydicom import Dataset

_READ_TAGS = [
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelData"),
    *("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept"),
    *("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
]
_PLAIN_SYNTAXES = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"}
_RLE = "1.2.840.10008.1.2.5"
_RLE_MAX_BYTES = 16_000_000  # a byte can unpack to 64: the memory that one upload may take
_PILLOW_SYNTAXES = {f"1.2.840.10008.1.2.4.{last}" for last in (50, 90, 91)}  # JPEG baseline, JPEG 2000
_COLOURS = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"}
_UNCOMPRESSED = "export it uncompressed (Explicit VR Little Endian), or as PNG"


def is_dicom(data: bytes) -> bool:
    return data[128:132] == b"DICM"


def read_stored(data: bytes, max_pixels: int) -> NDArray[Any]:
    """The stored values, black lowest, without window, for masks: (H, W), or colours (H, W, 3) uint8."""
    with decoding("DICOM"):
        dataset = _open(data, max_pixels)
        values = _pixels(dataset)
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            values = values.max() - values  # values of a mask: the highest is the background
        return values


def read_brightness(data: bytes, max_pixels: int) -> NDArray[np.float32]:
    """As a viewer shows it: (H, W) float32 in [0, 1], black 0 (PS3.3 C.7.6.3, C.11.1, C.11.2).

    Through the first VOI LUT or else the first window; with neither, over the range of the stored bits; 16 or more
    leave the real depth unknown, which is guessed as for other files (`brightness`). MONOCHROME1 is inverted. Raises
    ImageError.
    """
    with decoding("DICOM"):
        dataset = _open(data, max_pixels)
        values = _pixels(dataset)
        if values.ndim == 3:
            return brightness(values)
        with np.errstate(all="ignore"):
            shown = _grayscale(values, dataset)
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            shown = 1 - shown
        if not np.isfinite(shown).all():
            raise UnsupportedImage("the DICOM file's rescale or window values are not finite; export the image as PNG")
        return shown.clip(0, 1).astype(np.float32)


def _open(data: bytes, max_pixels: int) -> "Dataset":
    from pydicom import dcmread

    _check_compression(data)
    dataset = dcmread(BytesIO(data), specific_tags=_READ_TAGS)
    if "PixelData" not in dataset:
        raise UnsupportedImage(
            "the DICOM file holds no pixels (a report or a directory?); send the file of the image itself"
        )
    check_pixel_count(int(dataset.Columns), int(dataset.Rows), max_pixels)
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames != 1:
        raise UnsupportedImage(f"the DICOM file holds {frames:,} frames; export the panoramic view as a single frame")
    if dataset.PhotometricInterpretation not in {"MONOCHROME1", "MONOCHROME2", *_COLOURS}:
        raise UnsupportedImage("the DICOM file's colours are not grayscale, RGB or YBR; export the image as PNG")
    _check_place_of_bits(dataset)
    _check_compressed_size(dataset)
    return dataset


def _check_compression(data: bytes) -> None:
    """By the file's meta group alone, before pydicom would inflate a deflated file of any size."""
    from pydicom.filereader import read_dataset

    meta = read_dataset(BytesIO(data[132:]), False, True, stop_when=lambda tag, _vr, _length: tag >> 16 != 2)
    syntax = meta.TransferSyntaxUID
    if syntax not in {*_PLAIN_SYNTAXES, _RLE, *_PILLOW_SYNTAXES}:
        kind = f"compressed as {syntax.name}" if syntax.is_transfer_syntax else "stored in a syntax of its maker's own"
        raise UnsupportedImage(f"the DICOM file is {kind}, which is not read here; {_UNCOMPRESSED}")


def _check_place_of_bits(dataset: "Dataset") -> None:
    """Old files may hold their bits at the upper end of a word (PS3.5 8.1.1); pydicom takes the lower ones."""
    stored, highest = int(dataset.BitsStored), dataset.get("HighBit")
    compressed = dataset.file_meta.TransferSyntaxUID in _PILLOW_SYNTAXES  # these tell the depth themselves
    if highest is not None and highest != stored - 1 and not compressed:
        raise UnsupportedImage(
            f"the DICOM file says that the highest of its {stored} bits is bit {highest}, where only {stored - 1} is "
            "read here; export the image as PNG"
        )


def _check_compressed_size(dataset: "Dataset") -> None:
    from PIL import Image
    from pydicom.encaps import get_frame

    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax == _RLE and len(dataset.PixelData) > _RLE_MAX_BYTES:
        raise UnsupportedImage(f"the DICOM file holds {len(dataset.PixelData):,} bytes of RLE data; {_UNCOMPRESSED}")
    if syntax in _PILLOW_SYNTAXES:
        stream = Image.open(BytesIO(get_frame(dataset.PixelData, 0, number_of_frames=1)), formats=("JPEG", "JPEG2000"))
        if stream.size != (dataset.Columns, dataset.Rows):
            raise TruncatedImage(
                f"the DICOM header says {dataset.Columns} x {dataset.Rows} pixels, its compressed picture is "
                f"{stream.width} x {stream.height}; {_UNCOMPRESSED}"
            )


def _pixels(dataset: "Dataset") -> NDArray[Any]:
    from pydicom.pixels.decoders.base import get_decoder

    values: NDArray[Any]
    values, _ = get_decoder(dataset.file_meta.TransferSyntaxUID).as_array(dataset, raw=False)
    if values.ndim == 3 and values.dtype != np.uint8:
        raise UnsupportedImage(f"the DICOM file holds colours of {dataset.BitsAllocated} bits; export the image as PNG")
    return values


def _grayscale(values: NDArray[Any], dataset: "Dataset") -> NDArray[Any]:
    """Stored values -> modality LUT or rescale -> VOI LUT or window -> 0 ... 1."""
    if dataset.get("VOILUTSequence"):
        return _looked_up(_modality(values, dataset), dataset, "VOILUTSequence") / _white(dataset.VOILUTSequence)
    center, width = _first(dataset.get("WindowCenter")), _first(dataset.get("WindowWidth"))
    function = dataset.get("VOILUTFunction") or "LINEAR"
    if center is not None and width is not None and (width >= 1 or (width > 0 and function != "LINEAR")):
        return _window(_modality(values, dataset), center, width, function)  # others are void: some scanners write 0
    if dataset.get("ModalityLUTSequence"):
        return _modality(values, dataset) / _white(dataset.ModalityLUTSequence)
    # A rescale changes the values and the range that is shown alike, so only its sign can be seen.
    shown = _full_range(values, dataset)
    return 1 - shown if float(dataset.get("RescaleSlope") or 1) < 0 else shown


def _modality(values: NDArray[Any], dataset: "Dataset") -> NDArray[Any]:
    """Stored values through the modality LUT, else the rescale, if there is one."""
    from pydicom.pixels.processing import apply_rescale

    if dataset.get("ModalityLUTSequence"):
        return _looked_up(values, dataset, "ModalityLUTSequence")
    rescaled: NDArray[Any] = apply_rescale(values, dataset)
    return rescaled


def _looked_up(values: NDArray[Any], dataset: "Dataset", sequence: str) -> NDArray[Any]:
    """Values through the first table of a sequence, as its entries are (PS3.3 C.11.1.1.1, C.11.2.1.1).

    Not by pydicom, which takes the values modulo 256 where the entries have 8 bits.
    """
    table = dataset[sequence][0]
    count, first = int(table.LUTDescriptor[0]) or 1 << 16, int(table.LUTDescriptor[1])
    entries = table.LUTData
    if isinstance(entries, bytes):
        words = "<u2" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">u2"
        entries = np.frombuffer(entries, np.uint8 if len(entries) < 2 * count else words)
    entries = np.atleast_1d(entries)[:count]
    places = np.subtract(values, first, dtype=np.int64, casting="unsafe")
    found: NDArray[Any] = entries[places.clip(0, len(entries) - 1, out=places)]
    return found


def _white(sequence: Any) -> int:
    return (1 << int(sequence[0].LUTDescriptor[2])) - 1


def _full_range(values: NDArray[Any], dataset: "Dataset") -> NDArray[Any]:
    bits = int(dataset.BitsStored)
    if bits >= 16:
        padding = dataset.get("PixelPaddingValue")
        return brightness(values if padding is None else _unpadded(values, padding))
    lowest = 1 << (bits - 1) if dataset.PixelRepresentation else 0
    return (values + np.float64(lowest)) / ((1 << bits) - 1)


def _unpadded(values: NDArray[Any], padding: int) -> NDArray[Any]:
    """What pads a picture tells nothing of its depth: it becomes the lowest or the highest of the other values."""
    pixels = values[values != padding]
    return values.clip(pixels.min(), pixels.max()) if pixels.size else values


def _window(values: NDArray[Any], center: float, width: float, function: str) -> NDArray[Any]:
    """PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    values = values.astype(np.float64)
    if function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (values - center) / width))
    if function == "LINEAR":
        center, width = center - 0.5, max(width - 1, 1e-9)
    return ((values - center) / width + 0.5).clip(0, 1)


def _first(value: Any) -> float | None:
    from pydicom.multival import MultiValue

    if isinstance(value, MultiValue):
        value = value[0] if value else None
    return None if value is None or value == "" else float(value)
