"""A labeled set in a folder: images/ and masks/ (or regions/) of the same file names."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from unicodedata import normalize

from cli.failure import Failure

if TYPE_CHECKING:
    from cli.client import File

Pair = tuple[Path, Path]  # a radiograph and its mask


def labeled_pairs(folder: Path, kind: str = "masks") -> list[Pair]:
    """Every image in images/ with the mask in `kind`/ of the same name, else of the same name but for its ending.

    Raises Failure where an image has no mask, or several that differ from it in their ending only.
    """
    from models.training.images import SUFFIXES, has_ending

    if not (folder / "images").is_dir() or not (folder / kind).is_dir():
        raise Failure(f"{folder}: it needs the folders images/ and {kind}/, with the same file names")
    images, masks = (_images_in(folder / part) for part in ("images", kind))
    named = {_spelled(mask.name): [mask] for mask in masks}
    alike: dict[str, list[Path]] = {}
    for mask in masks:
        alike.setdefault(_spelled(mask.stem), []).append(mask)
    fitting = {
        image: named.get(_spelled(image.name))
        or alike.get(_spelled(image.stem if has_ending(image) else image.name), [])
        for image in images
    }
    if not images:
        raise Failure(f"{folder / 'images'}: there is no image in it; known endings: {', '.join(sorted(SUFFIXES))}")
    if lonely := [image.name for image, found in fitting.items() if not found]:
        raise Failure(
            f"{folder}: {lonely[0]} has no mask of its name ({len(lonely)} such); name every mask as its image"
        )
    if unclear := [image for image, found in fitting.items() if len(found) > 1]:
        names = " or ".join(mask.name for mask in fitting[unclear[0]])
        raise Failure(f"{folder}: the mask of {unclear[0].name} may be {names} ({len(unclear)} such); keep one of them")
    return [(image, found[0]) for image, found in fitting.items()]


def _images_in(folder: Path) -> list[Path]:
    """Raises Failure for images below it: of the same name in two folders, they could not be told apart."""
    from models.training.images import image_paths

    found = image_paths(folder)
    if deeper := [path for path in found if path.parent != folder]:
        raise Failure(
            f"{deeper[0]} lies in a subfolder ({len(deeper)} such); put all that is labeled into {folder} itself"
        )
    return found


def _spelled(name: str) -> str:
    """One spelling for an umlaut, which macOS may write as two characters."""
    return normalize("NFC", name)


def labeled_files(pairs: Sequence[Pair], prefix: str = "") -> "list[File]":
    """The files of a form: all images as `{prefix}image`, then, in the same order, all masks as `{prefix}mask`."""
    images: list[File] = [(f"{prefix}image", image.name, image) for image, _ in pairs]
    return images + [(f"{prefix}mask", mask.name, mask) for _, mask in pairs]


def split(pairs: list[Pair], guides: int | None, seed: int) -> tuple[list[Pair], list[Pair]]:
    """(to train on, to test on), drawn by lot from the files' names: the same seed gives the same split."""
    count = len(pairs) // 2 if guides is None else guides
    if len(pairs) < 2:
        raise Failure(f"labeled images: {len(pairs)}; label two or more, to train on some and test on the others")
    if not 0 < count < len(pairs):
        raise Failure(f"--guides {count} of {len(pairs)} labeled images; give 1 to {len(pairs) - 1}, tests need others")
    drawn = sorted(pairs, key=lambda pair: hashlib.sha256(os.fsencode(f"{seed}:{pair[0].name}")).digest())
    return sorted(drawn[:count]), sorted(drawn[count:])
