"""Unlabeled images into a pool: read, put on the common grid, encoded once."""

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from app import imports, jobs, keys, pools, regions
from app.errors import UnusableInput
from app.records import NewImage, NewLatent, Outcome
from app.tables import Job, Upload
from models import pixels
from models.image_errors import ImageError
from worker.archives import DamagedEntry, contents, open_archive, shown_name, why_not
from worker.index import keep_shard
from worker.lease import Lease, TurnOver
from worker.region import find_box
from worker.workplace import Workplace

TURN_SECONDS = 20.0
MODEL = "default"  # encoded for these weights at once; for others when a job asks for them


def unpack(place: Workplace, lease: Lease) -> int:
    """The step `unpack`: every file of the archive becomes an upload of its own."""
    job_id = lease.claim.job_id
    with tempfile.TemporaryFile(dir=place.cache) as file:  # nameless: nothing stays after a kill -9
        for piece in place.blobs.stream(keys.archive(job_id)):
            lease.check()  # a large one from a slow store takes minutes
            file.write(piece)
        file.flush()
        try:
            names, rejected = _expand(place, lease, file)
        except UnusableInput as error:
            with place.database.write() as session:
                jobs.fail(session, lease.claim, str(error), error.status)
            place.blobs.delete(keys.archive(job_id))  # files as they came are kept no longer than needed
            return 0
    with place.database.write() as session:
        made = imports.unpacked(session, lease.claim, names, rejected)
    place.blobs.delete(keys.archive(job_id))
    return made


def _expand(place: Workplace, lease: Lease, file: BinaryIO) -> tuple[list[str], list[tuple[str, str]]]:
    """Write the uploads' blobs -> (their names, (name, detail) of each entry that cannot be one)."""
    names: list[str] = []
    rejected: list[tuple[str, str]] = []
    max_bytes = place.settings.max_upload_bytes
    with open_archive(file, max_bytes) as (archive, entries):
        for entry in entries:
            lease.check()
            name = shown_name(entry)
            if (detail := why_not(entry, max_bytes)) is not None:
                rejected.append((name, detail))
                continue
            try:
                data = contents(archive, entry)
            except DamagedEntry as damage:
                rejected.append((name, str(damage)))
                continue
            place.blobs.put(keys.upload(lease.claim.job_id, len(names)), data)
            names.append(name)
    return names, rejected


def import_files(place: Workplace, lease: Lease) -> int:
    """The step `import`: read the files first <= position < last; each is kept or said to be wrong.

    After TURN_SECONDS no further one is begun: large radiographs take seconds each, and other jobs wait.
    """
    with place.database.read() as session:
        job = session.get_one(Job, lease.claim.job_id)
        uploads = session.scalars(select(Upload).where(imports.unread(lease.claim)).order_by(Upload.position)).all()
    ends = time.monotonic() + TURN_SECONDS

    def read_in_turn(upload: Upload) -> tuple[Outcome, NDArray[np.uint8] | None] | None:
        return _read(place, lease, job, upload) if upload is uploads[0] or time.monotonic() < ends else None

    at_once = len(place.decoders) if lease.claim.attempt == 1 else 1  # several large files may have been too many
    read = []
    with ThreadPoolExecutor(at_once) as threads:
        for found in threads.map(read_in_turn, uploads):
            if found is None:
                break  # of two files with the same pixels the first is kept: none is taken before those in front of it
            read.append(found)
    images = {row.sha256: image for (_, row, _), image in read if row is not None and image is not None}
    latents = _encode_new(place, lease, job, images)
    outcomes = [outcome for outcome, _ in read]
    with place.database.write() as session:
        imports.imported(session, lease.claim, outcomes, latents)
    place.blobs.delete(*(keys.upload(job.id, outcome.position) for outcome in outcomes))
    if len(read) < len(uploads):
        raise TurnOver
    return 0


def _read(place: Workplace, lease: Lease, job: Job, upload: Upload) -> tuple[Outcome, NDArray[np.uint8] | None]:
    """What becomes of a file, and its pixels (256, 512) if it is to be kept."""
    lease.check()
    try:
        row, image = _decode(place, job, upload)
    except ImageError as error:
        return Outcome(upload.position, None, str(error)), None
    return Outcome(upload.position, row), image


def _decode(place: Workplace, job: Job, upload: Upload) -> tuple[NewImage, NDArray[np.uint8]]:
    """Decode an upload and write its pixels' blob. Raises ImageError."""
    key = keys.upload(job.id, upload.position)
    data = place.blobs.get(key)
    cropped = job.parameters.get("region") == regions.CROP
    try:
        with place.decoders.read("image", [data], full_size=cropped) as decoded:
            image, crop = decoded.pixels, None
            if cropped:
                original = pixels.from_levels(decoded.pixels)
                box = find_box(place, original)
                image, crop = pixels.resize_image(box.cut(original)), asdict(box)
    except ImageError:
        place.blobs.check_whole(key, data)  # or a good file would be refused as cut short
        raise
    png = pixels.image_png(image)
    sha256 = pixels.sha256(png)
    place.blobs.put(keys.pool_image(job.home_id, sha256), png)
    return NewImage(upload.name, decoded.width, decoded.height, sha256, crop), image


def _encode_new(place: Workplace, lease: Lease, job: Job, images: dict[str, NDArray[np.uint8]]) -> list[NewLatent]:
    """Latents of the images that are new to the pool; none where this worker has no default weights."""
    with place.database.read() as session:
        known = pools.known(session, job.home_id, images)
    new = [(sha256, image) for sha256, image in images.items() if sha256 not in known]
    if not new or not place.networks.available(MODEL):
        return []
    lease.check()
    return keep_shard(place, lease, job.home_id, place.networks.get(MODEL), new)
