"""A folder of radiographs as one memory-mapped array, read once."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.dicom import is_dicom
from models.duplicates import Known, known
from models.image_errors import ImageError
from models.pixels import HEIGHT, WIDTH, check_same_size, file_sha256, read_image, read_mask, resize_image, sha256
from models.sharing import alone, named, whole

SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".dcm", ".dicom"}
UNREAD = {".gif", ".jp2", ".webp"}  # found all the same, to be refused by name: else nobody would miss them
OF_THE_DISK = "lost+found"
LEAST = 8
CHUNK = 64  # files between two entries in the index: what a kill costs at most

Show = Callable[..., None]  # show(done, total, label)
Say = Callable[[str], None]


class TrainingDataError(ValueError):
    """A folder that cannot be trained on."""


@dataclass(frozen=True, eq=False)
class TrainingImages:
    """pixels: (N, 256, 512) uint8, memory-mapped; known: of each row the file's name below the folder, and what
    identifies it in another set."""

    pixels: NDArray[np.uint8]
    known: tuple[Known, ...]

    def __str__(self) -> str:
        """Which pixels in which order: a run is resumed with the same alone."""
        digest = sha256("".join(known.pixels_sha256 for known in self.known).encode())
        return f"{len(self.known)} images {digest[:12]}"


def image_paths(folder: Path) -> list[Path]:
    """The radiographs in a folder and below, by name; not what is hidden, or lies beside an images/, as masks do.

    Nor `lost+found`, the system's own folder in the root of a disk, which nobody else may look into.

    Links are followed, but nothing is found twice in a folder that several lead to, perhaps from within. Raises OSError
    for a folder that cannot be looked into: nobody would know what is missing.
    """
    found: list[Path] = []
    seen: set[Path] = set()
    for place, below, names in os.walk(folder, onerror=_refuse, followlinks=True):
        if (real := Path(place).resolve()) in seen:
            below[:] = []
            continue
        seen.add(real)
        if "images" in below:
            below[:], names = ["images"], []
        below[:] = sorted(name for name in below if not name.startswith(".") and name != OF_THE_DISK)
        found += filter(is_image, (Path(place, name) for name in names))
    return sorted(found)


def _refuse(error: OSError) -> None:
    raise error


def is_image(path: Path) -> bool:
    """By its ending, or by DICOM's signature, since archives export files without one; macOS hides `._x.png` files."""
    if path.name.startswith("."):
        return False
    if has_ending(path):
        return path.is_file() or not path.exists()  # a link that leads nowhere is refused by name when it is read
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return is_dicom(file.read(132))


def has_ending(path: Path) -> bool:
    """Whether the ending is an image's; the last number of a DICOM UID is none."""
    return path.suffix.lower() in SUFFIXES | UNREAD


def open_images(folder: Path, cache: Path, show: Show, say: Say, least: int = LEAST) -> TrainingImages:
    """All radiographs of a folder, from a file in `cache` that is made at the first call.

    The file's name follows from the names and the content of the folder's files, so another folder, or a changed one,
    never gets it. After a kill the next call goes on where the last one was; of several at once one reads and the
    others wait. Unreadable files are reported by `say` and left out. Raises TrainingDataError when fewer than `least`
    radiographs are left, NotLockable.
    """
    if not folder.is_dir():
        raise TrainingDataError(f"{folder}: there is no such folder")
    paths = image_paths(folder)
    cache.mkdir(parents=True, exist_ok=True)
    with alone(cache):
        digests = _digests(paths, cache / f"digests-{sha256(os.fsencode(folder.resolve()))[:16]}.json", show)
        names = [path.relative_to(folder).as_posix() for path in paths]
        content = "".join(f"{name} {digest}\n" for name, digest in zip(names, digests, strict=True))
        stored = cache / f"images-{sha256(os.fsencode(content))[:16]}.u8"
        index = _complete(paths, names, stored, show)
    kept = tuple(Known(**entry) for entry in index if "rejected" not in entry)
    for entry in index:
        if "rejected" in entry:
            say(f"{entry['name']} is left out: {entry['rejected']}")
    if len(kept) < least:
        raise TrainingDataError(f"{folder} holds {len(kept)} readable radiographs; give at least {least}")
    return TrainingImages(np.memmap(stored, np.uint8, "r", shape=(len(kept), HEIGHT, WIDTH)), kept)


def describe(
    paths: Sequence[Path], masks: Sequence[Path | None], names: Sequence[str], show: Show
) -> Iterator[dict[str, str]]:
    """For each file its name, sha256, pixels_sha256 and signature, or `rejected`: what is wrong with it or its mask."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(paths), CHUNK):
            part = slice(start, start + CHUNK)
            read = pool.map(_read, paths[part], names[part], masks[part])
            for path, (_, entry) in zip(paths[part], read, strict=True):
                yield entry | {"sha256": file_sha256(path)}
            show(min(start + CHUNK, len(paths)), len(paths), "reading")


def _digests(paths: Sequence[Path], stored: Path, show: Show) -> list[str]:
    """The sha256 of every file; one whose size and time are those of the last call is not read again."""
    try:
        before: dict[str, list[Any]] = json.loads(stored.read_text())
    except (FileNotFoundError, ValueError):
        before = {}
    now: dict[str, list[Any]] = {}
    for number, path in enumerate(paths, start=1):
        stat = path.stat()
        seen = [stat.st_size, stat.st_mtime_ns]
        last = before.get(str(path))
        now[str(path)] = last if last and last[:2] == seen else [*seen, file_sha256(path)]
        if number % CHUNK == 0:
            show(number, len(paths), "comparing")
    with whole(stored) as file:
        file.write(json.dumps(now).encode())
    return [entry[2] for entry in now.values()]


def _complete(paths: Sequence[Path], names: Sequence[str], stored: Path, show: Show) -> list[dict[str, str]]:
    """Read the files that the index lacks yet; -> the index, one entry for each file in their order.

    Pixels are written before the entries that name them, so all that the index names is there; what a killed call wrote
    beyond that is cut off.
    """
    index_path = stored.with_suffix(".jsonl")
    index = _read_index(index_path) if stored.exists() else []
    if len(index) == len(paths):
        return index
    with (
        named(stored),
        stored.open("ab") as pixels,
        index_path.open("a") as entries,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        pixels.truncate(HEIGHT * WIDTH * sum("rejected" not in entry for entry in index))
        entries.truncate(sum(len(json.dumps(entry)) + 1 for entry in index))
        for start in range(len(index), len(paths), CHUNK):
            part = slice(start, start + CHUNK)
            made = list(pool.map(_read, paths[part], names[part]))
            pixels.write(b"".join(image.tobytes() for image, _ in made if image is not None))
            pixels.flush()
            os.fsync(pixels.fileno())
            entries.writelines(json.dumps(entry) + "\n" for _, entry in made)
            entries.flush()
            index += [entry for _, entry in made]
            show(len(index), len(paths), "reading")
    return index


def _read_index(path: Path) -> list[dict[str, str]]:
    """The entries of an index; a last line that was not written to its end is no entry."""
    if not path.exists():
        return []
    lines = path.read_text().split("\n")
    return [json.loads(line) for line in lines[:-1]]


def _read(path: Path, name: str, mask: Path | None = None) -> tuple[NDArray[np.uint8] | None, dict[str, str]]:
    try:
        radiograph = read_image(path.read_bytes())
        if mask is not None:
            check_same_size(radiograph.shape, read_mask(mask.read_bytes()).shape)
    except ImageError as error:
        return None, {"name": name, "rejected": str(error) if mask is None else f"it or its mask: {error}"}
    image = resize_image(radiograph)
    return image, asdict(known(name, image))
