"""Zip archives that a client sent: opened, listed and read within limits, whatever they claim of themselves."""

import io
import os
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PureWindowsPath
from typing import BinaryIO

from app.errors import UnusableInput
from app.uploads.file_names import legible

MAX_FILES = 20_000
MAX_EXPANSION = 100  # times the archive's own size; images hardly shrink
MAX_UPLOADS = 20  # times the limit of an upload, unpacked
MAX_READ = 300 * MAX_FILES  # bytes at once: a table of contents of that many files, names and all
NAME_LENGTH = 255
PIECE = 1 << 20
_OF_WINDOWS = ("thumbs.db", "desktop.ini")
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # zipfile unpacks others in one go, to any size


class DamagedEntry(Exception):
    """A file of the archive that cannot be unpacked."""


class BoundedReads(io.BufferedReader):
    """A file of which nothing large is read at once: zipfile trusts what an archive says of its table's length."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            size = os.fstat(self.fileno()).st_size - self.tell()
        if size > MAX_READ:
            raise zipfile.BadZipFile
        return super().read(size)


@contextmanager
def open_archive(file: BinaryIO, max_upload_bytes: int) -> Iterator[tuple[zipfile.ZipFile, list[zipfile.ZipInfo]]]:
    """An archive and the files in it, without folders and clutter. Raises UnusableInput."""
    with BoundedReads(io.FileIO(file.fileno(), closefd=False)) as raw:
        try:
            archive = zipfile.ZipFile(raw)
        except Exception:  # zipfile raises half a dozen kinds, and some quote the names of files
            raise UnusableInput("archive is not a readable zip file; pack the images again") from None
        with archive:
            entries = [entry for entry in archive.infolist() if not _is_clutter(entry)]
            _check_size(entries, os.fstat(file.fileno()).st_size, max_upload_bytes)
            yield archive, entries


def _is_clutter(entry: zipfile.ZipInfo) -> bool:
    """What is no file, and what systems put beside files."""
    path = _path(entry)
    of_a_system = "__MACOSX" in path.parts or path.name.startswith(".") or path.name.lower() in _OF_WINDOWS
    return entry.filename.endswith(("/", "\\")) or of_a_system


def _path(entry: zipfile.ZipInfo) -> PureWindowsPath:
    """With / or \\ between its parts: PowerShell 5 packs folders with the latter, though the format forbids it."""
    return PureWindowsPath(entry.filename)


def _check_size(entries: list[zipfile.ZipInfo], packed: int, max_upload_bytes: int) -> None:
    if not entries:
        raise UnusableInput("archive holds no files; give a zip of images")
    if len(entries) > MAX_FILES:
        raise UnusableInput(f"archive holds {len(entries)} files, {MAX_FILES} are allowed; send it in parts")
    unpacked = sum(entry.file_size for entry in entries)
    allowed = max(max_upload_bytes, min(MAX_EXPANSION * packed, MAX_UPLOADS * max_upload_bytes))
    if unpacked > allowed:
        raise UnusableInput(f"archive unpacks to {unpacked:,} bytes, {allowed:,} are allowed; send it in parts")


def why_not(entry: zipfile.ZipInfo, max_bytes: int) -> str | None:
    """What is wrong with a file of an archive, as its table of contents has it."""
    path = _path(entry)
    if path.root or ".." in path.parts:
        return "the name leads out of the archive; pack the images under plain names"
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "a link, not a file; pack the image itself"
    if entry.flag_bits & 1:
        return "encrypted; pack it without a password"
    if entry.compress_type not in _METHODS:
        return "compressed in a way that is not read here; pack it as a plain zip (deflate)"
    if entry.file_size > max_bytes:
        return f"{entry.file_size:,} bytes, {max_bytes:,} are allowed; scale it down"
    return None


def shown_name(entry: zipfile.ZipInfo) -> str:
    """Safe to store and show."""
    return legible(entry.filename)[-NAME_LENGTH:]


def contents(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """A file of the archive, never more than the size it claims. Raises DamagedEntry.

    In pieces, since zipfile would unpack all there is before it cuts it to that size.
    """
    try:
        with archive.open(entry) as file:
            data = b"".join(iter(lambda: file.read(PIECE), b""))
    except Exception:
        data = None
    if data is None or len(data) != entry.file_size:
        raise DamagedEntry("damaged in the archive; pack it again")
    return data
