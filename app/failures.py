"""Samples that cannot be made: each fails alone, until it is plain that the samples are not to blame.

The parts that the verbs of `app.jobs` share; only they call them, and they end the job where these say so.
"""

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.tables import Job, Sample, Step

MANY = 8  # failures after which a job in which more samples fail than not is given up


def fail_one(job: Job, sample: Sample, detail: str) -> str | None:
    """Leave a sample out of the dataset, saying why. Returns why the job has failed if this was one too many."""
    if sample.image_sha256 is None and sample.failure is None:
        sample.failure = f"{detail} (pool image {sample.pool_image_name!r})"
        job.done, job.failed, job.version = job.done + 1, job.failed + 1, job.version + 1
    if job.failed < job.total and (job.failed < MANY or 2 * job.failed <= job.done):
        return None
    return f"{job.failed} of the first {job.done} samples could not be made; sample {sample.position}: {sample.failure}"


def fail_next(session: Session, job: Job, step: Step, why: str) -> str | None:
    """A step was tried in vain. Of a sample step the sample fails whose turn it was, and the step may go on.

    Returns why the job has failed, if it has. Retries take one sample at a time, in order, so it is the first
    that is not made.
    """
    words = f"step {step.kind} {step.position} was tried {step.attempts} times, {why}; see the workers' logs"
    if step.kind != "sample":
        return words
    waiting = select(Sample).where(
        Sample.job_id == job.id,
        Sample.position >= step.first,
        Sample.position < step.last,
        Sample.image_sha256.is_(None),
        Sample.failure.is_(None),
        Sample.dropped.is_(None),
    )
    sample = session.scalar(waiting.order_by(Sample.position).limit(1))
    if sample is None:
        return words
    tries, step.attempts = step.attempts, 0
    return fail_one(job, sample, f"tried {tries} times, {why}")
