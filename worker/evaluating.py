"""Evaluations: one segmenter per arm and seed, then the report over all of them."""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app import broker, evaluations, keys, queries
from app.errors import BlobMissing, LastingError, UnusableInput
from app.labels import label
from app.tables import EvaluationImage, Guide, Job, Sample
from models import pixels
from models.duplicates import Known, known, leaks
from models.evaluation import ArmResult, build_report, run_arm
from models.report import report_csv, report_markdown, report_png
from models.segmenter import Labeled
from models.training.segmenter import SegmenterPlan, SegmenterTraining
from worker.lease import Lease, TurnOver, WorkerEnds
from worker.reading import read_ahead
from worker.workplace import Workplace

TURN_SECONDS = 60.0  # after which another step may have its turn
TURN_PER_READING = 4.0  # or this times what reading the images took, if longer: the next turn reads them again
# What fails again may do so because of the checkpoint: a power cut left it short, or other libraries cannot read it.
CHECKPOINT_ATTEMPTS = 2
LONGEST_TURN_SECONDS = broker.TASK_SECONDS / 2  # the rest is for reading and scoring


def train_arm(place: Workplace, lease: Lease) -> int:
    """The step `arm`: train with one seed on what one arm has, a turn at a time, and score the test images."""
    started = time.monotonic()
    with place.database.read() as session:
        job = queries.find_job(session, lease.claim.job_id)
        guides, tests = queries.guides(session, job.id), queries.test_images(session, job.id)
    number, seed = divmod(lease.claim.first, job.parameters["seeds"])
    arm = evaluations.Arm(**job.parameters["arms"][number])
    synthesis = None if arm.synthesis is None else _read_synthesis(place, arm.synthesis)
    sources = {}  # the real images first
    if arm.kind != evaluations.SYNTHETIC:
        sources["real"] = _load(place, lease, job.id, guides)
    if synthesis is not None:
        sources["synthetic"] = _load_samples(place, lease, synthesis)
    test = replace(_load(place, lease, job.id, tests), groups=tuple(row.name for row in tests))
    checkpoint = keys.checkpoint(job.id, lease.claim.first)
    goes_on = lease.claim.attempt <= CHECKPOINT_ATTEMPTS and place.blobs.exists(checkpoint)
    saved = b"".join(place.blobs.stream(checkpoint)) if goes_on else None  # up to 1 GB
    if saved is None:  # a later turn has the same images
        made_of = [] if synthesis is None else _made_of(place, lease, synthesis)
        _check_leaks(lease, test, sources, made_of)
    lease.check()
    began = time.monotonic()
    turn_seconds = min(max(TURN_SECONDS, TURN_PER_READING * (began - started)), LONGEST_TURN_SECONDS)

    def between_steps(training: SegmenterTraining) -> None:
        try:
            lease.check()
            if time.monotonic() - began > turn_seconds and not training.done:
                raise TurnOver
        except (TurnOver, WorkerEnds):
            place.blobs.put(checkpoint, training.save())
            raise

    try:
        plan, device = _plan(job, seed), place.networks.device
        result = run_arm(arm.name, sources, plan, test, device, saved=saved, between_steps=between_steps)
    except FloatingPointError as error:
        raise LastingError(f"arm {arm.name!r} cannot be trained: {error}") from error
    place.blobs.put(keys.arm(job.id, lease.claim.first), json.dumps(asdict(result)).encode())
    with place.database.write() as session:
        made = evaluations.arm_done(session, lease.claim)
    place.blobs.delete(checkpoint)
    return made


def write_report(place: Workplace, lease: Lease) -> int:
    """The step `report`: every arm is done; the report in all its forms."""
    with place.database.read() as session:
        job = queries.find_job(session, lease.claim.job_id)
    results = []
    for position in range(job.total):
        lease.check()
        results.append(ArmResult(**json.loads(place.blobs.get(keys.arm(job.id, position)))))
    report = build_report(results, {"parameters": job.parameters}, lease.check)
    forms = {
        "json": (json.dumps(report, indent=2) + "\n").encode(),
        "csv": report_csv(results).encode(),
        "md": report_markdown(report).encode(),
        "png": report_png(report),
    }
    lease.check()
    for form, data in forms.items():
        place.blobs.put(keys.report(job.id, form), data)
    with place.database.write() as session:
        evaluations.reported(session, lease.claim, {form: pixels.sha256(data) for form, data in forms.items()})
    return 0


def _plan(job: Job, seed: int) -> SegmenterPlan:
    names = ("backbone", "steps", "batch", "equal_weights")
    return SegmenterPlan(**{name: job.parameters[name] for name in names}, seed=seed)


class _Synthesis(NamedTuple):
    """A job whose samples an arm trains on: what they are made of, and they."""

    job: Job
    guides: Sequence[Guide]
    samples: Sequence[Sample]


def _read_synthesis(place: Workplace, job_id: str) -> _Synthesis:
    """Raises JobNotFound: an API of an earlier version lets it be deleted."""
    with place.database.read() as session:
        job = queries.find_job(session, job_id)
        return _Synthesis(job, queries.guides(session, job_id), session.scalars(queries.made(job_id)).all())


def _check_leaks(lease: Lease, test: Labeled, sources: Mapping[str, Labeled], made_of: Sequence[Known]) -> None:
    """No test image may be nearly one that is trained on; the door has compared sha256 alone. Raises UnusableInput."""
    used: list[Known] = []
    for source, labeled in sources.items():
        for number, image in enumerate(labeled.images):
            lease.check()  # of 100,000 samples that takes minutes
            used.append(known(f"{source} image {number}", image))
    tested = [known(name, image) for name, image in zip(test.groups, test.images, strict=True)]
    if found := leaks(tested, [*used, *made_of]):
        raise UnusableInput(
            f"test image {found[0]} was used for training ({len(found)} such); test on images used nowhere else"
        )


def _made_of(place: Workplace, lease: Lease, synthesis: _Synthesis) -> list[Known]:
    """The guides and pool images that samples are made of; without the latter once their pool is gone.

    The samples alone do not show them: of a guide they hold no more than its anatomy, and of a pool image only half
    where the anatomy is as large as teeth or a jaw.
    """
    job, guides, samples = synthesis
    parts = {(keys.guide(job.id, guide.image_sha256), guide.image_sha256): f"guide {guide.name!r}" for guide in guides}
    if job.pool_id is not None:
        for row in samples:
            key = keys.pool_image(job.pool_id, row.pool_image_sha256)
            parts[key, row.pool_image_sha256] = f"pool image {row.pool_image_name!r}"
    found = []
    try:
        for name, png in read_ahead(place.blobs, ((name, *blob) for blob, name in parts.items())):
            lease.check()
            found.append(known(name, pixels.image_from_png(png)))
    except BlobMissing:
        with place.database.read() as session:
            if queries.find_job(session, job.id).pool_id is not None:  # else it was deleted a moment ago
                raise
    return found


def _load(place: Workplace, lease: Lease, job_id: str, rows: Sequence[Guide | EvaluationImage]) -> Labeled:
    images = [(keys.guide(job_id, row.image_sha256), row.image_sha256) for row in rows]
    masks = [(keys.guide(job_id, row.mask_sha256), row.mask_sha256) for row in rows]
    return _labeled(place, lease, images, masks, [row.image_sha256 for row in rows])


def _load_samples(place: Workplace, lease: Lease, synthesis: _Synthesis) -> Labeled:
    """The dataset, each sample under its guide's name: they share its anatomy."""
    job, guides, samples = synthesis
    digests = [sample.image_sha256 or "" for sample in samples]
    images = [(keys.sample(job.id, sha256), sha256) for sha256 in digests]
    masks = [label(sample, guides[sample.guide]) for sample in samples]
    return _labeled(place, lease, images, masks, [guides[sample.guide].image_sha256 for sample in samples])


def _labeled(
    place: Workplace,
    lease: Lease,
    images: Sequence[tuple[str, str]],
    masks: Sequence[tuple[str, str]],
    groups: Sequence[str],
) -> Labeled:
    """Blobs by (key, sha256), read once each."""
    shape = (len(images), pixels.HEIGHT, pixels.WIDTH)
    labeled = Labeled(np.empty(shape, np.uint8), np.empty(shape, np.bool_), tuple(groups))
    _fill(place, lease, labeled.images, images, pixels.image_from_png)
    _fill(place, lease, labeled.masks, masks, pixels.mask_from_png)
    return labeled


def _fill(
    place: Workplace,
    lease: Lease,
    rows: NDArray[Any],
    stored: Sequence[tuple[str, str]],
    decode: Callable[[bytes], NDArray[Any]],
) -> None:
    """Row by row what the blobs hold; several rows may be of one blob."""
    places: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row, blob in enumerate(stored):
        places[blob].append(row)
    for same, png in read_ahead(place.blobs, ((same, *blob) for blob, same in places.items())):
        lease.check()
        rows[same] = decode(png)
