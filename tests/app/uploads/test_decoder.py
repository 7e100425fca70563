"""app/uploads/decoder.py: what a file may take, and what becomes of the child and of the next file."""

import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import psutil
import pytest

from app.errors import DecoderAway
from app.uploads.decoder import ROOT, Decoder, Limits, is_answer
from models import pixels
from models.image_errors import ImageError
from tests.bad_files import disc, encode, gradient, png_bomb, tiff_bomb
from tests.waiting import decoder_processes, is_alive, until

GOOD = encode(gradient().astype(np.uint8))
MASK = encode(disc().astype(np.uint8))
MAX_PIXELS = 60_000_000
SIDE = 7700
ENOUGH = 2 << 30
IN_THE_MIDDLE = 200 << 20  # bytes that a child holds about half-way through `large`
OTHERS: set[psutil.Process] = set()


@cache
def large(side: int = SIDE) -> bytes:
    """A mask of dots: seconds of work, and hundreds of megabytes, in a file of some kilobytes."""
    dots = np.zeros((side, side), np.uint8)
    dots[::3, ::3] = 255
    return encode(dots, compress_level=1)


@contextmanager
def decoder_with(limits: Limits | None = None) -> Iterator[Decoder]:
    made = Decoder(MAX_PIXELS, limits)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def others() -> Iterator[None]:
    """The decoders of services that other tests of this process keep."""
    OTHERS.update(decoder_processes())
    yield
    OTHERS.clear()


def children() -> set[psutil.Process]:
    return decoder_processes() - OTHERS


def child_of(decoder: Decoder) -> psutil.Process:
    """The child, started and idle."""
    decoder.read("image", [GOOD])
    (child,) = children()
    return child


def test_a_file_becomes_its_pixels_as_it_would_in_this_process() -> None:
    with decoder_with() as decoder:
        image, mask = decoder.read("image", [GOOD[:9], b"", GOOD[9:]]), decoder.read("mask", [MASK])
    assert (image.width, image.height) == (mask.width, mask.height) == (160, 96)
    assert (image.pixels == pixels.resize_image(pixels.read_image(GOOD))).all()
    assert (mask.pixels == pixels.resize_mask(pixels.read_mask(MASK))).all()


def test_at_full_size_an_image_keeps_16_bits_and_a_mask_every_pixel() -> None:
    with decoder_with() as decoder:
        image, mask = decoder.read("image", [GOOD], full_size=True), decoder.read("mask", [MASK], full_size=True)
    original = pixels.read_image(GOOD)
    assert image.pixels.dtype == np.uint16 and (image.pixels == pixels.to_levels(original)).all()
    assert image.pixels.shape == (image.height, image.width) == original.shape
    assert (mask.pixels == pixels.read_mask(MASK)).all()


@pytest.mark.parametrize("bomb", [png_bomb(), tiff_bomb()], ids=["png", "tiff"])
def test_a_bomb_is_refused_by_its_header(bomb: bytes) -> None:
    with decoder_with() as decoder:
        child = child_of(decoder)
        with pytest.raises(ImageError, match="at most 60,000,000 are taken"):
            decoder.read("image", [bomb])
        assert children() == {child}


def test_one_child_reads_all_files() -> None:
    with decoder_with() as decoder:
        child = child_of(decoder)
        for _ in range(3):
            decoder.read("mask", [MASK])
        with pytest.raises(ImageError):
            decoder.read("image", [b"no image"])
        assert children() == {child}
    assert not children()


def test_a_decoder_that_is_closed_does_not_wait_for_its_file() -> None:
    with decoder_with() as decoder, ThreadPoolExecutor(1) as threads:
        child_of(decoder).suspend()
        reading = threads.submit(decoder.read, "image", [GOOD])
        with pytest.raises(TimeoutError):
            reading.result(0.2)
        decoder.close()
        with pytest.raises(DecoderAway):
            reading.result(20)
        assert not children()
        decoder.read("image", [GOOD])


def test_a_file_that_needs_too_much_memory_is_refused_in_words() -> None:
    file = large()
    with decoder_with(Limits(400 << 20)) as decoder:
        child = child_of(decoder)
        with pytest.raises(ImageError, match="more than 400 MB of memory"):
            decoder.read("mask", [file])
        assert child_of(decoder) != child


@pytest.mark.parametrize("limits", [Limits(ENOUGH, cpu_seconds=0), Limits(ENOUGH, seconds=0.2)], ids=["cpu", "wall"])
def test_a_file_that_takes_too_long_is_refused_in_words(limits: Limits) -> None:
    file = large()
    with decoder_with(limits) as decoder:
        with pytest.raises(ImageError, match="longer than"):
            decoder.read("mask", [file])
        assert not children()


def test_a_child_that_no_longer_answers_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.uploads.decoder.GRACE_SECONDS", 0.5)
    with decoder_with(Limits(ENOUGH, seconds=0.5)) as decoder:
        child = child_of(decoder)
        child.suspend()
        with pytest.raises(ImageError, match="longer than"):
            decoder.read("image", [GOOD])
        assert not child.is_running()


def test_a_child_that_was_killed_while_idle_is_replaced() -> None:
    with decoder_with() as decoder:
        child_of(decoder).kill()
        assert decoder.read("image", [GOOD]).width == 160


def kill_children(times: int) -> None:
    """Each as soon as it works at a file."""
    for _ in range(times):
        # By memory: a child that has just started never holds so much, however slow the machine, nor does a fast one
        # come to the file's end before it is seen.
        until(lambda: any(child.memory_info().rss > IN_THE_MIDDLE for child in children()))
        for child in children():
            child.send_signal(signal.SIGSEGV)
            child.wait(60)


@pytest.mark.parametrize(("kills", "is_read"), [(1, True), (2, False)])
def test_a_file_whose_child_crashes_is_tried_once_more_and_then_refused(kills: int, is_read: bool) -> None:
    file = large()
    with decoder_with() as decoder:
        killer = threading.Thread(target=kill_children, args=[kills])
        killer.start()
        try:
            assert decoder.read("mask", [file]).width == SIDE
            was_read = True
        except ImageError as error:
            assert "makes the decoder fail" in str(error)
            was_read = False
        killer.join()
        assert was_read == is_read
        assert decoder.read("image", [GOOD]).width == 160


def test_the_child_has_limits_and_nothing_of_the_services(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PANSYNTH_DATABASE_URL", "postgresql://user:secret@host/db")
    with decoder_with(Limits(ENOUGH)) as decoder:
        child = child_of(decoder)
        assert not [name for name in child.environ() if name.startswith(("PANSYNTH", "AWS"))]
        assert child.rlimit(resource.RLIMIT_AS) == (ENOUGH, ENOUGH)
        assert child.rlimit(resource.RLIMIT_CORE) == child.rlimit(resource.RLIMIT_FSIZE) == (0, 0)
        # libffi may keep itself open
        assert [file for file in child.open_files() if "/libffi.so" not in file.path] == []


PARENT = """
import sys
from app.uploads.decoder import Decoder, Limits
decoder = Decoder(60_000_000, Limits(2 << 30))
decoder.read("image", [open(sys.argv[1], "rb").read()])
print(decoder._child._process.pid, flush=True)
if sys.argv[2:]:
    decoder.read("mask", [open(sys.argv[2], "rb").read()])
sys.stdin.read()
"""


@pytest.mark.parametrize("busy", [False, True])
def test_the_child_ends_with_its_parent_however_that_ends(tmp_path: Path, busy: bool) -> None:
    (tmp_path / "good").write_bytes(GOOD)
    (tmp_path / "large").write_bytes(large())
    command = [sys.executable, "-c", PARENT, str(tmp_path / "good"), *([str(tmp_path / "large")] if busy else [])]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        until(lambda: not busy or child.memory_info().rss > IN_THE_MIDDLE)
        parent.kill()
    until(lambda: not is_alive(child))


def test_many_threads_take_turns() -> None:
    with decoder_with() as decoder:
        widths: list[int] = []

        def read() -> None:
            widths.append(decoder.read("image", [GOOD]).width)

        threads = [threading.Thread(target=read) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert widths == [160] * 8


@pytest.mark.parametrize(
    ("answer", "gray", "is_one"),
    [
        ({"width": 9, "height": 8}, bytes(256 * 512), True),
        ({"refused": "in words"}, b"", True),
        ({"width": 9, "height": 8}, bytes(256 * 512 - 1), False),
        ({"width": "9", "height": 8}, bytes(256 * 512), False),
        ({}, b"", False),
        ([], b"", False),
        (None, b"", False),
    ],
)
def test_a_child_that_was_taken_over_cannot_answer_as_it_likes(answer: object, gray: bytes, is_one: bool) -> None:
    assert is_answer({"kind": "image", "full_size": False}, answer, gray) == is_one
