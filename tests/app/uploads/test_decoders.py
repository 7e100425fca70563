"""app/uploads/decoders.py: several files at once, a large one alone."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager

import numpy as np
import pytest

from app.uploads.decoder import Decoded
from app.uploads.decoders import MOST, Decoders
from models import pixels
from models.image_errors import TooManyPixels
from tests.bad_files import disc, encode
from tests.waiting import decoder_processes, until

SMALL = encode(np.random.default_rng(0).integers(0, 256, (96, 160), np.uint8))
LARGE = encode(np.random.default_rng(1).integers(0, 256, (200, 300), np.uint8))
MAX_PIXELS = 60_000


@contextmanager
def decoders_of(count: int) -> Iterator[Decoders]:
    made = Decoders(MAX_PIXELS, count)
    yield made
    made.close()


def read_by(decoders: Decoders, file: bytes) -> Decoded:
    with decoders.read("image", [file]) as decoded:
        return decoded


def test_a_lone_file_takes_one_child_and_several_at_once_take_more() -> None:
    before = decoder_processes()
    with decoders_of(3) as decoders, ThreadPoolExecutor(8) as threads:
        for _ in range(3):
            read_by(decoders, SMALL)
        assert len(decoder_processes() - before) == 1
        read = list(threads.map(lambda _: read_by(decoders, SMALL).pixels, range(40)))
        assert len(decoder_processes() - before) == len(decoders) == 3
    assert all((found == read[0]).all() for found in read)
    assert decoder_processes() == before


def test_there_are_never_many() -> None:
    with decoders_of(64) as decoders:
        assert len(decoders) == MOST


@pytest.mark.parametrize("count", [1, 3])
def test_a_large_file_is_read_as_a_small_one_is_and_one_that_is_too_large_is_told_the_limit(count: int) -> None:
    mask = encode(disc(200, 300).astype(np.uint8))
    too_large = encode(np.random.default_rng(2).integers(0, 256, (201, 300), np.uint8))
    with decoders_of(count) as decoders:
        image = read_by(decoders, LARGE)
        with decoders.read("mask", [mask], full_size=True) as labels:
            pass
        with pytest.raises(TooManyPixels, match="300 x 201 pixels, 60,300 in all, and at most 60,000"):
            read_by(decoders, too_large)
    assert (image.width, image.height) == (300, 200)
    assert (image.pixels == pixels.resize_image(pixels.read_image(LARGE))).all()
    assert (labels.pixels == pixels.read_mask(mask)).all()


def test_while_a_large_file_is_read_all_others_wait() -> None:
    with decoders_of(3) as decoders, ThreadPoolExecutor(8) as threads:
        read_by(decoders, SMALL)
        before = decoder_processes()
        read_by(decoders, LARGE)
        (child,) = decoder_processes() - before
        os.kill(child.pid, signal.SIGSTOP)
        large = [threads.submit(read_by, decoders, LARGE) for _ in range(2)]
        small: list[Future[Decoded]] = []

        def waits() -> bool:
            small.append(threads.submit(read_by, decoders, SMALL))
            return bool(wait(small, 0.5).not_done)

        until(waits)
        os.kill(child.pid, signal.SIGCONT)
        assert {future.result(30).width for future in large} == {300}
        assert {future.result(30).width for future in small} == {160}
