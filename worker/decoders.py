"""Several files decoded at once: decoding takes most of an import's time."""

from collections.abc import Iterable
from queue import LifoQueue

import torch

from app.uploads.decoder import Decoded, Decoder

MOST = 4  # each holds 250 MB of a radiograph; more would wait for the VAE


class Decoders:
    """A `Decoder` for each of torch's threads, up to MOST; each starts its child for its first file."""

    def __init__(self, max_pixels: int) -> None:
        self._all = [Decoder(max_pixels) for _ in range(min(MOST, torch.get_num_threads()))]
        self._idle: LifoQueue[Decoder] = LifoQueue()  # the one used last comes first: a lone thread needs one child
        for decoder in self._all:
            self._idle.put(decoder)

    def __len__(self) -> int:
        return len(self._all)

    def read_image(self, pieces: Iterable[bytes], full_size: bool = False) -> Decoded:
        """As `Decoder.read_image`; of more threads than there are decoders some wait."""
        decoder = self._idle.get()
        try:
            return decoder.read_image(pieces, full_size)
        finally:
            self._idle.put(decoder)

    def close(self) -> None:
        """End the children; the next file starts another."""
        for decoder in self._all:
            decoder.close()
