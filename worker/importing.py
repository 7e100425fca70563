"""Unlabeled images into a pool: read, put on the common grid, encoded once."""

import stat
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from app import jobs, keys
from app.errors import LastingError
from app.records import NewImage, NewLatent, Outcome
from app.tables import Job, PoolImage, Upload
from models import pixels
from worker.index import keep_shard
from worker.lease import Lease
from worker.workplace import Workplace

MODEL = "default"  # encoded for these weights at once; for others when a job asks for them
MAX_FILES = 20_000  # in an archive
MAX_EXPANSION = 100  # times the archive's own size; images hardly shrink
NAME_LENGTH = 255


def unpack(place: Workplace, lease: Lease) -> int:
    """The step `unpack`: every file of the archive becomes an upload of its own."""
    job_id = lease.claim.job_id
    with tempfile.TemporaryDirectory(dir=place.cache) as folder:
        file = Path(folder) / "archive.zip"
        with file.open("wb") as out:
            out.writelines(place.blobs.stream(keys.archive(job_id)))
        try:
            names, rejected = _expand(place, lease, file)
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise LastingError(f"archive is no zip file that can be read ({error}); pack the images again") from error
    with place.database.write() as session:
        made = jobs.unpacked(session, lease.claim, names, rejected)
    place.blobs.delete(keys.archive(job_id))
    return made


def _expand(place: Workplace, lease: Lease, file: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """Write the uploads' blobs -> (their names, (name, detail) of each entry that cannot be one)."""
    names: list[str] = []
    rejected: list[tuple[str, str]] = []
    with zipfile.ZipFile(file) as archive:
        entries = [entry for entry in archive.infolist() if not _is_clutter(entry)]
        _check_size(place, entries, file.stat().st_size)
        for entry in entries:
            lease.check()
            detail = _why_not(entry, place.settings.max_upload_bytes)
            name = entry.filename[-NAME_LENGTH:]
            if detail is not None:
                rejected.append((name, detail))
                continue
            # What it says of its size binds: zipfile reads no further.
            place.blobs.put(keys.upload(lease.claim.job_id, len(names)), archive.read(entry))
            names.append(name)
    return names, rejected


def _is_clutter(entry: zipfile.ZipInfo) -> bool:
    path = PurePosixPath(entry.filename)
    return entry.is_dir() or "__MACOSX" in path.parts or path.name.startswith(".")


def _check_size(place: Workplace, entries: list[zipfile.ZipInfo], packed: int) -> None:
    if not entries:
        raise LastingError("archive holds no files; give a zip of images")
    if len(entries) > MAX_FILES:
        raise LastingError(f"archive holds {len(entries)} files, {MAX_FILES} are allowed; send it in parts")
    unpacked = sum(entry.file_size for entry in entries)
    allowed = max(place.settings.max_upload_bytes, MAX_EXPANSION * packed)
    if unpacked > allowed:
        raise LastingError(f"archive unpacks to {unpacked:,} bytes, {allowed:,} are allowed; send it in parts")


def _why_not(entry: zipfile.ZipInfo, max_bytes: int) -> str | None:
    path = PurePosixPath(entry.filename)
    if path.is_absolute() or ".." in path.parts or "\\" in entry.filename:
        return "the name leads out of the archive; pack the images under plain names"
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "a link, no file; pack the image itself"
    if entry.flag_bits & 1:
        return "encrypted; pack it without a password"
    if entry.file_size > max_bytes:
        return f"{entry.file_size:,} bytes, {max_bytes:,} are allowed"
    return None


def import_files(place: Workplace, lease: Lease) -> int:
    """The step `import`: read the files first <= position < last; each is kept or said to be wrong."""
    with place.database.read() as session:
        job = session.get_one(Job, lease.claim.job_id)
        query = select(Upload).where(
            Upload.job_id == job.id,
            Upload.position >= lease.claim.first,
            Upload.position < lease.claim.last,
            Upload.outcome.is_(None),
        )
        uploads = session.scalars(query.order_by(Upload.position)).all()
    outcomes: list[Outcome] = []
    images: dict[str, NDArray[np.uint8]] = {}
    for upload in uploads:
        lease.check()
        try:
            outcome, image = _read(place, job, upload)
        except pixels.ImageError as error:
            outcomes.append(Outcome(upload.position, None, str(error)))
            continue
        outcomes.append(outcome)
        images[pixels.sha256(pixels.image_png(image))] = image
    latents = _encode_new(place, lease, job, images)
    with place.database.write() as session:
        jobs.imported(session, lease.claim, outcomes, latents)
    for upload in uploads:
        place.blobs.delete(keys.upload(job.id, upload.position))
    return 0


def _read(place: Workplace, job: Job, upload: Upload) -> tuple[Outcome, NDArray[np.uint8]]:
    """Decode an upload and write its pixels' blob. Raises ImageError."""
    data = place.blobs.get(keys.upload(job.id, upload.position))
    original = pixels.read_image(data, place.settings.max_pixels)
    image = pixels.resize_image(original)
    png = pixels.image_png(image)
    sha256 = pixels.sha256(png)
    place.blobs.put(keys.pool_image(job.pool_id or "", sha256), png)
    height, width = original.shape
    return Outcome(upload.position, NewImage(upload.name, width, height, sha256)), image


def _encode_new(place: Workplace, lease: Lease, job: Job, images: dict[str, NDArray[np.uint8]]) -> list[NewLatent]:
    """Latents of the images that are new to the pool; none where this worker has no default weights."""
    with place.database.read() as session:
        known = set(
            session.scalars(
                select(PoolImage.sha256).where(PoolImage.pool_id == job.pool_id, PoolImage.sha256.in_(images))
            )
        )
    new = [(sha256, image) for sha256, image in images.items() if sha256 not in known]
    if not new or not place.networks.available(MODEL):
        return []
    lease.check()
    return keep_shard(place, lease, job.pool_id or "", place.networks.get(MODEL), new)
