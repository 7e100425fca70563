"""Guides as they come in: decoded, checked, brought to 512x256, and refused in words that name the file."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from anyio import create_task_group
from numpy.typing import NDArray

from app.problems import FieldError, invalid
from app.records import NewGuide
from app.uploads.decoder import Kind
from app.uploads.decoders import Decoders
from app.uploads.forms import sent_as_text
from app.uploads.multipart import Form, UploadedFile
from app.uploads.turns import Turns
from models import pixels
from models.image_errors import ImageError

FILE_FIELDS = ("image", "mask")
MAX_GUIDES = 1000


@dataclass(frozen=True)
class GuideFiles:
    """A guide to store: its row and the two PNGs, 512x256 unless `full_size`, there as long as the form is."""

    row: NewGuide
    image: UploadedFile
    mask: UploadedFile
    full_size: bool = False  # both PNGs at the guide's own size, for a worker to crop


def wrong_files(form: Form) -> list[FieldError]:
    counts = {name: len(form.files.get(name, [])) for name in FILE_FIELDS}
    wrong = sent_as_text(form, FILE_FIELDS)
    missing = [name for name in FILE_FIELDS if not counts[name] and name not in form.texts]
    wrong += [FieldError(name, f"is missing; send at least one {name} file") for name in missing]
    if not missing and not wrong and counts["image"] != counts["mask"]:
        given = f"{counts['image']} image and {counts['mask']} mask files"
        detail = f"{given}; send one mask per image, in the same order"
        wrong.append(FieldError("mask", detail))
    if counts["image"] > MAX_GUIDES:
        wrong.append(FieldError("image", f"{counts['image']} files, at most {MAX_GUIDES} fit in one job; send fewer"))
    return wrong


async def read_guides(
    form: Form, decoders: Decoders, turns: Turns, tenant: str, full_size: bool = False
) -> list[GuideFiles]:
    """Every guide of the form, decoded when it is its tenant's turn. Raises Problem 422 naming every bad file."""
    pairs = list(zip(form.files["image"], form.files["mask"], strict=True))
    waiting = iter(enumerate(pairs, start=1))
    found: dict[int, GuideFiles | list[FieldError]] = {}

    async def read_some() -> None:
        """One pair after the other, so that a request of a thousand does not stand before all of another's."""
        for number, (image, mask) in waiting:
            place = f"file {number} of {len(pairs)}, " if len(pairs) > 1 else ""
            found[number] = await turns.run(tenant, read_guide, decoders, image, mask, place, full_size)

    try:
        async with create_task_group() as readers:
            for _ in range(len(decoders)):
                readers.start_soon(read_some)
    except ExceptionGroup as errors:  # one says enough: that the decoder is away, say
        raise errors.exceptions[0] from None
    in_order = [found[number] for number in sorted(found)]
    if wrong := [error for one in in_order if not isinstance(one, GuideFiles) for error in one]:
        raise invalid(wrong)
    return [one for one in in_order if isinstance(one, GuideFiles)]


def read_guide(
    decoders: Decoders, image: UploadedFile, mask: UploadedFile, place: str, full_size: bool
) -> GuideFiles | list[FieldError]:
    """The guide, or all that is wrong with its files; `place` says which of many they are."""
    read: list[_Part] = []
    wrong: list[FieldError] = []
    files: dict[Kind, UploadedFile] = {"image": image, "mask": mask}
    for kind, file in files.items():
        try:
            read.append(_read_part(decoders, kind, file, full_size))
        except ImageError as error:
            wrong.append(FieldError(kind, f"{place}{file.name!r}: {error}"))
    if wrong:
        return wrong
    radiograph, labels = read
    try:
        pixels.check_same_size((radiograph.height, radiograph.width), (labels.height, labels.width))
    except ImageError as error:
        return [FieldError("mask", f"{place}{mask.name!r}: {error}")]
    row = NewGuide(image.name, radiograph.width, radiograph.height, radiograph.sha256, labels.sha256)
    return GuideFiles(row, radiograph.png, labels.png, full_size)


@dataclass(frozen=True)
class _Part:
    """A guide's image or mask: its own size, and what is kept of it."""

    width: int
    height: int
    sha256: str  # of the PNG
    png: UploadedFile


def _read_part(decoders: Decoders, kind: Kind, file: UploadedFile, full_size: bool) -> _Part:
    """Raises ImageError."""
    with decoders.read(kind, file, full_size) as decoded:
        png = _png(kind, decoded.pixels, full_size)
        return _Part(decoded.width, decoded.height, pixels.sha256(png), file.beside(png))


def _png(kind: Kind, gray: NDArray[Any], full_size: bool) -> bytes:
    if kind == "image":
        return pixels.full_image_png(gray) if full_size else pixels.image_png(gray)
    return pixels.full_mask_png(gray != 0) if full_size else pixels.mask_png(gray != 0)


def fingerprint(parameters: dict[str, Any], guides: Sequence[GuideFiles], webhook: str | None) -> str:
    """sha256 of a request's meaning: the same parameters over the same pixels, told to the same receiver."""
    content = [
        parameters,
        [[guide.row.name, guide.row.image_sha256, guide.row.mask_sha256] for guide in guides],
        *([webhook] if webhook else []),
    ]
    return pixels.sha256(json.dumps(content, sort_keys=True).encode())
