"""A folder of radiographs as one memory-mapped array."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.pixels import HEIGHT, WIDTH, ImageError, read_image, resize_image

SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".dcm"}


class TrainingDataError(ValueError):
    """A folder that cannot be trained on."""


def open_images(
    folder: Path, cache: Path, show: Callable[[int, int], None], say: Callable[[str], None]
) -> NDArray[np.uint8]:
    """All radiographs below `folder`, by name -> (N, 256, 512) uint8, memory-mapped from a file in `cache`.

    Read once: the cache is kept until a file of the folder changes its name, size or time. Unreadable files are named
    to `say` and left out. Raises TrainingDataError when fewer than 8 radiographs are left.
    """
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    listing = "\n".join(f"{p.relative_to(folder)} {p.stat().st_size} {p.stat().st_mtime_ns}" for p in paths)
    stored = cache / f"images-{hashlib.sha256(listing.encode()).hexdigest()[:16]}.npy"
    if not stored.exists():
        _write(paths, stored, show, say)
    images: NDArray[np.uint8] = np.load(stored, mmap_mode="r")
    if len(images) < 8:
        raise TrainingDataError(f"{folder} holds {len(images)} readable radiographs; training needs at least 8")
    return images


def _write(paths: list[Path], stored: Path, show: Callable[[int, int], None], say: Callable[[str], None]) -> None:
    stored.parent.mkdir(parents=True, exist_ok=True)
    aside = stored.with_suffix(".part")
    count = 0
    with aside.open("wb") as file:
        for position, path in enumerate(paths):
            try:
                pixels = resize_image(read_image(path.read_bytes()))
            except ImageError as error:
                say(f"{path.name} is left out: {error}")
                continue
            file.write(pixels.tobytes())
            count += 1
            show(position + 1, len(paths))
    raw = (
        np.memmap(aside, np.uint8, "r", shape=(count, HEIGHT, WIDTH))
        if count
        else np.zeros((0, HEIGHT, WIDTH), np.uint8)
    )
    whole = stored.with_suffix(".new.npy")
    np.save(whole, raw)
    aside.unlink()
    whole.replace(stored)
