"""Several files decoded at once, in no more memory than one of the largest takes: decoding is most of their time."""

from collections.abc import Iterable
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

    def read(self, kind: Kind, pieces: Iterable[bytes], full_size: bool = False) -> Decoded:
        """As `Decoder.read`; of more threads than there are decoders some wait."""
        decoder = self._idle.get()
        try:
            return decoder.read(kind, pieces, full_size)
        except TooManyPixels:
            pass  # for one of many
        finally:
            self._idle.put(decoder)
        with self._one_large:
            others = [self._idle.get() for _ in self._small]
            try:
                return self._large.read(kind, pieces, full_size)
            finally:
                for decoder in others:
                    self._idle.put(decoder)

    def close(self) -> None:
        """End the children; the next file starts another."""
        for decoder in (*self._small, self._large):
            decoder.close()
