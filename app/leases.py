"""Steps and their leases: the parts that the verbs of `app.jobs`, `app.imports` and `app.evaluations` share."""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Executable, Subquery, and_, bindparam, exists, func, not_, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from app.access.tenants import visible
from app.database import clock
from app.errors import LeaseLost
from app.records import Claim
from app.tables import Job, Step

FIRST_STAGE = {"synthesis": "planning", "evaluation": "training"}
# By kind of job: the stage that follows when all steps are done, and its one step.
LAST_STAGE = {"synthesis": ("packaging", "package"), "evaluation": ("reporting", "report")}

LONGEST_LEASE = timedelta(minutes=10)
WORKABLE = ("queued", "running")  # a job's statuses in which its steps may be claimed
HELD, ALIGNED, MATCHED = 2, 5, 6  # in the names of steps; 3 and 4 are earlier alignments'
PLAN = "plan-6"  # of every job; workers of earlier versions, to which a guide saved anew is another image, leave it


def lock(session: Session, job_id: str) -> Job | None:
    """The job's row, locked first by every verb: verbs on one job follow one another."""
    query = select(Job).where(Job.id == job_id, visible(session, Job)).with_for_update()
    return session.scalar(query.execution_options(populate_existing=True))


def hold(session: Session, claim: Claim) -> tuple[Job, Step]:
    job = lock(session, claim.job_id)
    step = session.get(Step, claim.step_id, populate_existing=True)
    if job is None or job.status != "running" or step is None or step.lease != claim.lease:
        raise LeaseLost(f"step {claim.step_id} ({claim.kind}) of job {claim.job_id} is no longer this worker's")
    return job, step


def at(now: datetime) -> dict[str, datetime]:
    """The parameters of a query for what is CLAIMABLE or IS_WORKED_AT then."""
    return {"now": now, "latest": now + LONGEST_LEASE}


# A lease that ends later than any can is from before the clock was set back.
_LASTS = Step.leased_until.between(bindparam("now"), bindparam("latest"))
CLAIMABLE = or_(Step.status == "ready", and_(Step.status == "leased", not_(_LASTS)))
# Whether a worker holds a step, rather than the step being left for a while (`leave`).
IS_WORKED_AT = and_(Step.status == "leased", _LASTS, Step.lease.is_not(None))


def lock_free_step(session: Session, job_id: str, step_id: int, now: datetime) -> tuple[Job, Step] | None:
    """A step that may be claimed and its job, locked. None if it no longer may be: then nothing stays locked.

    Who went on to another job's row with this one's in hand could wait for somebody who does it the other way round.
    """
    savepoint = session.begin_nested()
    job = lock(session, job_id)
    query = select(Step).where(Step.id == step_id, CLAIMABLE)
    step = session.scalar(query, at(now), execution_options={"populate_existing": True})
    if job is None or job.status not in WORKABLE or step is None:
        savepoint.rollback()
        return None
    savepoint.commit()
    return job, step


def fairest(session: Session, now: datetime, kinds: Collection[str] | None) -> tuple[str, int] | None:
    """-> (job, step) to claim next. kinds: of steps to choose from, None for all.

    Of the tenant with the fewest leased steps, and of several the one whose last turn was longest ago; of it, by the
    same rule, the key, and of that the job. So a small job waits for a step of a large one, not for its end, even where
    one worker does everything.
    """
    row = session.execute(_fairest(None if kinds is None else frozenset(kinds)), at(now)).first()
    return None if row is None else (row[0], row[1])


@cache
def _fairest(kinds: frozenset[str] | None) -> Executable:
    """Put together once: that takes longer than the database does."""
    nexts = select(Step.job_id, func.min(Step.id).label("step_id")).where(CLAIMABLE).group_by(Step.job_id)
    if kinds is not None:
        nexts = nexts.where(Step.kind.in_(sorted(kinds)))
    candidates = nexts.subquery()
    query = select(Job.id, candidates.c.step_id).join(candidates, candidates.c.job_id == Job.id)
    order: list[ColumnElement[int]] = []
    for columns in ((Job.tenant,), (Job.tenant, Job.api_key), (Job.id,)):
        held = _leased_by(*columns)
        query = query.outerjoin(held, and_(*(held.c[column.key] == column for column in columns)))
        order += [func.coalesce(held.c.leases, 0), _last_turn_of(*columns)]
    return query.where(Job.status.in_(WORKABLE)).order_by(*order, Job.created_at, Job.id).limit(1)


def _leased_by(*columns: InstrumentedAttribute[str]) -> Subquery:
    """How many steps workers are at, by these columns of their jobs."""
    held = select(*columns, func.count().label("leases")).join(Step, Step.job_id == Job.id)
    return held.where(IS_WORKED_AT).group_by(*columns).subquery()


def _last_turn_of(*columns: InstrumentedAttribute[str]) -> ColumnElement[int]:
    """The last turn of the jobs, ended ones too, that have these columns in common with a job."""
    others = aliased(Job)
    alike = (getattr(others, column.key) == column for column in columns)
    return select(func.max(others.turn)).where(*alike).scalar_subquery()


def latest_turn(session: Session) -> int:
    """Turns are counted over all jobs: each claim is one."""
    return session.scalar(select(func.max(Job.turn))) or 0


def is_held(session: Session, job_id: str, now: datetime) -> bool:
    """Whether a worker is at one of the job's steps."""
    held = exists().where(Step.job_id == job_id, IS_WORKED_AT)
    return bool(session.scalar(select(held), at(now)))


def count_done(session: Session, job: Job, done: int = 1) -> None:
    """`done` more of the job's samples, files or arms are done."""
    job.done, job.version, job.progressed_at = job.done + done, job.version + 1, clock(session)


def let_go(step: Step, status: str) -> None:
    step.status, step.lease, step.worker, step.leased_until = status, None, None, None


def spare(step: Step) -> None:
    """Do not count the attempt that ends, which did not fail; progress may have reset the count already."""
    step.attempts = max(0, step.attempts - 1)


def leave(step: Step, until: datetime) -> None:
    """Nobody holds the step, and nobody may claim it before then."""
    step.lease, step.worker, step.leased_until = None, None, until


def kind_of(kind: str, parameters: Mapping[str, Any]) -> str:
    """What a step of this kind is called in a job with these parameters.

    A worker of a version without `hold_anatomy` would make another sample, one that aligns differently would move the
    guide elsewhere, and one that knows no `match_brightness` would leave a band that is too bright here and there. They
    leave steps whose names they do not know.
    """
    if parameters.get("match_statistics"):
        return f"{kind}-{MATCHED}"
    if parameters.get("align"):
        return f"{kind}-{ALIGNED}"
    return f"{kind}-{HELD}" if parameters.get("hold_anatomy") else kind


def add_steps(session: Session, job_id: str, kind: str, first: int, last: int, chunk: int) -> int:
    starts = range(first, last, chunk)
    for start in starts:
        add_step(session, job_id, kind, start, min(start + chunk, last))
    return len(starts)


def add_step(session: Session, job_id: str, kind: str, first: int, last: int) -> None:
    session.add(Step(job_id=job_id, kind=kind, position=first, first=first, last=last, status="ready"))
