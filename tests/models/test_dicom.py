from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_modality_lut, apply_voi, apply_windowing
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from models.dicom import _open
from models.image_errors import TruncatedImage, UnsupportedImage
from models.pixels import read_image, read_mask
from tests.bad_files import PATIENT, dicom_dataset, dicom_file, disc, encode, gradient

STORED = gradient(top=4095)


def seen(values: NDArray[Any] = STORED, **elements: Any) -> NDArray[np.float32]:
    return read_image(dicom_file(dicom_dataset(values, **elements)))


def by_pydicom(dataset: Dataset) -> NDArray[np.float64]:
    """Windowed by pydicom and brought from the range that it documents to 0 ... 1."""
    slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
    lowest = -(1 << (dataset.BitsStored - 1)) if dataset.PixelRepresentation else 0
    low, high = (lowest * slope + intercept, (lowest + (1 << dataset.BitsStored) - 1) * slope + intercept)
    shown = apply_windowing(apply_modality_lut(dataset.pixel_array, dataset), dataset)
    brightness: NDArray[np.float64] = (shown - low) / (high - low)
    return brightness


def test_without_a_window_the_bits_stored_are_the_range() -> None:
    assert np.abs(seen(STORED // 4, BitsStored=12) - STORED // 4 / 4095).max() < 1e-6
    assert np.abs(seen(gradient(top=255).astype(np.uint8)) - gradient(top=255) / 255).max() < 1e-6


def test_16_bits_stored_say_nothing_of_the_depth() -> None:
    assert np.abs(seen(STORED) - STORED / 4095).max() < 1e-6
    signed = STORED.astype(np.int16)
    assert np.abs(seen(signed) - STORED / 4095).max() < 1e-6
    assert np.abs(seen(signed - np.int16(1000)) - STORED / STORED.max()).max() < 1e-6


def test_signed_values_begin_at_the_lowest_that_their_bits_hold() -> None:
    values = STORED.astype(np.int16) - np.int16(2048)
    assert np.abs(seen(values, BitsStored=12) - STORED / 4095).max() < 1e-6


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("rescale", [{}, {"RescaleSlope": 2.5, "RescaleIntercept": -1000}])
@pytest.mark.parametrize("signed", [False, True])
def test_rescale_and_window_are_those_of_pydicom(function: str, rescale: dict[str, Any], signed: bool) -> None:
    values = STORED.astype(np.int16) - np.int16(2048) if signed else STORED
    window = {"WindowCenter": 500 if signed else 1800, "WindowWidth": 1500, "VOILUTFunction": function}
    dataset = dicom_dataset(values, BitsStored=12, **window, **rescale)
    image = read_image(dicom_file(dataset))
    assert np.abs(image - by_pydicom(dataset)).max() < 1e-5
    assert np.ptp(image) > 0.8


@pytest.mark.parametrize("function", ["LINEAR_EXACT", "SIGMOID"])
def test_a_window_over_fractions_may_be_narrower_than_1(function: str) -> None:
    rescale = {"RescaleSlope": "0.000244140625", "RescaleIntercept": 0}  # a 4096th
    window = {"WindowCenter": 0.4, "WindowWidth": 0.5, "VOILUTFunction": function}
    dataset = dicom_dataset(STORED, BitsStored=12, **window, **rescale)
    assert np.abs(read_image(dicom_file(dataset)) - by_pydicom(dataset)).max() < 1e-5


def test_a_window_saturates_outside_by_the_formula_of_the_standard() -> None:
    image = seen(WindowCenter=2048, WindowWidth=1025)
    wanted = np.clip((STORED - 2047.5) / 1024 + 0.5, 0, 1)
    assert np.abs(image - wanted).max() < 1e-6


def test_of_several_windows_the_first_counts() -> None:
    several = seen(WindowCenter=[2048, 100], WindowWidth=[1025, 50])
    assert np.array_equal(several, seen(WindowCenter=2048, WindowWidth=1025))


def test_a_window_of_no_width_is_no_window() -> None:
    assert np.array_equal(seen(WindowCenter=0, WindowWidth=0), seen())


def test_a_voi_lut_comes_before_the_window() -> None:
    table = Dataset()
    table.LUTDescriptor = [4096, 0, 16]
    table.LUTData = (65_535 - np.arange(4096, dtype=np.uint16) * 16).tobytes()
    table["LUTData"].VR = "OW"
    dataset = dicom_dataset(STORED, BitsStored=12, VOILUTSequence=[table], WindowCenter=1, WindowWidth=2)
    assert np.abs(read_image(dicom_file(dataset)) - apply_voi(dataset.pixel_array, dataset) / 65_535).max() < 1e-6


def test_a_modality_lut_is_applied() -> None:
    table = Dataset()
    table.LUTDescriptor = [4096, 0, 16]
    table.LUTData = (np.arange(4096, dtype=np.float64) ** 2 / 256).astype(np.uint16).tobytes()
    table["LUTData"].VR = "OW"
    table.ModalityLUTType = "US"
    dataset = dicom_dataset(STORED, BitsStored=12, ModalityLUTSequence=[table])
    wanted = apply_modality_lut(dataset.pixel_array, dataset) / 65_535
    assert np.abs(read_image(dicom_file(dataset)) - wanted).max() < 1e-6


@pytest.mark.parametrize("packed", [False, True])
def test_a_lut_of_bytes_takes_values_of_more_bits(packed: bool) -> None:
    table = Dataset()
    table.LUTDescriptor = [4096, 0, 8]
    table.LUTData = (np.arange(4096) // 16).astype(np.uint8 if packed else np.uint16).tobytes()
    table["LUTData"].VR = "OW"
    for sequence in ("VOILUTSequence", "ModalityLUTSequence"):
        assert np.abs(seen(BitsStored=12, **{sequence: [table]}) - STORED // 16 / 255).max() < 1e-6


def test_values_beyond_a_lut_take_its_ends() -> None:
    table = Dataset()
    table.LUTDescriptor = [1000, 500, 10]
    table.LUTData = list(range(1000))
    table["LUTData"].VR = "US"
    wanted = (STORED.astype(float) - 500).clip(0, 999) / 1023
    assert np.abs(seen(BitsStored=12, VOILUTSequence=[table]) - wanted).max() < 1e-6


def test_padding_says_nothing_of_the_depth() -> None:
    for padding, values in ((65_535, STORED), (-32_768, STORED.astype(np.int16))):
        padded = values.copy()
        padded[:, :40] = padding
        assert np.array_equal(seen(padded, PixelPaddingValue=padding)[:, 40:], seen(values)[:, 40:])


def test_monochrome1_is_turned_round_with_and_without_a_window() -> None:
    for window in ({}, {"WindowCenter": 2048, "WindowWidth": 1025}):
        inverse = seen(PhotometricInterpretation="MONOCHROME1", **window)
        assert np.abs(inverse - (1 - seen(**window))).max() < 1e-6


def test_a_falling_rescale_turns_the_picture_round() -> None:
    assert np.abs(seen(RescaleSlope=-1, RescaleIntercept=4095) - (1 - seen())).max() < 1e-6


def test_bits_above_those_stored_are_not_pixels() -> None:
    overlaid = STORED | (disc().astype(np.uint16) << 15)
    assert np.array_equal(seen(overlaid, BitsStored=12), seen(BitsStored=12))


def test_colour_becomes_its_luminance() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    assert np.abs(seen(colours) - colours @ [0.299, 0.587, 0.114] / 255).max() < 1e-6


def compressed(picture: bytes, syntax: str, values: NDArray[Any], **elements: Any) -> bytes:
    dataset = dicom_dataset(values, PixelData=encapsulate([picture]), **elements)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return dicom_file(dataset)


def test_rle_jpeg_and_jpeg_2000_are_decoded() -> None:
    dataset = dicom_dataset(STORED, BitsStored=12)
    dataset.compress(RLELossless)
    assert np.array_equal(read_image(dicom_file(dataset)), seen(BitsStored=12))
    levels = gradient().astype(np.uint8)
    lossless = encode(levels, "JPEG2000", no_jp2=True)
    assert np.array_equal(read_image(compressed(lossless, JPEG2000Lossless, levels)), seen(levels))
    lossy = encode(levels, "JPEG", quality=95)
    assert np.abs(read_image(compressed(lossy, JPEGBaseline8Bit, levels)) - seen(levels)).max() < 5 / 255


def test_a_compressed_picture_larger_than_its_header_says_is_refused_undecoded() -> None:
    large = encode(np.zeros((4000, 4000), np.uint8), "JPEG2000", no_jp2=True)
    with pytest.raises(TruncatedImage, match="160 x 96 pixels, its compressed picture is 4000 x 4000"):
        read_image(compressed(large, JPEG2000Lossless, gradient().astype(np.uint8)))


def test_rle_data_that_could_unpack_to_a_gigabyte_is_refused() -> None:
    with pytest.raises(UnsupportedImage, match=r"bytes of RLE data; export it uncompressed"):
        read_image(compressed(bytes(17_000_000), RLELossless, STORED))


def test_an_unreadable_compression_is_named_with_the_remedy() -> None:
    with pytest.raises(UnsupportedImage, match=r"JPEG-LS Lossless.*export it uncompressed .* or as PNG"):
        read_image(compressed(bytes(100), JPEGLSLossless, STORED))


def test_rescale_values_that_are_not_numbers_are_refused() -> None:
    with pytest.raises(UnsupportedImage, match="not finite"):
        seen(RescaleSlope=float("inf"), RescaleIntercept=0, WindowCenter=10, WindowWidth=10)


def test_nothing_about_the_patient_is_read() -> None:
    data = dicom_file(dicom_dataset(STORED))
    assert PATIENT.encode() in data
    assert dcmread(BytesIO(data)).PatientName == PATIENT
    assert "Patient" not in " ".join(_open(data, 60_000_000).dir())


@pytest.mark.parametrize("element", ["WindowCenter", "WindowWidth", "NumberOfFrames"])
def test_errors_quote_nothing_of_the_file(element: str) -> None:
    elements = {"WindowCenter": 5, "WindowWidth": 5, "NumberOfFrames": 1, element: 1234}
    broken = dicom_file(dicom_dataset(STORED, **elements)).replace(b"1234", b"Doe^")
    with pytest.raises(TruncatedImage) as refusal:
        read_image(broken)
    assert "Doe" not in str(refusal.value)


def test_a_mask_is_read_by_its_stored_values_and_not_through_a_window() -> None:
    values = disc().astype(np.uint8)
    for elements in ({}, {"WindowCenter": 200, "WindowWidth": 10}, {"BitsStored": 1}):
        assert np.array_equal(read_mask(dicom_file(dicom_dataset(values, **elements))), disc())


def test_a_monochrome1_mask_is_turned_round() -> None:
    values = (~disc()).astype(np.uint8) * np.uint8(255)
    inverse = dicom_file(dicom_dataset(values, PhotometricInterpretation="MONOCHROME1"))
    assert np.array_equal(read_mask(inverse), disc())
