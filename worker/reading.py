"""Many blobs read in order, some ahead of their turn: a bucket takes as long to answer for one as for 32."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from app.blobs import Blobs

READ_AHEAD = 32
Named = TypeVar("Named")


def read_ahead(blobs: Blobs, wanted: Iterable[tuple[Named, str, str]]) -> Iterator[tuple[Named, bytes]]:
    """(name, key, sha256) -> (name, blob) in the same order, each checked. Raises BlobMissing, BlobDamaged.

    A blob that is wanted several times within READ_AHEAD, as the mask of many samples is, is read once.
    """
    waiting = iter(wanted)
    with ThreadPoolExecutor(READ_AHEAD) as threads:
        while batch := list(islice(waiting, READ_AHEAD)):
            different = dict.fromkeys((key, sha256) for _, key, sha256 in batch)
            reading = {blob: threads.submit(blobs.get, *blob) for blob in different}
            for name, key, sha256 in batch:
                yield name, reading[key, sha256].result()
