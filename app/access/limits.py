"""What a key may use up: jobs that wait or run, and bytes and samples of a day (UTC)."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.access.callers import Caller
from app.database import dialect_of
from app.errors import LimitReached
from app.problems import FieldError, Problem
from app.queries import is_repeated
from app.tables import ACTIVE, Job, KeyUsage


@dataclass(frozen=True)
class Allowance:
    """How large a request's body may be: what the service takes at once, and what its key has left of the day.

    Asked for before a body is read, so that none is sent in vain. `charge` has the last word: other requests with the
    key may be under way.
    """

    max_upload_bytes: int
    asked_at: datetime
    used_bytes: int = 0
    max_bytes_per_day: int | None = None

    def check(self, size: int) -> None:
        """A body has this size, or so much of it has come. Raises Problem 413, LimitReached."""
        if size > self.max_upload_bytes:
            raise too_large(f"{self.max_upload_bytes} bytes, the limit of this service; send less in one request")
        if self.max_bytes_per_day is not None and size > self.max_bytes_per_day:
            remedy = "send less in one request, or ask for a key with higher limits"
            raise too_large(f"{self.max_bytes_per_day} bytes, the max_bytes_per_day of this key; {remedy}")
        used = self.used_bytes + size
        _check_day("max_bytes_per_day", "uploaded bytes", used, self.max_bytes_per_day, self.asked_at)


def allowance(
    session: Session, caller: Caller, max_upload_bytes: int, now: datetime, idempotency_key: str | None
) -> Allowance:
    """What a request may bring. One that is sent again is not charged again, so the day's limit does not matter."""
    allowed = caller.limits.max_bytes_per_day
    if allowed is None or is_repeated(session, idempotency_key):
        return Allowance(max_upload_bytes, now)
    usage = session.get(KeyUsage, (caller.key, now.date()))
    return Allowance(max_upload_bytes, now, usage.bytes if usage else 0, allowed)


def too_large(limit_and_remedy: str) -> Problem:
    return Problem(413, "upload-too-large", f"the upload is larger than {limit_and_remedy}")


def wrong_top_k(caller: Caller, top_k: int, guides: int) -> list[FieldError]:
    """What is wrong with making more samples at once than the key may on any day; tomorrow it would be the same."""
    allowed = caller.limits.max_samples_per_day
    if allowed is None or top_k * guides <= allowed:
        return []
    remedy = "choose a smaller top_k, send fewer guides, or ask for a key with higher limits"
    asked = f"is {top_k}, which makes {top_k * guides} samples, and max_samples_per_day of this key is {allowed}"
    return [FieldError("top_k", f"{asked}; {remedy}")]


def charge(session: Session, caller: Caller, job: Job, upload_bytes: int, now: datetime) -> None:
    """Charge a new job to its key, in the transaction that makes it. Raises LimitReached, which undoes all.

    The day's row is written first, and so locked: requests with one key follow one another.
    """
    if not caller.key:
        return
    samples = job.total if job.kind == "synthesis" else 0
    used_bytes, used_samples = _use(session, caller.key, now.date(), upload_bytes, samples)
    job.api_key = caller.key
    session.flush()
    _check_day("max_bytes_per_day", "uploaded bytes", used_bytes, caller.limits.max_bytes_per_day, now)
    _check_day("max_samples_per_day", "samples", used_samples, caller.limits.max_samples_per_day, now)
    _check_queue(session, caller)


def _use(session: Session, prefix: str, day: date, upload_bytes: int, samples: int) -> tuple[int, int]:
    """-> the day's (bytes, samples) with these."""
    new = dialect_of(session).insert(KeyUsage).values(prefix=prefix, day=day, bytes=upload_bytes, samples=samples)
    added = {"bytes": KeyUsage.bytes + upload_bytes, "samples": KeyUsage.samples + samples}
    upsert = new.on_conflict_do_update(index_elements=["prefix", "day"], set_=added)
    used_bytes, used_samples = session.execute(upsert.returning(KeyUsage.bytes, KeyUsage.samples)).one()
    return used_bytes, used_samples


def _check_day(limit: str, what: str, used: int, allowed: int | None, now: datetime) -> None:
    if allowed is None or used <= allowed:
        return
    tomorrow = datetime.combine(now.date() + timedelta(days=1), time(), UTC)
    raise LimitReached(
        f"{limit} of this key is {allowed}, and with this request the day's {what} would reach {used}; "
        "send less, wait for the next day (UTC), or ask for a key with higher limits",
        retry_seconds=int((tomorrow - now).total_seconds()) + 1,
    )


def _check_queue(session: Session, caller: Caller) -> None:
    allowed = caller.limits.max_queued_jobs
    if allowed is None:
        return
    query = select(func.count()).where(Job.api_key == caller.key, Job.status.in_(ACTIVE))
    waiting = (session.scalar(query) or 0) - 1  # without the one just made
    if waiting >= allowed:
        raise LimitReached(
            f"max_queued_jobs of this key is {allowed}, and {waiting} of its jobs wait or run; "
            "try again when one has ended, cancel one, or ask for a key with higher limits"
        )
