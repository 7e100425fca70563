"""Good files full of what names a person: DICOM elements, PNG texts, EXIF, TIFF tags, bytes where none belong."""

from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from tests.bad_files import dicom_dataset, dicom_file, encode

# One value each, found nowhere else, so that a search for them finds only what came from a file.
ELEMENTS = {
    "PatientName": "Quokkavitch^Zebulon",
    "PatientID": "PID-QX7731",
    "PatientBirthDate": "19031117",
    "PatientAddress": "12 Wombatgasse, Xyloburg",
    "PatientTelephoneNumbers": "+43-555-017734",
    "PatientMotherBirthName": "Axolotlova",
    "OtherPatientIDs": "OPID-QX7732",
    "PatientComments": "allergic to jabberwock",
    "InstitutionName": "Klinik Quetzalcoatl",
    "InstitutionAddress": "Yggdrasilweg 9",
    "ReferringPhysicianName": "Ocelotova^Ludmila",
    "OperatorsName": "Pangolinsky^Igor",
    "AccessionNumber": "ACC-QX7733",
    "StudyID": "STUDY-QX7734",
    "StudyDate": "19770612",
    "StudyDescription": "wisdom teeth of Zebulon",
    "DeviceSerialNumber": "SERIAL-QX7735",
    "StationName": "STATIONQX7736",
    "ImageComments": "burnt in by narwhal",
    "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.7737",
    "SeriesInstanceUID": "1.2.826.0.1.3680043.8.498.7738",
    "MediaStorageSOPInstanceUID": "1.2.826.0.1.3680043.8.498.7739",
}
OTHERS = {
    "a private element": "private quagga note",
    "an overlay's comment": "overlay by capybara",
    "a nested element": "nested thylacine",
    "the preamble": "preamble of dodo",
    "bytes after the end": "trailing okapi",
    "PNG tEXt": "tEXt by aardvark",
    "PNG zTXt": "zTXt by mongoose",
    "PNG iTXt": "iTXt by tapir",
    "EXIF": "exif of cassowary",
    "JPEG comment": "comment of platypus",
    "TIFF description": "described by tamarin",
    "TIFF artist": "drawn by ibexova",
    "mask": "mask by lemurova",
    "a refused file": "refused vicuna",
}
FILE_NAME = "Quollington_Beatrix_1911"


def dicom(values: NDArray[Any]) -> bytes:
    given = {name: value for name, value in ELEMENTS.items() if name != "MediaStorageSOPInstanceUID"}
    dataset = dicom_dataset(values, **given)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = ELEMENTS["MediaStorageSOPInstanceUID"]
    dataset.private_block(0x0011, "MAKER", create=True).add_new(0x01, "LO", OTHERS["a private element"])
    dataset.add_new(0x60000010, "US", 8)
    dataset.add_new(0x60000011, "US", 8)
    dataset.add_new(0x60003000, "OB", b"secret quoll8888"[:8])
    dataset.add_new(0x60004000, "LT", OTHERS["an overlay's comment"])
    inner = Dataset()
    inner.RequestedProcedureDescription = OTHERS["a nested element"]
    dataset.RequestAttributesSequence = Sequence([inner])
    preamble = OTHERS["the preamble"].encode().ljust(128, b"\0")
    return preamble + dicom_file(dataset)[128:]


def png(values: NDArray[np.uint8], text: str = OTHERS["PNG tEXt"]) -> bytes:
    chunks = PngInfo()
    chunks.add_text("Patient", text)
    chunks.add_text("Comment", OTHERS["PNG zTXt"], zip=True)
    chunks.add_itxt("Title", OTHERS["PNG iTXt"])
    return encode(values, pnginfo=chunks, exif=_exif()) + OTHERS["bytes after the end"].encode()


def jpeg(values: NDArray[np.uint8]) -> bytes:
    return encode(values, "JPEG", exif=_exif(), comment=OTHERS["JPEG comment"].encode())


def tiff(values: NDArray[np.uint8]) -> bytes:
    return encode(values, "TIFF", tiffinfo={270: OTHERS["TIFF description"], 315: OTHERS["TIFF artist"]})


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x010E] = OTHERS["EXIF"]
    return exif


def needles() -> Iterator[tuple[str, bytes]]:
    """What must be found nowhere, by what it is, as bytes of several encodings."""
    for what, value in (ELEMENTS | OTHERS).items():
        for part in value.split("^"):
            yield what, part.encode()
            yield what, part.encode("utf-16-le")


def found_in(data: bytes) -> set[str]:
    return {what for what, needle in needles() if needle in data}


def unpacked(data: bytes) -> Iterator[bytes]:
    """A file, and the files in it if it is a zip."""
    import zipfile

    yield data
    if data.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(BytesIO(data)) as archive:
            for name in archive.namelist():
                yield name.encode()
                yield archive.read(name)
