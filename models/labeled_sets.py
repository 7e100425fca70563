"""The sets of a comparison: guides, pool and test images, from phantoms or from a user's folders."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models import pixels
from models.duplicates import Known, known, leaks, near_pairs, stacked
from models.image_errors import ImageError
from models.phantoms import Phantom, nth_phantom
from models.phantoms.parallel import in_parallel
from models.segmenter import Labeled
from models.sharing import alone, whole

GUIDES_SET, POOL_SET, TEST_SET = 1, 2, 3  # added to a phantom seed: the sets share no anatomy
SEEDS_APART = 4  # between two comparisons: at neighbouring seeds one's pool would be the other's guides
NAMED = 10  # of the files that are wrong

Show = Callable[..., None]  # show(done, total, label)
Pair = tuple[Path, Path | None]  # a radiograph and its mask, if there is one
Picture = tuple[NDArray[np.uint8], NDArray[np.bool_] | None]  # the same, read
ResizeImage = Callable[[NDArray[np.float32]], NDArray[np.uint8]]
ResizeMask = Callable[[NDArray[np.bool_]], NDArray[np.bool_]]


@dataclass(frozen=True, eq=False)
class Sets:
    """guides: labeled, to train on and to synthesise from; pool: what they go into; test: labeled, used nowhere else.

    The pool's masks are true ones, so that there can be an oracle, or empty. Raises ValueError for a test image that is
    also a guide or in the pool, or nearly the same as one.
    """

    guides: Labeled
    pool: Labeled
    test: Labeled

    def __post_init__(self) -> None:
        test = known_images(self.test)
        for place, part in (("among the guides", self.guides), ("in the pool", self.pool)):
            if found := leaks(test, known_images(part)):
                remedy = f"test on images used nowhere else ({len(found)} such)"
                raise ValueError(f"test image {found[0]} is {place}, too; {remedy}")

    def sha256(self) -> str:
        """Of all pixels and masks in their order."""
        return pixels_sha256(self.guides, self.pool, self.test)


def pixels_sha256(*parts: Labeled) -> str:
    """Of every part's images, then its masks; row by row, since a copy of a part may not fit into memory."""
    digest = hashlib.sha256()
    for part in parts:
        for image in part.images:
            digest.update(image.tobytes())
        for mask in part.masks:
            digest.update(np.packbits(mask).tobytes())
    return digest.hexdigest()


def phantom_sets(
    seed: int,
    counts: tuple[int, int, int],
    guide_looks: Sequence[str],
    looks: Sequence[str],
    show: Show,
    folder: Path | None = None,
) -> Sets:
    """Guides, pool and test of `counts`, none sharing an anatomy; the guides in looks of their own.

    With a `folder` they are kept there and memory-mapped, so that neither other processes nor a resumed run draw them
    again. Raises NotLockable.
    """
    return Sets(
        _phantoms(seed + GUIDES_SET, counts[0], guide_looks, "guide", show, folder),
        _phantoms(seed + POOL_SET, counts[1], looks, "pool image", show, folder),
        _phantoms(seed + TEST_SET, counts[2], looks, "test image", show, folder),
    )


def folder_sets(guides: Sequence[Pair], pool: Sequence[Pair], test: Sequence[Pair], show: Show) -> Sets:
    """The same from image files, brought to 512x256. Raises ValueError naming the file.

    Pool images with the pixels of an earlier one are left out: the same samples would be made of them. So are guides,
    and copies of them saved anew, which would be their best match: the sample would be the guide itself.
    """
    labeled = read_labeled(guides, "guides", show)
    unlabeled = _distinct(read_labeled(pool, "pool images", show), labeled)
    # A guide's file may have the same name, but shows another anatomy.
    names = tuple(f"pool image {name}" for name in unlabeled.groups)
    return Sets(labeled, replace(unlabeled, groups=names), read_labeled(test, "test images", show))


def _distinct(part: Labeled, guides: Labeled) -> Labeled:
    """Every image once, and none that is a guide or nearly one."""
    own = known_images(part)
    first = {one.pixels_sha256: row for row, one in reversed([*enumerate(own)])}
    copies = {row for row, _ in near_pairs(stacked(own), stacked(known_images(guides)))}
    chosen = sorted(set(first.values()) - copies)
    return part if len(chosen) == len(part) else part.rows(chosen)


def known_images(part: Labeled) -> list[Known]:
    """What finds each image again in another set, by its group's name."""
    return [known(name, image) for image, name in zip(part.images, part.groups, strict=True)]


def _phantoms(seed: int, count: int, looks: Sequence[str], label: str, show: Show, folder: Path | None) -> Labeled:
    def drawn() -> Iterator[Phantom]:
        for number, phantom in enumerate(in_parallel(partial(nth_phantom, seed, looks=tuple(looks)), count)):
            yield phantom
            show(number + 1, count, f"{label}s")

    names = tuple(f"{label} {number}" for number in range(count))
    if folder is None:
        images, masks = _room(count)
        for number, phantom in enumerate(drawn()):
            images[number], masks[number] = phantom.image, phantom.mask
        return Labeled(images, masks, names)
    folder.mkdir(parents=True, exist_ok=True)
    stored = folder / f"{seed}-{count}-{'-'.join(looks)}.npy"
    with alone(folder):
        if not stored.exists():
            _keep(drawn(), count, stored)
    pairs = np.load(stored, mmap_mode="r+")  # nothing is written to it, but torch warns of "r"
    return Labeled(pairs[:, 0], pairs[:, 1].view(bool), names)


def _keep(phantoms: Iterator[Phantom], count: int, stored: Path) -> None:
    """Write images and masks (count, 2, 256, 512) uint8, one after the other: on a full disk that is an error, where a
    file mapped into memory would end the process."""
    with whole(stored) as file:
        shape = (count, 2, pixels.HEIGHT, pixels.WIDTH)
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for phantom in phantoms:
            file.write(phantom.image.tobytes() + phantom.mask.tobytes())


def read_labeled(pairs: Sequence[Pair], label: str, show: Show) -> Labeled:
    """Radiographs and masks at 512x256, an empty mask where there is none. Raises ValueError naming the wrong files."""
    images, masks = _room(len(pairs))
    for row, (image, mask) in enumerate(read_pairs(pairs, pixels.resize_image, pixels.resize_mask, label, show)):
        images[row] = image
        if mask is not None:
            masks[row] = mask
    return Labeled(images, masks, tuple(image.name for image, _ in pairs))


def read_pairs(
    pairs: Sequence[Pair], resize_image: ResizeImage, resize_mask: ResizeMask, label: str, show: Show
) -> Iterator[Picture]:
    """Each radiograph and its mask, resized. Raises ValueError, at the end, naming the wrong files."""
    wrong: list[str] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for number, read in enumerate(pool.map(partial(_read_pair, resize_image, resize_mask), pairs), start=1):
            if isinstance(read, str):
                wrong.append(read)
            else:
                yield read
            show(number, len(pairs), label)
    if wrong:
        more = [f"and {len(wrong) - NAMED} more"] if len(wrong) > NAMED else []
        raise ValueError("\n  ".join([*wrong[:NAMED], *more]))


def _read_pair(resize_image: ResizeImage, resize_mask: ResizeMask, pair: Pair) -> Picture | str:
    """Both, or what is wrong with them."""
    image, mask = pair
    try:
        radiograph = pixels.read_image(image.read_bytes())
        if mask is None:
            return resize_image(radiograph), None
        anatomy = pixels.read_mask(mask.read_bytes())
        pixels.check_same_size(radiograph.shape, anatomy.shape)
    except ImageError as error:
        return f"{image} or its mask: {error}"
    return resize_image(radiograph), resize_mask(anatomy)


def _room(count: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Arrays for `count` images, and empty masks; only what is written takes memory."""
    shape = (count, pixels.HEIGHT, pixels.WIDTH)
    return np.zeros(shape, np.uint8), np.zeros(shape, bool)
