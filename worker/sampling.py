"""Samples made, a batch at a time; what is made and counted is never made again."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from sqlalchemy import select

from app import jobs, keys, queries
from app.errors import LastingError
from app.tables import Guide, Job, Sample
from models import pixels
from models.quality import quality
from models.synthesis import Recipe, synthesize
from models.weights import Networks
from worker.lease import Lease
from worker.networks import batch_size
from worker.workplace import Workplace

TURN_CPU = 4  # samples made and counted together
TURN_CUDA = 64

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Pair:
    """What a sample is made of: (256, 512) each."""

    sample: Sample
    guide: Pixels
    mask: NDArray[np.bool_]
    unlabeled: Pixels


def make_samples(place: Workplace, lease: Lease) -> int:
    """The step `sample`: the rows first <= position < last that are not made yet."""
    with place.database.read() as session:
        job = queries.find_job(session, lease.claim.job_id)
        guides = queries.guides(session, job.id)
        rows = session.scalars(
            select(Sample)
            .where(
                Sample.job_id == job.id,
                Sample.position >= lease.claim.first,
                Sample.position < lease.claim.last,
            )
            .order_by(Sample.position)
        ).all()
    networks = place.networks.get(job.parameters["model"], job.parameters["model_sha256"])
    turn = TURN_CPU if networks.device.type == "cpu" else TURN_CUDA
    left = [row for row in rows if not _is_made(place, row)]
    for start in range(0, len(left), turn):
        lease.check()
        pairs = [_load(place, job, guides[row.guide], row) for row in left[start : start + turn]]
        images = _synthesize(networks, job, pairs, lease)
        _keep(place, lease, job, pairs, images)
    with place.database.write() as session:
        return jobs.sampled(session, lease.claim)


def _is_made(place: Workplace, row: Sample) -> bool:
    return row.image_sha256 is not None and place.blobs.exists(keys.sample(row.job_id, row.image_sha256))


def _load(place: Workplace, job: Job, guide: Guide, row: Sample) -> Pair:
    def image(key: str) -> Pixels:
        return pixels.image_from_png(place.blobs.get(key))

    return Pair(
        sample=row,
        guide=image(keys.guide(job.id, guide.image_sha256)),
        mask=pixels.mask_from_png(place.blobs.get(keys.guide(job.id, guide.mask_sha256))),
        unlabeled=image(keys.pool_image(job.pool_id or "", row.pool_image_sha256)),
    )


def _synthesize(networks: Networks, job: Job, pairs: Sequence[Pair], lease: Lease) -> list[Pixels]:
    """Appendix A for some samples. Raises LastingError for pixels that are no numbers."""
    made = synthesize(
        networks,
        guide_images=_units([pair.guide for pair in pairs]),
        guide_masks=torch.from_numpy(np.stack([pair.mask for pair in pairs]))[:, None],
        unlabeled_images=_units([pair.unlabeled for pair in pairs]),
        recipe=recipe(job),
        seeds=[pair.sample.seed for pair in pairs],
        should_stop=lease.lost,
        batch_size=batch_size(networks.device),
    )
    images = made[:, 0].numpy()
    for pair, image in zip(pairs, images, strict=True):
        if not np.isfinite(image).all():
            raise LastingError(
                f"sample {pair.sample.position} (pool image {pair.sample.pool_image_name!r}) has pixels that "
                f"are not finite; check weights {networks.name!r}"
            )
    return [pixels.from_unit(image) for image in images]


def recipe(job: Job) -> Recipe:
    """The recipe among a job's parameters."""
    return Recipe(**{field.name: job.parameters[field.name] for field in fields(Recipe)})


def _units(images: Sequence[Pixels]) -> torch.Tensor:
    return torch.from_numpy(np.stack([pixels.to_unit(image) for image in images]))[:, None]


def _keep(place: Workplace, lease: Lease, job: Job, pairs: Sequence[Pair], images: Sequence[Pixels]) -> None:
    """Blobs first, then the rows that name them: a row never names a blob that is not there."""
    made = []
    for pair, image in zip(pairs, images, strict=True):
        png = pixels.image_png(image)
        sha256 = pixels.sha256(png)
        place.blobs.put(keys.sample(pair.sample.job_id, sha256), png)
        figures = quality(image, pair.guide, pair.mask, pair.unlabeled, job.parameters["dilation"])
        made.append((pair.sample.position, sha256, figures))
    with place.database.write() as session:
        for position, sha256, figures in made:
            jobs.finish_sample(session, lease.claim, position=position, image_sha256=sha256, quality=figures)
    place.figures.samples_made(len(made))
