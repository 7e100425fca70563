"""The paper's split: images without masks to train on and for the pool, labeled ones as guides and for tests.

Radiographs that are nearly the same, copies of one another, stay on one side.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from models.duplicates import Known, groups, stacked

SETS = ("train", "pool", "guides", "test")
MANIFEST = "split.json"


@dataclass(frozen=True)
class Split:
    """The rows of each set; `dropped`: unlabeled rows that are also labeled, with the labeled row."""

    train: list[int]
    pool: list[int]
    guides: list[int]
    test: list[int]
    dropped: list[tuple[int, int]]


def split_images(unlabeled: Sequence[Known], labeled: Sequence[Known], pool: float, guides: float, seed: int) -> Split:
    """Rows of `unlabeled` into train and pool, of `labeled` into guides and test.

    `pool` and `guides`: how many, or below 1 what share. Drawn by lot, by `seed` and the images' pixels: neither the
    files' names nor their order matter. A group of near-duplicates is never parted, and if one of them is labeled, the
    unlabeled ones are dropped. Raises ValueError where a set would be empty.
    """
    count = len(unlabeled)
    alike = groups(stacked([*unlabeled, *labeled]))
    of_labeled = [[row - count for row in rows if row >= count] for rows in alike]
    dropped = [(row, own[0]) for rows, own in zip(alike, of_labeled, strict=True) if own for row in rows if row < count]
    free = [rows for rows, own in zip(alike, of_labeled, strict=True) if not own]
    chosen = set(_draw(unlabeled, free, pool, seed, "--pool", "without a mask"))
    with_masks = [rows for rows in of_labeled if rows]
    own = set(_draw(labeled, with_masks, guides, seed, "--guides", "with masks")) if labeled else set()
    return Split(
        train=sorted(row for rows in free for row in rows if row not in chosen),
        pool=sorted(chosen),
        guides=sorted(own),
        test=[row for row in range(len(labeled)) if row not in own],
        dropped=sorted(dropped),
    )


def _draw(
    images: Sequence[Known], alike: list[list[int]], wanted: float, seed: int, option: str, kind: str
) -> list[int]:
    """Whole groups by lot until `wanted` rows are found; a group that is too large for what is left is passed over."""
    total = sum(map(len, alike))
    if total < 2:
        raise ValueError(f"{option}: {total} radiographs {kind} cannot be split in two; give at least 2")
    count = round(wanted * total) if wanted < 1 else int(min(wanted, total))
    if not 0 < count < total:
        raise ValueError(f"{option} {wanted:g} of {total} images leaves a set empty; give 1 to {total - 1}")

    def lot(rows: Sequence[int]) -> bytes:
        content = min(images[row].pixels_sha256 for row in rows)
        return hashlib.sha256(f"{seed}:{content}".encode()).digest()

    found: list[int] = []
    for rows in sorted(alike, key=lot):
        if len(found) + len(rows) <= count:
            found += rows
    if not found:
        raise ValueError(f"{option} {wanted:g} is less than the smallest group of near-duplicates has; give more")
    return found


def used_elsewhere(manifest: Path) -> list[Known]:
    """The images of a split.json that must not be trained on: pool, guides and test. Raises ValueError."""
    try:
        sets: dict[str, list[dict[str, Any]]] = json.loads(manifest.read_text())["sets"]
        return [
            Known(f"{name}/{entry['name']}", entry["pixels_sha256"], entry["signature"])
            for name in SETS[1:]
            for entry in sets[name]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{manifest} is not a manifest of `pansynth split`: {error!r}") from None


def manifest_entries(known: Sequence[Known], rows: Sequence[int], file_sha256s: Sequence[str]) -> list[dict[str, str]]:
    """What split.json tells of each image of a set."""
    return [asdict(known[row]) | {"sha256": file_sha256s[row]} for row in rows]
