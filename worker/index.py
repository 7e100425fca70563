"""A pool's index: the latents of its images, in shards of a few dozen, for one set of weights.

A shard is a blob, a float32 array (n, C, 32, 64); SQL knows which row is which image's, and its smallest and
largest value. Shards are copied to this machine once and memory-mapped.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from numpy.typing import NDArray
from sqlalchemy import exists, func, select
from torch import Tensor

from app import keys
from app.errors import LastingError
from app.records import NewLatent
from app.tables import Job, PoolImage, PoolLatent
from models import pixels
from models.batches import FixedBatches
from models.memory import in_halves
from models.tensors import to_images
from models.weights import Networks
from worker.lease import Lease
from worker.networks import batch_size
from worker.workplace import Workplace

PIECE_LATENTS = 256  # compared in one go: 32 MB at 16 channels
PIECE_ROWS = 2000  # of the database, read in one go


@dataclass(frozen=True, slots=True)
class Entry:
    """A pool image and where its latent lies."""

    image_id: int
    name: str
    sha256: str
    shard: str
    row: int


@dataclass(frozen=True)
class PoolIndex:
    """The index of the images that belong to a job."""

    entries: dict[str, Entry]  # by the image's sha256
    data_range: float  # over all of them: SSIM's
    folder: Path  # the shards, on this machine

    def pieces(self, first: int = 0) -> Iterator[tuple[Tensor, list[str]]]:
        """The pool from its image `first` on, piece by piece: latents (n, C, 32, 64) float32 and the images' sha256.

        The order is always the same.
        """
        entries = list(self.entries.values())
        for start in range(first, len(entries), PIECE_LATENTS):
            piece = entries[start : start + PIECE_LATENTS]
            yield self._read(piece), [entry.sha256 for entry in piece]

    def latents(self, sha256s: Sequence[str]) -> Tensor:
        """The latents of some images (n, C, 32, 64), in the order asked for."""
        return self._read([self.entries[sha256] for sha256 in sha256s])

    def _read(self, entries: Sequence[Entry]) -> Tensor:
        runs = groupby(entries, key=lambda entry: entry.shard)
        parts = [_open_shard(self.folder / f"{shard}.npy")[[entry.row for entry in run]] for shard, run in runs]
        return torch.from_numpy(np.concatenate(parts))


def open_index(place: Workplace, job: Job, model_sha256: str, before_fetch: Callable[[], None]) -> PoolIndex:
    """The job's index, its shards fetched; `before_fetch` may stop it by raising.

    Raises LastingError where the pool is gone or incomplete.
    """
    columns = select(PoolImage.id, PoolImage.name, PoolImage.sha256, PoolLatent.shard, PoolLatent.row)
    extremes = select(func.min(PoolLatent.low), func.max(PoolLatent.high))
    with place.database.read() as session:
        rows = session.execute(
            _encoded(job, columns, model_sha256).order_by(PoolLatent.shard, PoolLatent.row),
            execution_options={"yield_per": PIECE_ROWS},
        )
        # A shard's name is in many entries, and in memory once.
        entries = {
            sha256: Entry(image_id, name, sha256, sys.intern(shard), row) for image_id, name, sha256, shard, row in rows
        }
        low, high = session.execute(_encoded(job, extremes, model_sha256)).one()
    if not entries:
        raise LastingError("the pool has no images any more; it was deleted while the job ran")
    folder = place.cache / "latents" / model_sha256
    for shard in sorted({entry.shard for entry in entries.values()}):
        before_fetch()
        _fetch(place, keys.latents(job.home_id, model_sha256, shard), shard, folder / f"{shard}.npy")
    return PoolIndex(entries, high - low, folder)


def images_without_latent(place: Workplace, job: Job, model_sha256: str, limit: int) -> Sequence[str]:
    """sha256 of up to `limit` images of the job's pool that these weights have not encoded yet."""
    # EXISTS uses the index. NOT IN would list the latents of every pool, and PostgreSQL goes through such a list for
    # each image once it is too long to be hashed.
    encoded = exists().where(PoolLatent.pool_image_id == PoolImage.id, PoolLatent.model_sha256 == model_sha256)
    query = _images_of(job, select(PoolImage.sha256)).where(~encoded).order_by(PoolImage.id)
    with place.database.read() as session:
        return session.scalars(query.limit(limit)).all()


def encode(
    networks: Networks, images: Sequence[NDArray[np.uint8]], before_call: Callable[[], None]
) -> NDArray[np.float32]:
    """Images (256, 512) uint8 -> standardised latents (n, C, 32, 64), none depending on the other images.

    As many at once as memory allows. before_call: may stop it by raising, see `FixedBatches`.
    """

    def make(some: Sequence[NDArray[np.uint8]], size: int) -> list[NDArray[np.float32]]:
        units = to_images(np.stack(some), torch.device("cpu"))  # a GPU divides with other last bits
        with FixedBatches(size, before_call=before_call) as batches:
            return list(batches.run(networks.vae.encode, units.to(networks.device)).float().cpu().numpy())

    latents: list[NDArray[np.float32]] = in_halves(make, images, batch_size(networks.device))
    return np.stack(latents)


def keep_shard(
    place: Workplace,
    lease: Lease,
    pool_id: str,
    networks: Networks,
    images: Sequence[tuple[str, NDArray[np.uint8]]],
) -> list[NewLatent]:
    """Encode images, given with their sha256, and write their shard. Raises LastingError."""
    latents = encode(networks, [image for _, image in images], lease.check)
    if not np.isfinite(latents).all():
        raise LastingError(
            f"weights {networks.name!r} encode an image to values that are not finite; check the weights"
        )
    return write_shard(place, pool_id, networks.sha256, [sha256 for sha256, _ in images], latents)


def write_shard(
    place: Workplace, pool_id: str, model_sha256: str, sha256s: Sequence[str], latents: NDArray[np.float32]
) -> list[NewLatent]:
    """Write the blob of some images' latents (n, C, 32, 64); SQL does not know of it yet."""
    out = BytesIO()
    np.save(out, latents, allow_pickle=False)
    shard = pixels.sha256(out.getvalue())
    place.blobs.put(keys.latents(pool_id, model_sha256, shard), out.getvalue())
    return [
        NewLatent(sha256, model_sha256, shard, row, float(latents[row].min()), float(latents[row].max()))
        for row, sha256 in enumerate(sha256s)
    ]


def _encoded(job: Job, query: Any, model_sha256: str) -> Any:
    joined = _images_of(job, query.join_from(PoolImage, PoolLatent, PoolLatent.pool_image_id == PoolImage.id))
    return joined.where(PoolLatent.model_sha256 == model_sha256)


def _images_of(job: Job, query: Any) -> Any:
    return query.where(PoolImage.pool_id == job.pool_id, PoolImage.id <= job.pool_high_water)


def _fetch(place: Workplace, key: str, sha256: str, file: Path) -> None:
    with suppress(FileNotFoundError, EOFError, ValueError):  # or a power cut left the name, and of the content less
        os.utime(file)  # `worker.cache` removes what is not used any more, perhaps at this very moment
        _open_shard(file)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{uuid4().hex}")
    try:
        aside.write_bytes(place.blobs.get(key, sha256))
        aside.replace(file)
    except BaseException:  # on a full disk every try would leave another
        aside.unlink(missing_ok=True)
        raise


def _open_shard(file: Path) -> NDArray[np.float32]:
    shard: NDArray[np.float32] = np.load(file, mmap_mode="r", allow_pickle=False)
    return shard
