"""The child process of `app.uploads.decoder`: decodes one file after the other, within limits, and answers in bytes.

python -m app.uploads.decoder_process SOCKET MEMORY_BYTES CPU_SECONDS SECONDS

It knows nothing of the service, opens no file, and ends when its parent does. The kernel keeps the limits, since a
decoder that hangs in C runs no Python: SIGXCPU and SIGALRM end it when its time is over, and a failing malloc when it
asks for too much memory.
"""

import contextlib
import fcntl
import json
import math
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Any, Final

from numpy.typing import NDArray

from models import pixels
from models.image_errors import ImageError, TooManyPixels

LENGTH: Final = struct.Struct("!Q")  # before every frame


def main() -> None:
    connection = socket.socket(fileno=int(sys.argv[1]))
    memory_bytes, cpu_seconds = int(sys.argv[2]), int(sys.argv[3])
    seconds = float(sys.argv[4])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the parent's end is ours
    hold_to(resource.RLIMIT_AS, memory_bytes)
    hold_to(resource.RLIMIT_CORE, 0)  # a dump would hold the file
    hold_to(resource.RLIMIT_FSIZE, 0)
    send(connection, b"ready")
    while (request := receive(connection)) is not None:
        asked = json.loads(request)
        data = b"".join(frames(connection))
        begin_time(cpu_seconds, seconds)
        end_with_parent(connection, True)
        answer, gray = decode(asked["kind"], data, asked["max_pixels"], asked["full_size"])
        end_with_parent(connection, False)
        signal.setitimer(signal.ITIMER_REAL, 0)
        send(connection, json.dumps(answer).encode())
        send(connection, gray)


def decode(kind: str, data: bytes, max_pixels: int, full_size: bool) -> tuple[dict[str, Any], bytes]:
    """A file's own size and its 256 x 512 pixels (of a mask 0 or 1), or why it is refused.

    full_size: its pixels at its own size instead, those of an image in 16 bit.
    """
    whole: NDArray[Any]
    gray: NDArray[Any]
    try:
        if kind == "mask":
            whole = pixels.read_mask(data, max_pixels)
            gray = (whole if full_size else pixels.resize_mask(whole)).astype("uint8")
        else:
            whole = pixels.read_image(data, max_pixels)
            gray = pixels.to_levels(whole) if full_size else pixels.resize_image(whole)
    except ImageError as error:
        return {"refused": str(error), "too_many_pixels": isinstance(error, TooManyPixels)}, b""
    except MemoryError:
        return {"out_of_memory": True}, b""
    height, width = whole.shape
    return {"width": width, "height": height}, gray.tobytes()


def hold_to(kind: int, limit: int) -> None:
    """Lower a limit for good; one that is lower already stays."""
    _, hard = resource.getrlimit(kind)
    lower = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    with contextlib.suppress(ValueError, OSError):  # macOS refuses some; Linux none
        resource.setrlimit(kind, (lower, lower))


def begin_time(cpu_seconds: int, seconds: float) -> None:
    """Set the time for the next file: processor time, counted from what was used before, and time on the clock."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    limit = math.ceil(usage.ru_utime + usage.ru_stime) + cpu_seconds
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    signal.setitimer(signal.ITIMER_REAL, seconds)


def end_with_parent(connection: socket.socket, wanted: bool) -> None:
    """While `wanted`, SIGIO ends this process at once when the parent's end of the socket closes (Linux).

    Between two files the read of the socket notices that.
    """
    flags = fcntl.fcntl(connection, fcntl.F_GETFL)
    fcntl.fcntl(connection, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(connection, fcntl.F_SETFL, flags | os.O_ASYNC if wanted else flags & ~os.O_ASYNC)


def send(connection: socket.socket, frame: bytes) -> None:
    connection.sendall(LENGTH.pack(len(frame)))
    connection.sendall(frame)


def frames(connection: socket.socket) -> Iterator[bytes]:
    """The frames up to an empty one."""
    while frame := receive(connection):
        yield frame


def receive(connection: socket.socket, limit: int = 1 << 40) -> bytes | None:
    """The next frame; None: the other end is closed. Raises ValueError for one longer than `limit`."""
    head = receive_exactly(connection, LENGTH.size)
    if head is None:
        return None
    (length,) = LENGTH.unpack(head)
    if length > limit:
        raise ValueError(f"a frame of {length} bytes, {limit} are allowed")
    return receive_exactly(connection, length)


def receive_exactly(connection: socket.socket, length: int) -> bytes | None:
    received = bytearray(length)
    rest = memoryview(received)
    while rest:
        count = connection.recv_into(rest)
        if count == 0:
            return None
        rest = rest[count:]
    return bytes(received)


if __name__ == "__main__":
    main()
