"""Zip archives that are no good, made in memory."""

import io
import stat
import struct
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from tests.bad_files import encode, gradient

END, DIRECTORY, LOCAL = b"PK\x05\x06", b"PK\x01\x02", b"PK\x03\x04"


@dataclass(frozen=True)
class BadArchive:
    """`words` are those of the job's error where it fails, or else those of the file that is refused."""

    data: bytes
    words: str
    fails: bool = True
    is_zip: bool = True  # enough of one to be taken in at the door


@cache
def png() -> bytes:
    return encode(gradient().astype(np.uint8))


def archive(*entries: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as packed:
        for entry, data in entries:
            packed.writestr(entry, data)
    return out.getvalue()


def one(name: str | zipfile.ZipInfo = "a.png") -> bytes:
    return archive((name, png()))


def changed(data: bytes, record: bytes, offset: int, form: str, value: int) -> bytes:
    """The first such record with another number in it."""
    start = data.index(record) + offset
    size = struct.calcsize(form)
    return data[:start] + struct.pack(form, value) + data[start + size :]


def both(data: bytes, in_directory: int, in_local: int, form: str, value: int) -> bytes:
    return changed(changed(data, DIRECTORY, in_directory, form, value), LOCAL, in_local, form, value)


def claiming(size: int, content: bytes = b"") -> bytes:
    """One file that says it unpacks to `size` bytes."""
    return both(archive(("a.png", content or png())), 24, 22, "<I", size)


def renamed(old: bytes, new: bytes) -> bytes:
    """A name that zipfile would not write, of the same length."""
    return one(old.decode()).replace(old, new)


def _link() -> bytes:
    link = zipfile.ZipInfo("link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    return archive((link, b"/etc/passwd"))


def _utf8(name: bytes) -> bytes:
    return both(renamed(b"x" * len(name), name), 8, 6, "<H", 0x800)


def _overlapping() -> bytes:
    """Two files, the second of which lies where the first does."""
    two = archive(("a.png", b"text"), ("b.png", png()))
    second = two.index(DIRECTORY, two.index(DIRECTORY) + 1)
    return two[: second + 42] + bytes(4) + two[second + 46 :]


def _zip64() -> bytes:
    """An end record of the large form that names a table of contents of 2**60 bytes."""
    data = one()
    end = data.index(END)
    large = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, 1 << 60, 0)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
    return data[:end] + large + locator + data[end:]


def _rejected(data: bytes, words: str) -> BadArchive:
    return BadArchive(data, words, fails=False)


def _no_zip(data: bytes) -> BadArchive:
    return BadArchive(data, "not a readable zip file", is_zip=False)


@cache
def archives() -> dict[str, BadArchive]:
    outside = "leads out"
    return {
        "nothing": _no_zip(b""),
        "text": _no_zip(b"no zip at all"),
        "first signature alone": _no_zip(LOCAL + bytes(100)),
        "png": _no_zip(png()),
        "gzip": _no_zip(b"\x1f\x8b\x08" + bytes(40)),
        "7z": _no_zip(b"7z\xbc\xaf\x27\x1c" + bytes(40)),
        "rar": _no_zip(b"Rar!\x1a\x07\x00" + bytes(40)),
        "tar": _no_zip(b"a.png".ljust(512, b"\0") + bytes(1024)),
        "cut in the middle": _no_zip(one()[:300]),
        "cut before its end": _no_zip(one()[:-10]),
        "empty": BadArchive(archive(), "holds no files"),
        "folders alone": BadArchive(archive(("set/", b""), ("set/deep/", b"")), "holds no files"),
        "clutter alone": BadArchive(archive(("__MACOSX/._a", b"x"), (".DS_Store", b"x")), "holds no files"),
        "end record alone with a count": BadArchive(END + struct.pack("<4H2IH", 0, 0, 9, 9, 0, 0, 0), "no files"),
        "table of contents of 4 GB": BadArchive(changed(one(), END, 12, "<I", 0xFFFFFFFE), "not a readable zip file"),
        "table of contents of 2**60 bytes": BadArchive(_zip64(), "not a readable zip file"),
        "table of contents elsewhere": _rejected(changed(one(), END, 16, "<I", 0x7FFFFFFF), "damaged"),
        "table of contents damaged": BadArchive(one().replace(DIRECTORY, b"PK\x09\x09"), "not a readable zip file"),
        "a name that is not utf-8": BadArchive(_utf8(b"\xff\xfe.png"), "not a readable zip file"),
        "of a later version": BadArchive(changed(one(), DIRECTORY, 6, "<H", 999), "not a readable zip file"),
        "a bomb of 4 GB claimed": BadArchive(claiming(0xFFFFFFF0), "unpacks to"),
        "above the folder": _rejected(one("../../escape.png"), outside),
        "above in the middle": _rejected(one("a/../../escape.png"), outside),
        "absolute": _rejected(one("/etc/absolute.png"), outside),
        "with backslashes": _rejected(renamed(b"dx..xa.png", b"d\\..\\a.png"), outside),
        "on a drive": _rejected(renamed(b"C:xa.png", b"C:\\a.png"), outside),
        "on a share": _rejected(renamed(b"xxhostxa.png", b"\\\\host\\a.png"), outside),
        "a link": _rejected(_link(), "a link"),
        "encrypted": _rejected(both(one(), 8, 6, "<H", 1), "encrypted"),
        "bzip2": _rejected(archive(("a.png", png()), method=zipfile.ZIP_BZIP2), "compressed in a way"),
        "lzma": _rejected(archive(("a.png", png()), method=zipfile.ZIP_LZMA), "compressed in a way"),
        "method 99": _rejected(both(one(), 10, 8, "<H", 99), "compressed in a way"),
        "more than it claims": _rejected(claiming(10), "damaged"),
        "less than it claims": _rejected(claiming(1_000_000), "damaged"),
        "another name inside": _rejected(one().replace(b"a.png", b"b.png", 1), "damaged"),
        "no local header": _rejected(one().replace(LOCAL, b"PK\x08\x08", 1), "damaged"),
        "local header past the end": _rejected(changed(one(), DIRECTORY, 42, "<I", 0x7FFFFF), "damaged"),
        "bytes flipped": _rejected(one()[:60] + bytes(20) + one()[80:], "damaged"),
        "overlapping files": _rejected(_overlapping(), "damaged"),
        "a zip in a zip": _rejected(archive(("inner.zip", one())), "zip file"),
        "a text": _rejected(archive(("notes.txt", b"hello")), "not an image"),
        "an empty file": _rejected(archive(("a.png", b"")), "empty"),
        "an image cut short": _rejected(archive(("a.png", png()[:200])), "cut short"),
    }


READ: Sequence[str] = sorted(name for name in archives())
