"""Which radiographs are the same, or nearly: re-saved, resized or brightened copies of one another.

A signature has 512 bits: in the image shrunk to 33 x 16, is each pixel brighter than its left neighbour (a difference
hash, Krawetz 2013)? Any change of brightness that keeps the order of gray levels leaves it as it is, and compression,
noise, a stamp or another size changes few bits. A mirror image has the same bits, each the other way and in the other
order of its row: networks are trained on mirror images, too, so it is a copy. A crop or a turn is another image.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.pixels import sha256

SIGNATURE_BYTES = 64
# Measured (docs/training.md): copies differ in at most 0.11 of the bits, different patients in at least 0.21.
NEAR_BITS = round(0.14 * 8 * SIGNATURE_BYTES)
_BLOCK = 1 << 22  # pairs compared at once: 16 MB for each of their figures

Signatures = NDArray[np.uint8]


def signature(image: NDArray[np.uint8]) -> Signatures:
    """Image (H, W) uint8 -> (64,) uint8, its 512 bits."""
    small = Image.fromarray(np.ascontiguousarray(image)).convert("F").resize((33, 16), Image.Resampling.BOX)
    levels = np.asarray(small)
    bits: Signatures = np.packbits(levels[:, 1:] > levels[:, :-1])
    return bits


def near_pairs(first: Signatures, second: Signatures) -> Iterator[tuple[int, int]]:
    """All (row, row) of signatures (N, 64) and (M, 64) that differ in at most NEAR_BITS bits, in order of the first.

    As they are, or one of them mirrored; of neighbours of the same gray the bit is then wrong.
    """
    bits = 8 * SIGNATURE_BYTES
    right = _signs(second).reshape(-1, bits).T
    step = max(1, _BLOCK // max(1, len(second)))
    for start in range(0, len(first), step):
        left = _signs(first[start : start + step])
        mirrored = -left[:, :, ::-1]
        # Of bits as 1 and -1 the product is how many agree less how many differ.
        alike = np.maximum(left.reshape(-1, bits) @ right, mirrored.reshape(-1, bits) @ right)
        for row, other in np.argwhere(alike >= bits - 2 * NEAR_BITS):
            yield start + int(row), int(other)


def _signs(signatures: Signatures) -> NDArray[np.float32]:
    """Signatures (N, 64) -> (N, 16, 32), 1 for a bit that is set and -1 for one that is not."""
    return np.unpackbits(signatures, axis=1).reshape(-1, 16, 32) * np.float32(2) - np.float32(1)


def groups(signatures: Signatures) -> list[list[int]]:
    """The rows of (N, 64) in groups, near-duplicates of near-duplicates together; rows and groups in order."""
    leader = list(range(len(signatures)))

    def find(row: int) -> int:
        while leader[row] != row:
            leader[row] = row = leader[leader[row]]
        return row

    for row, other in near_pairs(signatures, signatures):
        leader[find(other)] = find(row)
    found: dict[int, list[int]] = {}
    for row in range(len(leader)):
        found.setdefault(find(row), []).append(row)
    return list(found.values())


@dataclass(frozen=True)
class Known:
    """What identifies a radiograph and its copies: sha256 of its 512x256 pixels and its signature, both in hex."""

    name: str
    pixels_sha256: str
    signature: str


def known(name: str, image: NDArray[np.uint8]) -> Known:
    """Of a radiograph (256, 512) uint8."""
    return Known(name, sha256(image.tobytes()), signature(image).tobytes().hex())


@dataclass(frozen=True)
class Leak:
    """A radiograph of one set that is also in another, as the same pixels or nearly."""

    name: str
    other: str
    same_pixels: bool

    def __str__(self) -> str:
        return f"{self.name} ({'the same pixels as' if self.same_pixels else 'nearly the same image as'} {self.other})"


def leaks(training: Sequence[Known], others: Sequence[Known]) -> list[Leak]:
    """Every one of `training` that is also among `others`, each once."""
    if not training or not others:
        return []
    by_pixels = {known.pixels_sha256: known.name for known in others}
    found = {
        row: Leak(known.name, by_pixels[known.pixels_sha256], same_pixels=True)
        for row, known in enumerate(training)
        if known.pixels_sha256 in by_pixels
    }
    for row, other in near_pairs(stacked(training), stacked(others)):
        found.setdefault(row, Leak(training[row].name, others[other].name, same_pixels=False))
    return [found[row] for row in sorted(found)]


def stacked(known: Sequence[Known]) -> Signatures:
    """The signatures as one array (N, 64) uint8."""
    joined = bytes.fromhex("".join(one.signature for one in known))
    return np.frombuffer(joined, np.uint8).reshape(-1, SIGNATURE_BYTES)
