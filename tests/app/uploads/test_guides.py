"""app/uploads/guides.py: guides between their upload and the store."""

import tempfile
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import anyio
import numpy as np
import pytest
from numpy.typing import NDArray

from app.errors import DecoderAway
from app.problems import Problem
from app.uploads.decoders import Decoders
from app.uploads.guides import GuideFiles, read_guides
from app.uploads.multipart import Form, Spool, UploadedFile
from app.uploads.turns import Turns
from models import pixels
from tests.bad_files import disc, encode

MASK = encode(disc(512, 1024).astype(np.uint8) * np.uint8(255))


def radiograph(seed: int) -> bytes:
    return encode(np.random.default_rng(seed).integers(0, 256, (512, 1024), np.uint8))


@contextmanager
def form_of(*pairs: tuple[bytes, bytes]) -> Iterator[Form]:
    with tempfile.TemporaryFile() as stored:
        spool = Spool(stored)

        def files(part: int) -> list[UploadedFile]:
            return [
                UploadedFile(f"{number}.png", spool.append(pair[part]), len(pair[part]), spool)
                for number, pair in enumerate(pairs)
            ]

        yield Form(files={"image": files(0), "mask": files(1)})


def read(form: Form, count: int, full_size: bool = False) -> Sequence[GuideFiles]:
    """By so many decoders."""
    decoders = Decoders(10**6, count)
    try:
        return anyio.run(read_guides, form, decoders, Turns(count), "default", full_size)
    finally:
        decoders.close()


def test_guides_to_be_cropped_wait_for_the_store_on_the_disk() -> None:
    image = radiograph(0)
    with form_of(*4 * [(image, MASK)]) as form:
        tracemalloc.start()
        guides = read(form, 1, full_size=True)
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert [guide.image.size > len(image) / 2 for guide in guides] == 4 * [True]
        pngs = [file.open().read() for guide in guides for file in (guide.image, guide.mask)]
        assert held < len(image)
    assert len(set(pngs)) == 2 and pngs[:2] == pngs[2:4] and all(png.startswith(b"\x89PNG") for png in pngs)


def test_the_pixels_of_large_guides_are_in_memory_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    to_png = pixels.full_image_png
    begun: list[int] = []
    ended: list[int] = []

    def slowly(levels: NDArray[np.uint16]) -> bytes:
        begun.append(len(ended))
        time.sleep(0.5)  # in which another could be decoded
        ended.append(len(begun))
        return to_png(levels)

    monkeypatch.setattr(pixels, "full_image_png", slowly)
    with form_of(*3 * [(radiograph(0), MASK)]) as form:
        read(form, 3, full_size=True)  # each has more than a third of the pixels that are allowed
    assert (begun, ended) == ([0, 1, 2], [1, 2, 3])


@pytest.mark.parametrize("count", [1, 3])
def test_guides_keep_their_order_and_their_own_pixels_however_many_are_read_at_once(count: int) -> None:
    images = [radiograph(seed) for seed in range(7)]
    with form_of(*((image, MASK) for image in images)) as form:
        guides = read(form, count)
        assert [guide.row.name for guide in guides] == [f"{number}.png" for number in range(7)]
        for guide, image in zip(guides, images, strict=True):
            png = guide.image.open().read()
            assert (pixels.image_from_png(png) == pixels.resize_image(pixels.read_image(image))).all()
            assert guide.row.image_sha256 == pixels.sha256(png)
            assert guide.row.mask_sha256 == pixels.sha256(guide.mask.open().read())


def test_every_bad_file_is_named_in_the_order_they_came() -> None:
    good, cut = radiograph(0), radiograph(0)[:900]
    pairs = [(good, MASK), (cut, MASK), (good, b"no mask"), (good, MASK), (cut, b"")]
    with form_of(*pairs) as form, pytest.raises(Problem) as refused:
        read(form, 3)
    named = [(error.field, error.detail.split(":")[0]) for error in refused.value.fields]
    assert named == [
        ("image", "file 2 of 5, '1.png'"),
        ("mask", "file 3 of 5, '2.png'"),
        ("image", "file 5 of 5, '4.png'"),
        ("mask", "file 5 of 5, '4.png'"),
    ]


def test_without_a_decoder_there_is_one_answer_however_many_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with form_of(*5 * [(radiograph(0), MASK)]) as form, pytest.raises(DecoderAway, match="cannot be started"):
        read(form, 3)
