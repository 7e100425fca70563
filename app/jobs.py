"""The life of a job, as verbs; nobody else assigns a status.

    submit -> queued -> claim -> running -> ... -> succeed | fail
                     cancel -> cancelled     cancel -> cancelling -> cancelled

A job is worked off in steps. A worker *claims* a step, which leases it, and every verb that follows takes
that claim: it locks the job's row, raises LeaseLost if the step is no longer the worker's, and changes all or
nothing. Each verb takes a session of `Database.write()`; wake-ups are sent after its commit.

    synthesis:    index -> plan, plan, ... -> sample, sample, ...  -> package -> succeeded
    pool_import:  [unpack ->] import, import, ...                  -> succeeded (its own verbs: `app.imports`)
    evaluation:   arm, arm, ... -> report                          -> succeeded (its own verbs: `app.evaluations`)
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import delete, exists, func, select, update
from sqlalchemy.orm import Session

from app import pools, queries
from app.admission import new_job
from app.database import clock
from app.errors import JobEnded, JobInUse, JobNotFound, JobRunning, PoolTooSmall
from app.failures import fail_next, fail_one
from app.leases import (
    CLAIMABLE,
    FIRST_STAGE,
    LAST_STAGE,
    PLAN,
    WORKABLE,
    add_step,
    add_steps,
    at,
    count_done,
    fairest,
    hold,
    is_held,
    kind_of,
    latest_turn,
    leave,
    let_go,
    lock,
    lock_free_step,
    spare,
)
from app.records import Claim, CroppedGuide, MadeSample, NewGuide, NewLatent, NewSample
from app.tables import ACTIVE, Guide, Job, PoolImage, Sample, Step

PLAN_PAIRS = 20_000  # guide-and-pool-image pairs a plan step compares: about 20 s
MAX_PLAN_GUIDES = 32
OUTAGE_PAUSE_SECONDS = 5.0
LONGEST_PAUSE = 8  # as a power of 2 s; a later time than `leases.LONGEST_LEASE` counts as no lease at all


# --- Submitting, by `admission.admit`: one transaction, after which the job is durable ---


def submit_synthesis(
    session: Session, job_id: str, *, guides: Sequence[NewGuide], parameters: Mapping[str, Any]
) -> Job:
    """Take in a synthesis whose guides' blobs are written; `parameters` are complete.

    Raises PoolNotFound, PoolTooSmall.
    """
    pool = parameters["pool"]
    home = pools.lock(session, pool, shared=True)  # other jobs may come in
    count, high_water = session.execute(
        select(func.count(), func.coalesce(func.max(PoolImage.id), 0)).where(PoolImage.pool_id == home.id)
    ).one()
    top_k = int(parameters["top_k"])
    if count < top_k:
        remedy = f"choose top_k between 1 and {count}" if count else f"import some by POST /pools/{pool}/images"
        raise PoolTooSmall(f"pool {pool!r} has {count} images, top_k is {top_k}; {remedy}")
    job = new_job(session, job_id, "synthesis", parameters, len(guides) * top_k, home)
    job.pool_high_water = high_water
    session.add_all(Guide(job_id=job_id, position=n, **asdict(guide)) for n, guide in enumerate(guides))
    add_step(session, job_id, kind_of("index", parameters), 0, len(guides))
    return job


# --- Claiming, holding, giving back ---


def claim(
    session: Session,
    *,
    worker: str,
    now: datetime,
    lease_seconds: float,
    max_attempts: int,
    kinds: Collection[str] | None = None,
) -> Claim | None:
    """Lease the fairest claimable step of any job, see `leases.fairest`.

    kinds: of steps that the worker knows how to do, None for all; others are left to workers of another version.
    A step leased `max_attempts` times without progress fails its sample or its job. None: nothing to do, or a job
    was failed so, and the next wake-up goes on.
    """
    while (found := fairest(session, now, kinds)) is not None:
        job_id, step_id = found
        if (free := lock_free_step(session, job_id, step_id, now)) is None:
            continue  # another worker was faster
        job, step = free
        if step.attempts >= max_attempts and (words := fail_next(session, job, step, "each time its worker died")):
            end_job(session, job, "failed", words)
            return None  # its row is locked until the commit, see `leases.lock_free_step`
        step.status, step.lease, step.worker = "leased", uuid4().hex, worker
        step.leased_until, step.attempts = now + timedelta(seconds=lease_seconds), step.attempts + 1
        job.turn = latest_turn(session) + 1
        if job.status == "queued":
            job.status, job.started_at = "running", clock(session)  # `now` was read before the job was found
            job.stage = FIRST_STAGE.get(job.kind)
            job.version += 1
        session.flush()
        return Claim(step.id, step.lease, job_id, step.kind, step.first, step.last, step.attempts)
    return None


def renew(session: Session, claim: Claim, *, now: datetime, lease_seconds: float) -> None:
    """Keep a step for longer. Raises LeaseLost, also when the job is being cancelled."""
    _, step = hold(session, claim)
    step.leased_until = now + timedelta(seconds=lease_seconds)


def hand_back(session: Session, claim: Claim) -> None:
    """Leave an unfinished step that made progress to whoever comes next, so that no step runs for minutes."""
    _, step = hold(session, claim)
    let_go(step, "ready")
    step.attempts = 0


def retry_later(session: Session, claim: Claim, *, now: datetime, max_attempts: int, detail: str) -> None:
    """A step failed in a way that may pass: leave it for a while, longer each time; at last fail its sample or job."""
    job, step = hold(session, claim)
    pause = 2.0 ** min(step.attempts - 1, LONGEST_PAUSE)
    if step.attempts >= max_attempts and (words := fail_next(session, job, step, f"the last time: {detail}")):
        end_job(session, job, "failed", words)
    else:
        leave(step, now + timedelta(seconds=pause))


def wait_out(session: Session, claim: Claim, *, now: datetime) -> None:
    """A store is full or away, which is no fault of the step: leave it for a while, however often that is."""
    _, step = hold(session, claim)
    spare(step)
    leave(step, now + timedelta(seconds=OUTAGE_PAUSE_SECONDS))


def stop(session: Session, claim: Claim, *, now: datetime) -> None:
    """The worker has let go of a step: it ends, or the job is being cancelled, which the last to let go completes."""
    job = lock(session, claim.job_id)
    if job is None:
        return
    step = session.get(Step, claim.step_id, populate_existing=True)
    if step is not None and step.lease == claim.lease:
        let_go(step, "ready")
        spare(step)
    _finish_cancelling(session, job, now)


def release(session: Session, worker: str) -> list[str]:
    """A worker starts: what an earlier one of its name still leases is free again. Returns the jobs to wake.

    Safe even if that one lives: its leases are void, so it can change nothing any more.
    """
    freed = session.execute(
        update(Step)
        .where(Step.status == "leased", Step.worker == worker)
        .values(status="ready", lease=None, worker=None, leased_until=None)
        .returning(Step.job_id)
    )
    return list(freed.scalars())


# --- Planning, sampling, packaging ---


def indexed(session: Session, claim: Claim, latents: Sequence[NewLatent]) -> None:
    """Latents that the pool lacked for the job's model were made."""
    job, step = hold(session, claim)
    pools.keep_latents(session, job.home_id, latents)
    step.attempts = 0


def index_done(session: Session, claim: Claim, model_sha256: str) -> int:
    """Every pool image has its latent: make the plan steps, for these weights. Returns their number."""
    job, step = hold(session, claim)
    job.parameters = {**job.parameters, "model_sha256": model_sha256}
    images = session.scalar(
        select(func.count()).where(PoolImage.pool_id == job.pool_id, PoolImage.id <= job.pool_high_water)
    )
    guides = max(1, min(MAX_PLAN_GUIDES, PLAN_PAIRS // (images or 1)))
    made = add_steps(session, job.id, PLAN, 0, step.last, guides)
    step_done(session, job, step)
    return made


def guides_cropped(session: Session, claim: Claim, cropped: Sequence[CroppedGuide]) -> None:
    """Guides that came at their own size are cropped and at 512x256 now; done twice it is the same."""
    job, _ = hold(session, claim)
    for one in cropped:
        guide = session.get_one(Guide, (job.id, one.position))
        guide.image_sha256, guide.mask_sha256, guide.crop = one.image_sha256, one.mask_sha256, one.crop


def plan_done(session: Session, claim: Claim, samples: Sequence[NewSample], chunk: int) -> int:
    """The guides' pool images are chosen: make the samples' rows, `chunk` to a step. Returns the steps."""
    job, step = hold(session, claim)
    session.add_all(Sample(job_id=job.id, image_sha256=None, quality=None, **asdict(sample)) for sample in samples)
    kind = kind_of("sample", job.parameters)
    made = add_steps(session, job.id, kind, samples[0].position, samples[-1].position + 1, chunk)
    job.stage = "sampling"
    step_done(session, job, step)
    return made


def finish_samples(session: Session, claim: Claim, made: Sequence[MadeSample]) -> None:
    """Count samples that were made; done twice they count once.

    In few statements, however many they are: other workers wait for the job's row.
    """
    job, step = hold(session, claim)
    these = Sample.position.in_([one.position for one in made])
    rows = {row.position: row for row in session.scalars(select(Sample).where(Sample.job_id == job.id, these))}
    if new := sum(rows[one.position].image_sha256 is None for one in made):
        count_done(session, job, new)
    for one in made:
        row = rows[one.position]
        row.image_sha256, row.mask_sha256, row.quality = one.image_sha256, one.mask_sha256, one.quality
    step.attempts = 0


def fail_sample(session: Session, claim: Claim, *, position: int, detail: str) -> None:
    """A sample cannot be made: the dataset will lack it, and the job says so. If most fail, the job fails."""
    job, step = hold(session, claim)
    if words := fail_one(session, job, session.get_one(Sample, (job.id, position)), detail):
        end_job(session, job, "failed", words)
    else:
        step.attempts = 0


def redraw_sample(session: Session, claim: Claim, *, position: int) -> Sample | None:
    """The next of a failed sample's spare pool images takes its place; None where there is none left.

    The spares are chosen when the job is planned, for each sample its own: so who makes which sample when does not
    change the dataset.
    """
    job, step = hold(session, claim)
    sample = session.get_one(Sample, (job.id, position))
    if not sample.spares:
        return None
    for name, value in sample.spares[0].items():
        setattr(sample, name, value)
    sample.spares = sample.spares[1:]
    sample.redraws += 1
    job.redrawn += 1
    job.version += 1
    step.attempts = 0
    return sample


def drop_sample(session: Session, claim: Claim, *, position: int, detail: str, quality: Mapping[str, Any]) -> None:
    """A sample is left out of the dataset, `detail` says why: count it as done. Done twice it counts once."""
    job, step = hold(session, claim)
    sample = session.get_one(Sample, (job.id, position))
    if sample.dropped is None:
        job.dropped += 1
        count_done(session, job)
    sample.dropped, sample.quality = detail, dict(quality)
    step.attempts = 0


def sampled(session: Session, claim: Claim) -> int:
    """A sample step's rows are all made; after the last one comes packaging. Returns how many steps that makes."""
    job, step = hold(session, claim)
    return step_done(session, job, step)


def packaged(session: Session, claim: Claim, *, sha256: str, size: int) -> None:
    """The dataset lies in blob `keys.dataset(job)`: the job has succeeded."""
    job, _ = hold(session, claim)
    job.dataset_sha256, job.dataset_bytes = sha256, size
    end_job(session, job, "succeeded")


# --- Ending ---


def fail(session: Session, claim: Claim, detail: str, status: int = 500) -> None:
    """A step cannot succeed: end its job, saying why. status: 4xx where the client is at fault."""
    job, _ = hold(session, claim)
    end_job(session, job, "failed", detail, status)


def cancel(session: Session, job_id: str, *, now: datetime) -> tuple[Job, bool]:
    """Cancel a job: at once where no worker is at it, else as soon as they notice. -> (job, whether that was new).

    Raises JobNotFound; JobEnded if it succeeded or failed before.
    """
    job = _lock_known(session, job_id)
    if job.status in ("succeeded", "failed"):
        raise JobEnded(f"job {job_id} has {job.status}; only a job that has not ended can be cancelled")
    if job.status not in WORKABLE:
        return job, False
    job.status = "cancelling"
    job.version += 1
    _finish_cancelling(session, job, now)
    return job, True


def delete_job(session: Session, job_id: str) -> None:
    """Delete an ended job and its rows; its blobs, `keys.of_job`, are to be deleted after the commit.

    Raises JobNotFound; JobRunning while it has not ended; JobInUse while an evaluation trains on its samples.
    """
    job = _lock_known(session, job_id)
    if job.status in ACTIVE:
        first = "wait" if job.status == "cancelling" else "cancel it and wait"
        raise JobRunning(f"job {job_id} is {job.status}; {first} for its end before deleting it")
    if user := queries.syntheses_in_use(session).get(job_id):
        remedy = "wait for the evaluation's end or cancel it first"
        raise JobInUse(f"evaluation {user} trains on the samples of job {job_id}; {remedy}")
    session.execute(delete(Job).where(Job.id == job_id))


def sweep(session: Session, *, now: datetime, limit: int = 64) -> list[str]:
    """Complete cancellations whose workers died; return the job id of each claimable step, at most `limit`.

    For `broker.top_up`, which makes up for wake-ups that were lost with a worker or the broker.
    """
    cancelling = select(Job.id).where(Job.status == "cancelling").order_by(Job.id)  # one order: no deadlock
    for job_id in session.scalars(cancelling).all():
        job = lock(session, job_id)
        if job is not None:
            _finish_cancelling(session, job, now)
    ready = select(Step.job_id).join(Job, Job.id == Step.job_id).where(Job.status.in_(WORKABLE), CLAIMABLE)
    return list(session.scalars(ready.limit(limit), at(now)))


# --- The parts that the verbs share ---


def step_done(session: Session, job: Job, step: Step) -> int:
    """Mark a step done; where it was the job's last, the next stage begins or the job has succeeded.

    Returns how many steps that makes.
    """
    let_go(step, "done")
    job.version += 1
    session.flush()
    if session.scalar(select(exists().where(Step.job_id == job.id, Step.status != "done"))):
        return 0
    if job.kind == "pool_import":
        end_job(session, job, "succeeded")
        return 0
    job.stage, kind = LAST_STAGE[job.kind]
    add_step(session, job.id, kind_of(kind, job.parameters), 0, job.total)
    return 1


def end_job(session: Session, job: Job, status: str, why: str | None = None, http_status: int = 500) -> None:
    """A job that has ended has no stage and no steps. why: it failed, in words that become an RFC 9457 problem."""
    if why is not None:
        kind = "urn:pansynth:problem:job-failed"
        job.error = {"type": kind, "title": "The job failed", "status": http_status, "detail": why}
    job.status, job.stage, job.finished_at = status, None, clock(session)
    job.version += 1
    session.flush()
    session.execute(delete(Step).where(Step.job_id == job.id))


def _lock_known(session: Session, job_id: str) -> Job:
    job = lock(session, job_id)
    if job is None:
        raise JobNotFound(job_id)
    return job


def _finish_cancelling(session: Session, job: Job, now: datetime) -> None:
    if job.status != "cancelling":
        return
    session.flush()
    if not is_held(session, job.id, now):
        end_job(session, job, "cancelled")
