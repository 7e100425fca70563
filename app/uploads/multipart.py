"""multipart/form-data, read in a stream: files go to one temporary file, limits hold while reading."""

import errno
import io
import os
import re
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import unquote

from anyio import to_thread
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from app.access.limits import Allowance
from app.problems import FieldError, Problem, invalid, shown, wrong_media_type
from app.uploads.file_names import legible

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from python_multipart.multipart import MultipartCallbacks

MAX_NAME_LENGTH = 255
MAX_TEXT_BYTES = 4096
MAX_TEXTS = 100
MAX_FILES = 20_000
MAX_HEADER_BYTES = 64 * 1024  # room for a file name far too long, so that the refusal can name its field
FLUSH_BYTES = 64 * 1024  # a client may stall for hours, and thousands of them with it
EXTENDED_NAME = re.compile(r""";\s*filename\*="?utf-8'[a-z-]*'([^;"\s]+)""", re.IGNORECASE)


class Spool:
    """A form's temporary file: what came, then what is made of it, by several threads."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._one_at_a_time = Lock()

    def append(self, data: bytes | bytearray) -> int:
        """Where it begins. It is read back by its `fileno`, past the file's buffer."""
        with self._one_at_a_time:
            start = self._file.seek(0, os.SEEK_END)
            self._file.write(data)
            self._file.flush()
        return start

    def fileno(self) -> int:
        return self._file.fileno()


@dataclass(frozen=True)
class UploadedFile:
    """One file of a form: `size` bytes from `start` in a temporary file. `name` is safe to store and show."""

    name: str
    start: int
    size: int
    stored: Spool

    def __iter__(self) -> Iterator[bytes]:
        """The contents in pieces, however often they are asked for."""
        end = self.start + self.size
        for start in range(self.start, end, FLUSH_BYTES):
            yield os.pread(self.stored.fileno(), min(FLUSH_BYTES, end - start), start)

    def open(self) -> BinaryIO:
        """The contents as a file of their own, read from its start."""
        return io.BufferedReader(_Section(self), FLUSH_BYTES)

    def beside(self, data: bytes) -> "UploadedFile":
        """What was made of this file, kept after all files in the same temporary file, and not in memory."""
        return UploadedFile(self.name, self.stored.append(data), len(data), self.stored)


class _Section(io.RawIOBase):
    """An uploaded file's part of the temporary file."""

    def __init__(self, file: UploadedFile) -> None:
        self.file = file
        self.place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.place, os.SEEK_END: self.file.size}[whence]
        if place < 0:  # another file lies there
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self.place = place
        return place

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        wanted = memoryview(buffer)[: max(self.file.size - self.place, 0)]
        read = os.preadv(self.file.stored.fileno(), [wanted], self.file.start + self.place)
        self.place += read
        return read


@dataclass
class Form:
    """What a client sent: texts and files by field, in the order they came."""

    texts: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, list[UploadedFile]] = field(default_factory=dict)
    size: int = 0  # bytes of the whole body


@asynccontextmanager
async def read_form(request: Request, allowance: Allowance) -> AsyncIterator[Form]:
    """The request's form; its files live until the context ends. Raises Problem 400, 413, 415, 422; LimitReached."""
    boundary = boundary_of(request)
    refuse_query(request)
    refuse_by_content_length(request, allowance)
    request.state.reads_form = True  # for `bodies.LimitSmallBodies`
    with tempfile.TemporaryFile(prefix="pansynth-upload-") as stored:
        reader = FormReader(Spool(stored))
        await receive_form(request, reader, boundary, allowance)
        yield reader.finished()


def boundary_of(request: Request) -> bytes:
    given = request.headers.get("content-type", "")
    kind, options = parse_options_header(given)
    if kind != b"multipart/form-data":
        raise wrong_media_type("multipart/form-data", given)
    if not options.get(b"boundary"):
        raise malformed("the Content-Type has no boundary")
    return options[b"boundary"]


def refuse_query(request: Request) -> None:
    """A parameter in the address would be ignored, and the job made with its default."""
    if given := request.query_params:
        raise invalid([FieldError(name, "stands in the address; send it as a field of the form") for name in given])


def refuse_by_content_length(request: Request, allowance: Allowance) -> None:
    length = request.headers.get("content-length", "0")
    if length.isascii() and length.isdigit():
        allowance.check(int(length))


async def receive_form(request: Request, reader: "FormReader", boundary: bytes, allowance: Allowance) -> None:
    form = reader.form
    try:
        parser = MultipartParser(boundary, reader.callbacks(), max_header_size=MAX_HEADER_BYTES)
        async for chunk in request.stream():
            form.size += len(chunk)
            allowance.check(form.size)
            parser.write(chunk)
            if len(reader.unwritten) >= FLUSH_BYTES:
                await to_thread.run_sync(reader.flush)
    except FormParserError as error:
        raise malformed(str(error)) from error
    await to_thread.run_sync(reader.flush)


class FormReader:
    """Receives the parser's events; file contents go to `stored`, one after the other."""

    def __init__(self, stored: Spool) -> None:
        self.stored = stored
        self.unwritten = bytearray()
        self.written = 0
        self.form = Form()
        self.ended = False
        self.file_count = 0
        self.text_count = 0

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self.begin_part,
            "on_header_field": self.header_name_data,
            "on_header_value": self.header_value_data,
            "on_header_end": self.end_header,
            "on_headers_finished": self.end_headers,
            "on_part_data": self.part_data,
            "on_part_end": self.end_part,
            "on_end": self.end,
        }

    def begin_part(self) -> None:
        self.header_name = b""
        self.header_value = b""
        self.disposition = ""
        self.field = ""
        self.file_name: str | None = None
        self.text = b""
        self.start = self.written + len(self.unwritten)

    def header_name_data(self, data: bytes, start: int, end: int) -> None:
        self.header_name += data[start:end]

    def header_value_data(self, data: bytes, start: int, end: int) -> None:
        self.header_value += data[start:end]

    def end_header(self) -> None:
        if self.header_name.lower() == b"content-disposition":
            self.disposition = self.header_value.decode("latin-1")
        self.header_name = self.header_value = b""

    def end_headers(self) -> None:
        _, options = parse_options_header(self.disposition)
        if not options.get(b"name"):
            raise malformed("a part has no name in its Content-Disposition")
        self.field = text_of(options[b"name"])
        if len(self.field) > MAX_NAME_LENGTH:  # at once: all names are kept, and 200 MB of them become 800
            detail = f"has a name of {len(self.field)} characters, which no field has; leave it out"
            raise invalid([FieldError(self.field, detail)])
        given = file_name_of(self.disposition, options)
        if given is not None:
            self.file_name = checked_name(self.field, given)
            self.file_count += 1
        else:
            self.text_count += 1
        if self.file_count > MAX_FILES or self.text_count > MAX_TEXTS:
            limits = f"at most {MAX_FILES} files and {MAX_TEXTS} other fields fit in one request"
            raise invalid([FieldError(self.field, f"{limits}; send the rest in further requests")])

    def part_data(self, data: bytes, start: int, end: int) -> None:
        if self.file_name is not None:
            self.unwritten += data[start:end]
        elif len(self.text) + end - start > MAX_TEXT_BYTES:
            remedy = "shorten it; if it is to be a file, send it with a file name"
            raise invalid([FieldError(self.field, f"is longer than {MAX_TEXT_BYTES} bytes of text; {remedy}")])
        else:
            self.text += data[start:end]

    def end_part(self) -> None:
        if self.file_name is None:
            self.form.texts.setdefault(self.field, []).append(text_of(self.text))
            return
        size = self.written + len(self.unwritten) - self.start
        if self.file_name or size:  # a browser sends an empty file with no name for a field left empty
            uploaded = UploadedFile(self.file_name or "unnamed", self.start, size, self.stored)
            self.form.files.setdefault(self.field, []).append(uploaded)

    def end(self) -> None:
        self.ended = True

    def flush(self) -> None:
        self.stored.append(self.unwritten)
        self.written += len(self.unwritten)
        self.unwritten.clear()

    def finished(self) -> Form:
        if not self.ended:
            raise malformed("the body ends before its closing boundary")
        return self.form


def file_name_of(disposition: str, options: Mapping[bytes, bytes]) -> str | None:
    """The name as the client gave it; None for a part that is no file.

    RFC 7578 forbids `filename*`, but .NET, Spring and old urllib3 send it: instead of `filename`, or beside one that
    has lost its umlauts.
    """
    if extended := EXTENDED_NAME.search(disposition):
        return unquote(extended[1])
    return text_of(options[b"filename"]) if b"filename" in options else None


def text_of(raw: bytes) -> str:
    """UTF-8 as browsers send it; anything else byte by byte, so that no name is ever a server error."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def checked_name(field_name: str, given: str) -> str:
    """The file's name below the folder that was sent, legible; files of two folders may share their own. Of a path from
    the root, or one too long, its own. What only an attack or a broken client sends is refused."""
    parts = legible(given).replace("\\", "/").split("/")
    if ".." in parts:
        raise bad_name(field_name, given, "has '..' in its path; send the plain file name")
    if len(parts[-1]) > MAX_NAME_LENGTH:
        length = len(parts[-1])
        raise bad_name(field_name, given, f"has {length} characters, at most {MAX_NAME_LENGTH} are kept; shorten it")
    name, from_root = "/".join(parts), not parts[0] or parts[0].endswith(":")
    return parts[-1] if from_root or len(name) > MAX_NAME_LENGTH else name


def bad_name(field_name: str, given: str, remedy: str) -> Problem:
    return invalid([FieldError(field_name, f"the file name {shown(given)!r} {remedy}")])


def malformed(reason: str) -> Problem:
    return Problem(400, "malformed-form", f"the multipart/form-data body cannot be read: {reason}")
