"""Samples that cannot be made: each fails alone, until it is plain that the samples are not to blame.

The parts that the verbs of `app.jobs` share; only they call them, and they end the job where these say so.
"""

from sqlalchemy import ColumnElement, exists, select
from sqlalchemy.orm import Session, aliased

from app.leases import count_done
from app.tables import Job, Sample, Step

MANY = 8  # failures after which a job in which more samples fail than not is given up


def fail_one(session: Session, job: Job, sample: Sample, detail: str) -> str | None:
    """Leave a sample out of the dataset, saying why. Returns why the job has failed if this was one too many."""
    if sample.image_sha256 is None and sample.failure is None:
        sample.failure = f"{detail} (pool image {sample.pool_image_name!r})"
        job.failed += 1
        count_done(session, job)
    if job.failed < job.total and (job.failed < MANY or 2 * job.failed <= job.done):
        return None
    return f"{job.failed} of the first {job.done} samples could not be made; sample {sample.position}: {sample.failure}"


def fail_next(session: Session, job: Job, step: Step, why: str) -> str | None:
    """A step was tried in vain. If it makes samples, the one whose turn it was fails, and the step may go on.

    Returns why the job has failed, if it has. Retries take one sample at a time, in order, so it was the turn of the
    first that is not made. The step's kind is not asked: another version may give its steps other names.
    """
    waiting = select(Sample).where(
        Sample.job_id == job.id,
        Sample.position >= step.first,
        Sample.position < step.last,
        Sample.image_sha256.is_(None),
        Sample.failure.is_(None),
        Sample.dropped.is_(None),
        ~_is_newer_steps(step),
    )
    sample = session.scalar(waiting.order_by(Sample.position).limit(1))
    if sample is None:
        return f"step {step.kind} {step.position} was tried {step.attempts} times, {why}; see the workers' logs"
    tries, step.attempts = step.attempts, 0
    return fail_one(session, job, sample, f"tried {tries} times, {why}; see the workers' logs")


def _is_newer_steps(step: Step) -> ColumnElement[bool]:
    """Whether a sample is another step's to make, though its position lies in this one's range.

    This one's range may be of guides. A sample's step is made together with its row, after all earlier steps: so of the
    steps whose range a sample lies in, the newest is the one that makes it.
    """
    newer = aliased(Step)
    return exists().where(
        newer.job_id == step.job_id,
        newer.id > step.id,
        newer.first <= Sample.position,
        newer.last > Sample.position,
    )
