"""The dataset: one zip whose bytes depend on its content alone, whoever made the samples and when."""

import hashlib
import io
import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from app import jobs, keys, queries
from app.errors import UnusableInput
from app.labels import guide_label, label
from app.regions import box, pool_boxes
from app.tables import Guide, Job, Sample
from app.trust import quality_summary
from app.weights import Weights
from models import pixels
from worker.lease import Lease
from worker.made_samples import MadeSamples
from worker.manifest import manifest_csv, readme
from worker.networks import check_same_weights
from worker.preview import Row, preview_png
from worker.reading import read_ahead
from worker.workplace import Workplace

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from obstore import Attributes

PREVIEW_ROWS = 8
EPOCH = (1980, 1, 1, 0, 0, 0)
VERSIONED = ("pansynth", "torch", "diffusers", "numpy", "pillow")


def package(place: Workplace, lease: Lease) -> int:
    """The step `package`: every sample is made; write the zip aside, then as the job's dataset."""
    with place.database.read() as session:
        job = queries.find_job(session, lease.claim.job_id)
        guides = queries.guides(session, job.id)
    samples = MadeSamples(place.database, job, lease.check)
    if not len(samples):
        raise UnusableInput(_none_kept(place, job))
    with tempfile.TemporaryDirectory(dir=place.cache) as folder:
        file = Path(folder) / "dataset.zip"
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name, data in _members(place, job, guides, samples):
                lease.check()
                _add(archive, _entry(name), data)
        with _Watched(file, lease) as written:
            sha256 = hashlib.file_digest(written, "sha256").hexdigest()
            written.seek(0)
            try:
                place.blobs.put_file(keys.dataset(job.id), written, _headers(job))
            except Exception:
                lease.check()  # the store has turned what the file raised into an error of its own
                raise
        with place.database.write() as session:
            jobs.packaged(session, lease.claim, sha256=sha256, size=file.stat().st_size)
    place.blobs.delete_prefix(keys.originals(job.id))  # not sooner: guides may share one
    return 0


class _Watched(io.BufferedReader):
    """A file whose reading ends when the lease is lost, and counts as work while it lasts."""

    def __init__(self, file: Path, lease: Lease) -> None:
        super().__init__(io.FileIO(file))
        self._lease = lease

    def read(self, size: int | None = -1) -> bytes:
        self._lease.check()
        return super().read(size)

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        self._lease.check()
        return super().readinto(buffer)


def _headers(job: Job) -> "Attributes":
    """As the API serves the dataset, for clients that it sends to the bucket."""
    return {"Content-Type": "application/zip", "Content-Disposition": keys.dataset_disposition(job.id)}


def _none_kept(place: Workplace, job: Job) -> str:
    with place.database.read() as session:
        first = session.execute(queries.dropped(job.id).limit(1)).first()
    example = "" if first is None else f", the first since {first.dropped}"
    return f"none of {job.total} samples reached the thresholds{example}; loosen them"


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, EPOCH)
    entry.create_system = 3  # Unix, whatever this machine is
    entry.external_attr = 0o644 << 16
    return entry


def _add(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, data: bytes | BinaryIO) -> None:
    """data: a file is open at its end."""
    if isinstance(data, bytes):
        archive.writestr(entry, data)
        return
    entry.file_size = data.tell()  # as `writestr` tells it: whether it takes 64 bits is written first
    data.seek(0)
    with archive.open(entry, "w") as file:
        shutil.copyfileobj(data, file)


def _members(
    place: Workplace, job: Job, guides: Sequence[Guide], samples: MadeSamples
) -> Iterator[tuple[str, bytes | BinaryIO]]:
    """Every file of the zip, sorted by name; images and masks are read as they are written."""
    weights = place.networks.weights(job.parameters["model"])
    check_same_weights(weights, job.parameters["model_sha256"])
    yield "README.md", readme(job, len(guides), len(samples)).encode()
    images = (
        (f"images/{s.position:06d}.png", keys.sample(job.id, s.image_sha256 or ""), s.image_sha256 or "")
        for s in samples
    )
    yield from read_ahead(place.blobs, images)
    described = _described(place, job, guides, len(samples), weights)
    yield "job.json", (json.dumps(described, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
    with tempfile.TemporaryFile(dir=place.cache) as manifest:  # of a million samples it has half a gigabyte
        lines = manifest_csv(job, guides, samples, weights.sha256, _boxed(place, samples))
        manifest.writelines(line.encode() for line in lines)
        yield "manifest.csv", manifest
    masks = ((f"masks/{s.position:06d}.png", *label(s, guides[s.guide])) for s in samples)
    yield from read_ahead(place.blobs, masks)
    rows = _preview_rows(place, job, guides, samples)
    yield "preview.png", preview_png(rows, own_masks=bool(job.parameters.get("align")))


def _boxed(place: Workplace, samples: MadeSamples) -> Iterator[tuple[Sample, Mapping[str, Any]]]:
    """The samples, each with the box of its pool image; without where its pool is gone."""
    for page in samples.pages():
        with place.database.read() as session:
            boxes = pool_boxes(session, page)
        yield from ((sample, boxes.get(sample.pool_image_id, {})) for sample in page)


def _described(place: Workplace, job: Job, guides: Sequence[Guide], samples: int, weights: Weights) -> dict[str, Any]:
    """What `job.json` says: how the dataset was made, and what it lacks."""
    with place.database.read() as session:
        dropped, failed = session.execute(queries.dropped(job.id)).all(), queries.failed_samples(session, job)
    return {
        "parameters": job.parameters,
        "guides": [
            {
                "name": g.name,
                "width": g.width,
                "height": g.height,
                "image_sha256": g.image_sha256,
                "mask_sha256": g.mask_sha256,
                "box": box(g.width, g.height, g.crop),
            }
            for g in guides
        ],
        "samples": samples,
        "quality_summary": quality_summary(job),
        "dropped": [
            {"index": s.position, "guide": guides[s.guide].name, "pool_image": s.pool_image_name, "detail": s.dropped}
            for s in dropped
        ],
        **({"failed_samples": failed} if failed else {}),
        "versions": {name: version(name) for name in VERSIONED},
        "model": {"name": weights.name, "sha256": weights.sha256, "card": weights.card},
    }


def _preview_rows(place: Workplace, job: Job, guides: Sequence[Guide], samples: MadeSamples) -> list[Row]:
    """Some samples, evenly spread over the dataset."""
    count = min(PREVIEW_ROWS, len(samples))
    rows = []
    for sample in (samples[turn * len(samples) // count] for turn in range(count)):
        guide = guides[sample.guide]
        rows.append(
            Row(
                guide=pixels.image_from_png(place.blobs.get(keys.guide(job.id, guide.image_sha256))),
                mask=pixels.mask_from_png(place.blobs.get(*guide_label(guide))),
                unlabeled=pixels.image_from_png(
                    place.blobs.get(keys.pool_image(job.home_id, sample.pool_image_sha256))
                ),
                synthetic=pixels.image_from_png(place.blobs.get(keys.sample(job.id, sample.image_sha256 or ""))),
                label=pixels.mask_from_png(place.blobs.get(*label(sample, guide))),
                caption=f"{sample.position:06d}  rank {sample.rank}  SSIM {sample.ssim:.3f}",
            )
        )
    return rows
