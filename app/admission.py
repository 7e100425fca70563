"""Whether a new job may come in, and the row that every kind of job begins with."""

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from app.access.tenants import tenant_of
from app.database import clock, insert_new
from app.errors import IdempotencyConflict, QueueFull
from app.leases import latest_turn
from app.tables import ACTIVE, IdempotencyKey, Job, Pool

Idempotency = tuple[str, str]  # the request's key, and the fingerprint of its content


def admit(session: Session, max_queued_jobs: int, idempotency: Idempotency | None, submit: Callable[[], Job]) -> Job:
    """The job that `submit` makes; or, where the idempotency key is known, the first one that came with it.

    Raises QueueFull, IdempotencyConflict, and what `submit` raises.
    """
    if idempotency is not None and (first := first_with_key(session, idempotency)) is not None:
        return first
    waiting = session.scalar(select(func.count()).where(Job.status.in_(ACTIVE))) or 0
    if waiting >= max_queued_jobs:
        raise QueueFull(f"{waiting} jobs wait or run, {max_queued_jobs} are allowed; try again when some have ended")
    job = submit()
    return job if idempotency is None else under_key(session, idempotency, job)


def first_with_key(session: Session, idempotency: Idempotency) -> Job | None:
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
    job.created_at, job.tenant = clock(session), tenant_of(session)
    job.pool_id = pool.id if pool else None
    job.turn = latest_turn(session)  # behind those that wait, before those that have a turn after it
    session.add(job)
    session.flush()  # first: what is added after it refers to it
    return job


def under_key(session: Session, idempotency: Idempotency, job: Job) -> Job:
    """The new job, found by its key from now on; or the job of another request with this key, which was faster."""
    key, fingerprint = idempotency
    row = {"tenant": tenant_of(session), "key": key, "fingerprint": fingerprint, "job_id": job.id}
    while not insert_new(session, IdempotencyKey, [row | {"created_at": job.created_at}]):
        if (first := first_with_key(session, idempotency)) is not None:  # else it was deleted a moment ago
            session.execute(delete(Job).where(Job.id == job.id))
            return first
    return job
