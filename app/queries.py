"""What clients and workers ask about jobs; nothing here changes a row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import Select, func, select, tuple_
from sqlalchemy.orm import Session, selectinload

from app.access.tenants import tenant_of, visible
from app.errors import BadCursor, JobNotFound, SampleNotFound
from app.leases import WORKABLE
from app.tables import (
    ACTIVE,
    REJECTED,
    EvaluationImage,
    Guide,
    IdempotencyKey,
    Job,
    Report,
    Sample,
    Step,
    Upload,
    Worker,
)

Row = TypeVar("Row")
ALIVE_SECONDS = 20.0  # a worker gives a sign of life every 3 s
REASONS = 1000  # files refused or samples failed, of a job, that are told one by one
MAX_POSITION = 2**31 - 1  # PostgreSQL compares the column with nothing larger


def find_job(session: Session, job_id: str) -> Job:
    """Raises JobNotFound."""
    query = select(Job).where(Job.id == job_id, visible(session, Job))
    job = session.scalar(query, execution_options={"populate_existing": True})
    if job is None:
        raise JobNotFound(job_id)
    return job


def version_of(session: Session, job_id: str) -> int:
    """A job's version without the rest, which may name a thousand files. Raises JobNotFound."""
    version = session.scalar(select(Job.version).where(Job.id == job_id, visible(session, Job)))
    if version is None:
        raise JobNotFound(job_id)
    return version


def is_repeated(session: Session, idempotency_key: str | None) -> bool:
    """Whether an earlier request used the key."""
    if idempotency_key is None:
        return False
    return session.get(IdempotencyKey, (tenant_of(session), idempotency_key)) is not None


def list_jobs(
    session: Session,
    *,
    kind: str = "",
    status: str = "",
    limit: int = 100,
    cursor: str | None = None,
) -> tuple[Sequence[Job], str | None]:
    """Jobs, newest first -> (at most `limit` jobs, cursor of the next page or None). Raises BadCursor."""
    newest_first = (Job.created_at.desc(), Job.id.desc())
    query = select(Job).where(visible(session, Job)).order_by(*newest_first)
    query = query.options(selectinload(Job.delivery))  # all in one query, where `session.get` finds them
    if kind:
        query = query.where(Job.kind == kind)
    if status:
        query = query.where(Job.status == status)
    if cursor:
        query = query.where(tuple_(Job.created_at, Job.id) < tuple_(*_job_place(cursor)))
    return page(session, query, limit, lambda job: f"{(job.created_at - EPOCH) // timedelta(microseconds=1)}-{job.id}")


def list_samples(
    session: Session, job_id: str, *, limit: int = 100, cursor: str | None = None
) -> tuple[Sequence[Sample], str | None]:
    """A job's samples that are made, by position -> (samples, next cursor or None). Raises JobNotFound, BadCursor."""
    find_job(session, job_id)
    query = made(job_id)
    if cursor:
        query = query.where(Sample.position > min(number_of(cursor), MAX_POSITION))
    return page(session, query, limit, lambda sample: sample.position)


def test_images(session: Session, job_id: str) -> Sequence[EvaluationImage]:
    """What an evaluation tests on, by position."""
    query = select(EvaluationImage).where(EvaluationImage.job_id == job_id).order_by(EvaluationImage.position)
    return session.scalars(query).all()


def made(job_id: str) -> Select[Sample]:
    """A job's samples that are made, by position."""
    return select(Sample).where(Sample.job_id == job_id, Sample.image_sha256.is_not(None)).order_by(Sample.position)


def dropped(job_id: str) -> Select[int, int, str, str | None]:
    """A job's samples that failed its thresholds, by position: what is told of them, for there may be a million."""
    told = select(Sample.position, Sample.guide, Sample.pool_image_name, Sample.dropped)
    return told.where(Sample.job_id == job_id, Sample.dropped.is_not(None)).order_by(Sample.position)


def report_sha256(session: Session, job_id: str, form: str) -> str | None:
    """Of an evaluation's report in that format; None while it is not written."""
    found = session.get(Report, (job_id, form))
    return None if found is None else found.sha256


def find_sample(session: Session, job: Job, position: int) -> Sample:
    """Raises SampleNotFound."""
    sample = session.get(Sample, (job.id, position)) if 0 <= position <= MAX_POSITION else None
    if sample is None:
        raise SampleNotFound(f"job {job.id} has no sample {position}; GET /jobs/{job.id}/samples lists them")
    return sample


def guides(session: Session, job_id: str) -> Sequence[Guide]:
    """A job's guides by position."""
    return session.scalars(select(Guide).where(Guide.job_id == job_id).order_by(Guide.position)).all()


@dataclass(frozen=True)
class ImportOutcome:
    """What has become of a pool import's files so far."""

    stored: int
    duplicates: int
    rejected: list[dict[str, str]]  # {"name", "detail"} of the first


def import_outcome(session: Session, job: Job, reasons: int = REASONS) -> ImportOutcome:
    """Counted in the job's row as the files are read; only where some were rejected are these looked up."""
    rejected: list[dict[str, str]] = []
    if job.failed:
        bad = select(Upload.name, Upload.detail).where(Upload.job_id == job.id, REJECTED).order_by(Upload.position)
        rejected = [{"name": name, "detail": detail or ""} for name, detail in session.execute(bad.limit(reasons))]
    return ImportOutcome(job.stored, job.done - job.stored - job.failed, rejected)


def failed_samples(session: Session, job: Job, reasons: int = REASONS) -> list[dict[str, Any]]:
    """{"index", "detail"} of the first samples that could not be made."""
    if not job.failed:
        return []
    query = select(Sample.position, Sample.failure).where(Sample.job_id == job.id, Sample.failure.is_not(None))
    found = session.execute(query.order_by(Sample.position).limit(reasons))
    return [{"index": position, "detail": failure} for position, failure in found]


def eta_seconds(job: Job) -> float | None:
    """Seconds to a running job's last sample or file, as of its last progress; None: no pace yet, or ended.

    Its pace is that up to then: with the time since, the figure would climb until the next batch is done.
    """
    if job.status != "running" or job.started_at is None or job.progressed_at is None or not job.done:
        return None
    return max(0.0, (job.progressed_at - job.started_at).total_seconds()) / job.done * (job.total - job.done)


def live_workers(session: Session, now: datetime) -> Sequence[Worker]:
    """The workers that gave a sign of life lately; one of a later time is from before the clock was set back."""
    lately = timedelta(seconds=ALIVE_SECONDS)
    alive = Worker.seen_at.between(now - lately, now + lately)
    return session.scalars(select(Worker).where(alive).order_by(Worker.id)).all()


def counts_by_status(session: Session) -> dict[tuple[str, str], int]:
    """(kind, status) -> number of jobs."""
    query = select(Job.kind, Job.status, func.count()).group_by(Job.kind, Job.status)
    return {(kind, status): count for kind, status, count in session.execute(query)}


def steps_to_do(session: Session) -> int:
    """Steps that workers do or could do now: as many workers would all have work."""
    query = select(func.count()).select_from(Step).join(Job, Job.id == Step.job_id)
    return session.scalar(query.where(Step.status != "done", Job.status.in_(WORKABLE))) or 0


def syntheses_in_use(session: Session) -> dict[str, str]:
    """Syntheses that evaluations train on -> such an evaluation."""
    evaluations = select(Job.id, Job.parameters).where(Job.kind == "evaluation", Job.status.in_(ACTIVE))
    return {
        arm["synthesis"]: job_id
        for job_id, parameters in session.execute(evaluations)
        for arm in parameters["arms"]
        if arm["synthesis"] is not None
    }


def ended_before(session: Session, moment: datetime) -> Sequence[str]:
    """Ids of 100 jobs that ended before `moment`, oldest first: candidates for `jobs.delete_job` by retention.

    Not among them: syntheses in use.
    """
    past = select(Job.id).where(Job.finished_at < moment, Job.id.not_in(syntheses_in_use(session)))
    return session.scalars(past.order_by(Job.finished_at).limit(100)).all()


def page(
    session: Session, query: Select[Row], limit: int, place: Callable[[Row], object]
) -> tuple[Sequence[Row], str | None]:
    """The first `limit` rows, and the cursor of the next page: the place of the last row, None where no more follow."""
    rows = session.scalars(query.limit(limit + 1)).all()
    return rows[:limit], str(place(rows[limit - 1])) if len(rows) > limit else None


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _job_place(cursor: str) -> tuple[datetime, str]:
    microseconds, _, job_id = cursor.partition("-")
    try:
        return EPOCH + timedelta(microseconds=number_of(microseconds)), job_id
    except (BadCursor, OverflowError):  # which know of a part of it alone
        raise BadCursor(cursor) from None


def number_of(cursor: str) -> int:
    """A cursor that is a whole number, as those of most lists. Raises BadCursor."""
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
        raise BadCursor(cursor)
    return int(cursor)
