"""The blob store: bytes by key (`app.keys`) in a local folder or an S3-compatible bucket."""

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore, ObjectStore, S3Store, from_url

from app.errors import BlobDamaged, BlobMissing

if TYPE_CHECKING:
    from obstore import Attributes, GetResult, ListStream, ObjectMeta
    from obstore.store import RetryConfig

PIECE = 1 << 20
# Of a bucket that answers 500 or not at all. After them a request gets 503 and a step waits; neither tries for minutes.
RETRIES: "RetryConfig" = {"max_retries": 4, "retry_timeout": timedelta(seconds=20)}
PARTS = 4  # of 5 MB each, of a large file, that are under way at once
LEAST_ROOM = 1 << 20  # bytes free on a folder's disk; of a full one some thousands may be left
LISTED = 500  # entries handed over at once
NO_STORE = "there is no such bucket"
_STAGED = re.compile(r"#\d+$")  # how LocalStore names what it has not renamed yet


class Blobs:
    """Blobs by key. A blob is there whole or not at all: written aside, then renamed."""

    def __init__(self, url: str) -> None:
        """Open `file:///folder` (made if missing) or `s3://bucket/prefix` (the rest by AWS_* variables)."""
        self._store: ObjectStore
        if url.startswith("file://"):
            # The path is taken literally: a percent sign in a folder's name is no escape.
            self._folder: Path | None = Path(url.removeprefix("file://"))
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # patients' images are the service's alone
            self._store = LocalStore(self._folder, automatic_cleanup=True)
        else:
            self._folder = None
            self._store = from_url(url, retry_config=RETRIES)

    def put(self, key: str, data: bytes) -> None:
        """Write a blob, replacing what was there."""
        with _not_found_is(BaseError(NO_STORE)):
            obstore.put(self._store, key, data)

    def put_file(self, key: str, file: Path | BinaryIO, headers: "Attributes | None" = None) -> None:
        """Write a file's content as a blob, in pieces. headers: with which a bucket serves it (`address`)."""
        kept = headers if self._folder is None else None  # a folder has no place for them
        with _not_found_is(BaseError(NO_STORE)):
            obstore.put(self._store, key, file, attributes=kept, max_concurrency=PARTS)

    def get(self, key: str, sha256: str | None = None) -> bytes:
        """Read a blob whose bytes have this sha256, where one is given. Raises BlobMissing, BlobDamaged."""
        with _not_found_is(_missing(key)):
            found = obstore.get(self._store, key)
        # A file does not break off, and in pieces it takes five times as long.
        in_one = self._folder is not None
        data = bytes(found.bytes()) if in_one else b"".join(self._pieces(key, found, *found.range))
        if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
            raise _damaged(key, data)
        return data

    def check_whole(self, key: str, data: bytes) -> None:
        """Raises BlobDamaged where `get` without a sha256 gave less than the store holds."""
        if len(data) != self.size(key):
            raise _damaged(key, data)

    def stream(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes start <= i < end (default: to the end) in pieces of 1 MB or so. Raises BlobMissing."""
        end = self.size(key) if end is None else end
        if start >= end:
            return iter(())
        found = self._open(key, start, end)
        return self._pieces(key, found, *found.range)  # which ends where the blob does

    def _open(self, key: str, start: int, end: int) -> "GetResult":
        with _not_found_is(_missing(key)):
            return obstore.get(self._store, key, options={"range": (start, end)})

    def _pieces(self, key: str, found: "GetResult", start: int, end: int) -> Iterator[bytes]:
        """What was found; where it breaks off, the rest is asked for, as long as some bytes come each time.

        A bucket's answer breaks off after 30 s, the client's limit for a whole request. A large blob takes longer, and
        so does any that is handed on to a slow reader.
        """
        while True:
            before = start
            try:
                for piece in found.stream(min_chunk_size=PIECE):
                    yield bytes(piece)
                    start += len(piece)
            except BaseError:
                if start == before:
                    raise
            if start >= end or start == before:
                return
            found = self._open(key, start, end)

    def size(self, key: str) -> int:
        """A blob's bytes. Raises BlobMissing."""
        with _not_found_is(_missing(key)):
            return int(obstore.head(self._store, key)["size"])

    def check(self) -> None:
        """Raise where nothing can be read, or a folder's disk is full.

        It lists, since a missing bucket answers a read as a missing blob does.
        """
        next(self.list("ready/"), None)
        if self._folder is not None and shutil.disk_usage(self._folder).free < LEAST_ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder))

    def exists(self, key: str) -> bool:
        try:
            self.size(key)
        except BlobMissing:
            return False
        return True

    def address(self, key: str, seconds: float) -> str | None:
        """A URL under which the bucket itself serves a blob for a while; None: a folder serves nothing."""
        if not isinstance(self._store, S3Store):
            return None
        return str(obstore.sign(self._store, "GET", key, timedelta(seconds=seconds)))

    def delete(self, *keys: str) -> None:
        """Remove blobs; one that is not there is no error."""
        try:
            obstore.delete(self._store, keys)  # one request for many where the store can: a pool has 100,000
        except (NotFoundError, FileNotFoundError):  # only a folder minds, and does not say which of the others are gone
            for key in keys:
                with suppress(NotFoundError, FileNotFoundError):
                    obstore.delete(self._store, key)

    def delete_prefix(self, prefix: str) -> None:
        """Remove every blob whose key starts with the folder `prefix`, such as `jobs/1f/`."""
        for entries in self._listed(prefix):
            self.delete(*(entry["path"] for entry in entries))

    def list(self, prefix: str = "") -> Iterator[str]:
        """The keys below a folder, in no particular order."""
        for entries in self._listed(prefix):
            yield from (entry["path"] for entry in entries)

    def written_before(self, moment: datetime, prefix: str = "") -> Iterator[Sequence[str]]:
        """The keys below a folder whose blobs were last written before `moment`, some hundreds at a time."""
        for entries in self._listed(prefix):
            if old := [entry["path"] for entry in entries if entry["last_modified"] < moment]:
                yield old

    def _listed(self, prefix: str) -> "ListStream[Sequence[ObjectMeta]]":
        return obstore.list(self._store, prefix=prefix.rstrip("/") or None, chunk_size=LISTED)

    def remove_unfinished(self, moment: datetime) -> int:
        """Remove what writers that were killed before `moment` left beside the blobs of a folder.

        A bucket does that itself: give it a rule that aborts incomplete multipart uploads. Returns how many.
        """
        if self._folder is None:
            return 0
        removed = 0
        for folder, _, names in os.walk(self._folder):  # `rglob` fails where a folder goes meanwhile
            for file in (Path(folder, name) for name in names if _STAGED.search(name)):
                if _untouched_since(file, moment):
                    file.unlink(missing_ok=True)
                    removed += 1
        return removed


def _damaged(key: str, data: bytes) -> BlobDamaged:
    return BlobDamaged(f"the store's blob {key} is not what was written ({len(data):,} bytes came)")


def _missing(key: str) -> BlobMissing:
    return BlobMissing(f"the store holds no blob {key}")


@contextmanager
def _not_found_is(error: Exception) -> Iterator[None]:
    """Raise `error` where the store finds nothing: what a read misses is the blob, what a write misses the bucket."""
    try:
        yield
    except (NotFoundError, FileNotFoundError) as cause:
        raise error from cause


def _untouched_since(file: Path, moment: datetime) -> bool:
    try:
        return file.is_file() and file.stat().st_mtime < moment.timestamp()
    except FileNotFoundError:
        return False  # it was finished, or another janitor was faster
