"""Several files decoded at once, in no more memory than one of the largest takes: decoding is most of their time."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from queue import LifoQueue
from threading import Lock

from app.uploads.decoder import Decoded, Decoder, Kind
from models.image_errors import TooManyPixels

MOST = 4  # children, of 100 MB each when idle


class Decoders:
    """`count` files at once, up to MOST, if each has no more than its share of `max_pixels`; a larger one alone.

    Each `Decoder` starts its child for its first file.
    """

    def __init__(self, max_pixels: int, count: int) -> None:
        count = min(MOST, count)
        self._idle: LifoQueue[Decoder] = LifoQueue()  # the one used last comes first: a lone thread needs one child
        self._small = [Decoder(max_pixels // count) for _ in range(count)]
        for decoder in self._small:
            self._idle.put(decoder)
        self._large = Decoder(max_pixels)
        self._one_large = Lock()  # two that gather all others would wait for each other

    def __len__(self) -> int:
        return len(self._small)

    @contextmanager
    def read(self, kind: Kind, pieces: Iterable[bytes], full_size: bool = False) -> Iterator[Decoded]:
        """As `Decoder.read`; of more threads than there are decoders some wait.

        Until the block ends: the pixels of a large file take as much memory as several others do.
        """
        with self._one() as decoder:
            try:
                decoded = decoder.read(kind, pieces, full_size)
            except TooManyPixels:  # for one of many
                decoded = None
            if decoded is not None:
                yield decoded
                return
        with self._all() as decoder:
            yield decoder.read(kind, pieces, full_size)

    @contextmanager
    def _one(self) -> Iterator[Decoder]:
        decoder = self._idle.get()
        try:
            yield decoder
        finally:
            self._idle.put(decoder)

    @contextmanager
    def _all(self) -> Iterator[Decoder]:
        """The one for large files, with no other at work."""
        with self._one_large, ExitStack() as others:
            for _ in self._small:
                others.enter_context(self._one())
            yield self._large

    def close(self) -> None:
        """End the children; the next file starts another."""
        for decoder in (*self._small, self._large):
            decoder.close()
