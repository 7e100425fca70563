"""Uploaded files become pixels in a child process with limits (`app.uploads.decoder_process`), never in this one.

A file may be made to hang a decoder, to swell to gigabytes or to overwrite memory. Then the child is killed, the file
is refused in words, and the next one gets a new child. What comes back are two numbers and gray values, 131,072 or as
many as the file has pixels, so not even a child that was taken over can hand on anything else.
"""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from app.errors import DecoderAway
from app.uploads.decoder_process import receive, send
from models import pixels
from models.image_errors import ImageError, TooManyPixels, UnsupportedImage

ROOT = Path(__file__).parents[2]
TRIES = 2  # of a file whose child dies: it may have been killed by somebody else
START_SECONDS = 60.0
GRACE_SECONDS = 5.0  # past its own alarm
MAX_HEAD_BYTES = 1 << 20

Kind = Literal["image", "mask"]


@dataclass(frozen=True)
class Limits:
    """What one file may take: memory (address space), processor time, time on the clock.

    A panoramic radiograph takes 250 MB and 0.2 s, one of 60 million pixels up to 2 GB and 5 s.
    """

    memory_bytes: int
    cpu_seconds: int = 30
    seconds: float = 120.0  # on a machine that has other things to do


def limits_for(max_pixels: int) -> Limits:
    """A DICOM file with a window needs most, 28 bytes a pixel."""
    return Limits((1 << 30) + 36 * max_pixels)


@dataclass(frozen=True, eq=False)
class Decoded:
    """A file's own size, and its (256, 512) uint8 pixels: gray levels, or 0 and 1 of a mask.

    At full size the pixels are (height, width), of an image uint16 as `pixels.to_levels` gives them.
    """

    width: int
    height: int
    pixels: NDArray[Any]


class ChildDied(Exception):
    """`status` as subprocess has it: the signal that ended it, below 0."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the decoder's process ended with status {status}")
        self.status = status


class Decoder:
    """Decodes one file at a time; its child is started for the first one and kept for the next."""

    def __init__(self, max_pixels: int, limits: Limits | None = None) -> None:
        self._max_pixels = max_pixels
        self._limits = limits or limits_for(max_pixels)
        self._one_at_a_time = threading.Lock()
        self._child: Child | None = None
        self._closing = False

    def read(self, kind: Kind, pieces: Iterable[bytes], full_size: bool = False) -> Decoded:
        """A radiograph's or a mask's file, which is gone through once for each try. Raises ImageError, DecoderAway."""
        with self._one_at_a_time:
            for _ in range(TRIES):
                try:
                    return self._ask(kind, pieces, full_size)
                except ChildDied as death:
                    if self._closing:
                        raise DecoderAway("the decoder is being stopped; try again") from None
                    if death.status in (-signal.SIGALRM, -signal.SIGXCPU):
                        raise self._too_slow() from None
        raise UnsupportedImage(
            "the file makes the decoder fail, as damaged or crafted ones do; export the image again, as PNG"
        )

    def close(self) -> None:
        """End the child, whatever it is at, for a file may take two minutes; the next file starts another."""
        self._closing = True
        if (child := self._child) is not None:
            child.kill()
        with self._one_at_a_time:
            self._end_child()
        self._closing = False

    def _ask(self, kind: Kind, pieces: Iterable[bytes], full_size: bool) -> Decoded:
        if self._child is None or not self._child.is_alive():
            self._end_child()
            self._child = Child(self._limits)
        try:
            request = {"kind": kind, "max_pixels": self._max_pixels, "full_size": full_size}
            answer, gray = self._child.ask(request, pieces, MAX_HEAD_BYTES + 2 * self._max_pixels)
        except BaseException:  # whatever it was, the two no longer agree on what comes next
            self._end_child()
            raise
        if answer.get("out_of_memory"):
            self._end_child()
            raise self._too_large()
        if "refused" in answer:
            refusal = TooManyPixels if answer.get("too_many_pixels") else ImageError
            raise refusal(str(answer["refused"]))
        width, height = answer["width"], answer["height"]
        shape = (height, width) if full_size else (pixels.HEIGHT, pixels.WIDTH)
        depth = np.uint16 if full_size and kind == "image" else np.uint8
        return Decoded(width, height, np.frombuffer(gray, depth).reshape(shape))

    def _end_child(self) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None

    def _too_slow(self) -> ImageError:
        return UnsupportedImage(
            f"decoding the file takes longer than {self._limits.cpu_seconds} seconds, the limit; "
            "export the image again, as PNG, and scale it down if it is large (the work is done at 512 x 256)"
        )

    def _too_large(self) -> ImageError:
        return TooManyPixels(
            f"decoding the file takes more than {self._limits.memory_bytes >> 20:,} MB of memory, the limit; "
            "scale it down (the work is done at 512 x 256)"
        )


class Child:
    """A running decoder process and the socket to it."""

    def __init__(self, limits: Limits) -> None:
        """Raises DecoderAway where it does not start."""
        self._limits = limits
        self._connection, theirs = socket.socketpair()
        arguments = [theirs.fileno(), limits.memory_bytes, limits.cpu_seconds, limits.seconds]
        # Nothing of this process's environment, which holds passwords; and no output, which may quote a file.
        environment = {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-B", "-m", "app.uploads.decoder_process", *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                cwd="/",
                pass_fds=[theirs.fileno()],
            )
        except OSError as error:
            self._connection.close()
            raise DecoderAway(f"the decoder cannot be started: {error.strerror}") from error
        finally:
            theirs.close()
        self.end = weakref.finalize(self, end_process, self._process, self._connection)
        try:
            self._receive(time.monotonic() + START_SECONDS)
        except ChildDied as death:
            self.end()
            raise DecoderAway(f"the decoder cannot be started: it ended with status {death.status}") from death

    def kill(self) -> None:
        """Whoever waits for its answer hears of it at once."""
        self._process.kill()

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, request: dict[str, Any], pieces: Iterable[bytes], most: int) -> tuple[dict[str, Any], bytes]:
        """Send a file, wait for the answer: the head and the pixels, at most so many bytes. Raises ChildDied."""
        deadline = time.monotonic() + self._limits.seconds + GRACE_SECONDS
        self._connection.settimeout(self._limits.seconds + GRACE_SECONDS)
        try:
            send(self._connection, json.dumps(request).encode())
            for piece in pieces:
                if piece:
                    send(self._connection, piece)
            send(self._connection, b"")
        except (ConnectionError, TimeoutError) as error:
            raise self._death() from error
        try:
            answer, gray = json.loads(self._receive(deadline)), self._receive(deadline, most)
        except ValueError:
            answer, gray = None, b""
        if not is_answer(request, answer, gray):
            raise ChildDied(0)  # it does as it likes, which is no better
        return answer, gray

    def _receive(self, deadline: float, most: int = MAX_HEAD_BYTES) -> bytes:
        self._connection.settimeout(max(deadline - time.monotonic(), 0.01))
        try:
            frame = receive(self._connection, most)
        except (ConnectionError, TimeoutError) as error:
            raise self._death() from error
        if frame is None:
            raise self._death()
        return frame

    def _death(self) -> ChildDied:
        try:
            return ChildDied(self._process.wait(GRACE_SECONDS / 5))
        except subprocess.TimeoutExpired:  # it lives and does not answer
            return ChildDied(-signal.SIGALRM)


def is_answer(request: dict[str, Any], answer: object, gray: bytes) -> bool:
    """Whether this is what `app.uploads.decoder_process` says to that."""
    if not isinstance(answer, dict):
        return False
    if "refused" in answer or "out_of_memory" in answer:
        return True
    width, height = answer.get("width"), answer.get("height")
    if not isinstance(width, int) or not isinstance(height, int):
        return False
    depth = 2 if request["kind"] == "image" else 1
    return len(gray) == (depth * width * height if request["full_size"] else pixels.HEIGHT * pixels.WIDTH)


def end_process(process: "subprocess.Popen[bytes]", connection: socket.socket) -> None:
    connection.close()
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    process.wait()
