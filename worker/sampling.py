"""Samples made, a batch at a time; what is made and counted is never made again."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sqlalchemy import select

from app import jobs, keys, queries
from app.errors import BlobMissing
from app.records import MadeSample
from app.tables import Guide, Job, Sample
from app.trust import shortcomings
from models import pixels
from models.batches import threads_of_one_core
from models.memory import in_halves
from models.moved_guides import move_guides
from models.quality import quality
from models.synthesis import Recipe, synthesize
from models.tensors import to_images
from models.weights import Networks
from worker.index import encode
from worker.lease import Lease, TurnOver
from worker.networks import batch_size, for_all_cores
from worker.workplace import Workplace

TURN_CPU = 4  # samples made and counted together; more where there are more cores
TURN_CUDA = 128
CPU = torch.device("cpu")
STEP_SECONDS = 60.0  # after which the rest is another step's: one that a GPU's worker planned takes a CPU many minutes

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
Part = tuple[str, str, Callable[[bytes], NDArray[Any]]]  # a blob's key and sha256, and what makes pixels of it


@dataclass(frozen=True)
class Pair:
    """What a sample is made of: (256, 512) each."""

    sample: Sample
    guide: Pixels
    mask: NDArray[np.bool_]
    unlabeled: Pixels
    fit: float | None = None  # of a guide that was moved, see `models.alignment`


@dataclass(frozen=True)
class Judged:
    """A sample that was made: (256, 512) pixels, its figures, and which of the job's thresholds it fails.

    own_mask: (256, 512), the label, where it is not the guide's.
    """

    sample: Sample
    image: Pixels
    own_mask: NDArray[np.bool_] | None
    figures: dict[str, float | None]
    shortcomings: list[str]


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
    turn = for_all_cores(TURN_CPU) if networks.device.type == "cpu" else TURN_CUDA
    if lease.claim.attempt > 1:
        turn = 1  # so that a further failure is one sample's: `app.failures` counts on that, and on their order
    left = [row for row in rows if row.failure is None and row.dropped is None and not _is_made(place, row)]
    started = time.monotonic()
    while left:
        lease.check()
        pairs = _aligned(networks.device, job, _load(place, lease, job, guides, left[:turn]), lease)
        made = _finite(place, lease, job, pairs, _synthesize(networks, job, pairs, lease)) if pairs else []
        left = _settle(place, lease, job, _judge(networks, job, made, lease)) + left[turn:]
        if left and time.monotonic() - started > STEP_SECONDS:
            raise TurnOver
    with place.database.write() as session:
        return jobs.sampled(session, lease.claim)


def _is_made(place: Workplace, row: Sample) -> bool:
    """With all its blobs."""
    digests = [sha256 for sha256 in (row.image_sha256, row.mask_sha256) if sha256 is not None]
    return row.image_sha256 is not None and all(place.blobs.exists(keys.sample(row.job_id, d)) for d in digests)


def _load(place: Workplace, lease: Lease, job: Job, guides: Sequence[Guide], rows: Sequence[Sample]) -> list[Pair]:
    """What the samples are made of; one whose images the store has lost fails.

    Samples are fetched, judged and written by several threads: a GPU makes them faster than one core does that. What
    many of them have in common, as a guide and its mask, is fetched once.
    """
    parts = [_parts(job, guides[row.guide], row) for row in rows]
    with threads_of_one_core("samples") as pool:
        found = {part: pool.submit(_read, place, *part) for part in dict.fromkeys(chain(*parts))}
    pairs = []
    for row, (guide, mask, unlabeled) in zip(rows, parts, strict=True):
        try:
            pairs.append(Pair(row, found[guide].result(), found[mask].result(), found[unlabeled].result()))
        except BlobMissing as error:
            _fail(place, lease, row, str(error))
    return pairs


def _parts(job: Job, guide: Guide, row: Sample) -> tuple[Part, Part, Part]:
    """Guide, mask and unlabeled image of a sample."""
    return (
        (keys.guide(job.id, guide.image_sha256), guide.image_sha256, pixels.image_from_png),
        (keys.guide(job.id, guide.mask_sha256), guide.mask_sha256, pixels.mask_from_png),
        (keys.pool_image(job.home_id, row.pool_image_sha256), row.pool_image_sha256, pixels.image_from_png),
    )


def _read(place: Workplace, key: str, sha256: str, decode: Callable[[bytes], NDArray[Any]]) -> NDArray[Any]:
    return decode(place.blobs.get(key, sha256))


def _aligned(device: torch.device, job: Job, pairs: Sequence[Pair], lease: Lease) -> list[Pair]:
    """With `align` guide and mask of each pair moved to where the unlabeled image has its anatomy, a few at once."""
    if not job.parameters.get("align"):  # jobs of earlier versions have none
        return list(pairs)

    def move(some: Sequence[Pair], _batch_size: int) -> list[Pair]:
        guides, masks, unlabeled = (
            np.stack([getattr(pair, name) for pair in some]) for name in ("guide", "mask", "unlabeled")
        )
        found = zip(some, *move_guides(guides, masks, unlabeled, device), strict=True)
        return [replace(pair, guide=guide, mask=mask, fit=fit) for pair, guide, mask, fit in found]

    at_once = torch.get_num_threads() if device.type == "cpu" else TURN_CUDA
    aligned = []
    for start in range(0, len(pairs), at_once):
        lease.check()
        aligned += in_halves(move, pairs[start : start + at_once], 1)
    return aligned


def _synthesize(networks: Networks, job: Job, pairs: Sequence[Pair], lease: Lease) -> list[Floats]:
    """Appendix A for some samples, each (256, 512) in [-1, 1]; as many at once as memory allows."""

    def make(some: Sequence[Pair], batch_size: int) -> list[Floats]:
        made = synthesize(
            networks,
            guide_images=to_images(np.stack([pair.guide for pair in some]), CPU),
            guide_masks=torch.from_numpy(np.stack([pair.mask for pair in some]))[:, None],
            unlabeled_images=to_images(np.stack([pair.unlabeled for pair in some]), CPU),
            recipe=recipe(job),
            seeds=[pair.sample.seed for pair in some],
            should_stop=lease.over,
            batch_size=batch_size,
        )
        return list(made[:, 0].numpy())

    return in_halves(make, pairs, batch_size(networks.device))


def recipe(job: Job) -> Recipe:
    """The recipe among a job's parameters."""
    named = {field.name for field in fields(Recipe)}
    return Recipe(**{name: value for name, value in job.parameters.items() if name in named})


def _finite(
    place: Workplace, lease: Lease, job: Job, pairs: Sequence[Pair], images: Sequence[Floats]
) -> list[tuple[Pair, Pixels]]:
    """The samples that are pictures; one that is not finite fails."""
    made = []
    for pair, image in zip(pairs, images, strict=True):
        if np.isfinite(image).all():
            made.append((pair, pixels.from_unit(image)))
        else:
            weights = job.parameters["model"]
            _fail(place, lease, pair.sample, f"its pixels are not finite numbers; check weights {weights!r}")
    return made


def _judge(networks: Networks, job: Job, made: Sequence[tuple[Pair, Pixels]], lease: Lease) -> list[Judged]:
    """What `models.quality` says of each sample, and how far it is from the nearest training image."""
    images = [image for _, image in made]
    distances: Sequence[float | None] = [None] * len(images)
    if images and networks.training_latents is not None:
        both_ways = [*images, *(np.ascontiguousarray(image[:, ::-1]) for image in images)]
        latents = torch.from_numpy(encode(networks, both_ways, lease.check))
        distances = networks.training_latents.distances(latents[: len(images)], latents[len(images) :])

    def judge(one: tuple[tuple[Pair, Pixels], float | None]) -> Judged:
        lease.check()
        (pair, image), distance = one
        figures = quality(image, pair.guide, pair.mask, pair.unlabeled, job.parameters["dilation"])
        figures |= {"training_distance": None if distance is None else round(distance, 4)}
        if job.parameters.get("align"):
            figures["alignment"] = pair.fit
        own_mask = None if pair.fit is None else pair.mask
        return Judged(pair.sample, image, own_mask, figures, shortcomings(job.parameters, figures))

    with threads_of_one_core("samples") as pool:
        return list(pool.map(judge, zip(made, distances, strict=True)))


def _settle(place: Workplace, lease: Lease, job: Job, judged: Sequence[Judged]) -> list[Sample]:
    """Keep what reaches the job's thresholds, drop the rest or -> the samples to make anew from other pool images.

    Blobs first, then the rows that name them: a row never names a blob that is not there.
    """
    with threads_of_one_core("samples") as pool:
        stored = list(pool.map(lambda one: None if one.shortcomings else _store(place, job, one), judged))
    again = []
    with place.database.write() as session:
        if made := [one for one in stored if one is not None]:
            jobs.finish_samples(session, lease.claim, made)
        for failed in (one for one in judged if one.shortcomings):
            position = failed.sample.position
            if (redrawn := jobs.redraw_sample(session, lease.claim, position=position)) is not None:
                again.append(redrawn)
            else:
                detail = "; ".join(failed.shortcomings)
                jobs.drop_sample(session, lease.claim, position=position, detail=detail, quality=failed.figures)
    place.figures.samples_made(len(judged))
    return again


def _store(place: Workplace, job: Job, one: Judged) -> MadeSample:
    """Write a sample's blobs."""
    pngs = {"image_sha256": pixels.image_png(one.image)}
    if one.own_mask is not None:
        pngs["mask_sha256"] = pixels.mask_png(one.own_mask)
    sha256s = {column: pixels.sha256(png) for column, png in pngs.items()}
    for column, png in pngs.items():
        place.blobs.put(keys.sample(job.id, sha256s[column]), png)
    return MadeSample(one.sample.position, quality=one.figures, **sha256s)


def _fail(place: Workplace, lease: Lease, row: Sample, detail: str) -> None:
    with place.database.write() as session:
        jobs.fail_sample(session, lease.claim, position=row.position, detail=detail)
