"""Whether a new job may come in; the parts that the submitting verbs of `app.jobs` share."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from app.access.tenants import tenant_of
from app.database import insert_new
from app.errors import IdempotencyConflict, QueueFull
from app.leases import latest_turn
from app.tables import ACTIVE, IdempotencyKey, Job, Pool


def check_queue(session: Session, max_queued_jobs: int) -> None:
    waiting = session.scalar(select(func.count()).where(Job.status.in_(ACTIVE))) or 0
    if waiting >= max_queued_jobs:
        raise QueueFull(f"{waiting} jobs wait or run, {max_queued_jobs} are allowed; try again when some have ended")


def first_with_key(session: Session, idempotency: tuple[str, str] | None) -> Job | None:
    if idempotency is None:
        return None
    key, fingerprint = idempotency
    known = session.get(IdempotencyKey, (tenant_of(session), key), populate_existing=True)
    if known is None:
        return None
    if known.fingerprint != fingerprint:
        raise IdempotencyConflict(
            f"Idempotency-Key {key!r} was used for job {known.job_id} with other content; "
            "send the same content or another key"
        )
    return session.get(Job, known.job_id)


def new_job(
    session: Session, job_id: str, kind: str, parameters: Mapping[str, Any], total: int, pool: Pool | None = None
) -> Job:
    job = Job(id=job_id, kind=kind, status="queued", parameters=dict(parameters), total=total)
    job.created_at, job.tenant = datetime.now(UTC), tenant_of(session)
    job.pool_id = pool.id if pool else None
    job.turn = latest_turn(session)  # behind those that wait, before those that have a turn after it
    session.add(job)
    session.flush()  # first: what is added after it refers to it
    return job


def under_key(session: Session, idempotency: tuple[str, str] | None, job: Job) -> Job:
    """The new job, found by its key from now on; or the job of another request with this key, which was faster."""
    if idempotency is None:
        return job
    key, fingerprint = idempotency
    row = {"tenant": tenant_of(session), "key": key, "fingerprint": fingerprint, "job_id": job.id}
    while not insert_new(session, IdempotencyKey, [row | {"created_at": datetime.now(UTC)}]):
        if (first := first_with_key(session, idempotency)) is not None:  # else it was deleted a moment ago
            session.execute(delete(Job).where(Job.id == job.id))
            return first
    return job
