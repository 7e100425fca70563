"""A job's changes as server-sent events; an event's id is the job's version, so clients can resume."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from anyio import CapacityLimiter, to_thread
from sqlalchemy.exc import SQLAlchemyError

from app.database import Database
from app.errors import JobNotFound
from app.queries import find_job, version_of
from app.schemas import JobBody
from app.tables import ACTIVE

POLL_SECONDS = 0.3
KEEP_ALIVE_SECONDS = 15.0
RETRY_MILLISECONDS = 1000
THREADS = 4  # in which all streams look: where they are thousands they hear later, and other requests do not wait


@dataclass(frozen=True)
class Change:
    """A job as it was at one version."""

    version: int
    body: str  # JSON
    final: bool


def last_version(last_event_id: str | None) -> int:
    """The version a client has seen; 0 for one that has seen nothing, or sends an id that is none of ours."""
    text = (last_event_id or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0


def change_since(database: Database, job_id: str, version: int) -> Change | None:
    """The job if it has changed since `version`. Raises JobNotFound."""
    with database.read() as session:
        if version_of(session, job_id) == version:
            return None
        job = find_job(session, job_id)
        return Change(job.version, JobBody.of(session, job).model_dump_json(), job.status not in ACTIVE)


async def events(
    database: Database, job_id: str, seen: int, goes_on: Callable[[], bool], threads: CapacityLimiter
) -> AsyncIterator[str]:
    """Event-stream text: one event per change after version `seen`.

    It ends when the job ends or is deleted, where it no longer `goes_on`, or when the database is away.
    """
    yield f"retry: {RETRY_MILLISECONDS}\n\n"
    quiet_since = time.monotonic()
    while True:
        try:
            if not await to_thread.run_sync(goes_on, limiter=threads):
                return
            change = await to_thread.run_sync(change_since, database, job_id, seen, limiter=threads)
        except (JobNotFound, SQLAlchemyError):  # of an outage the client hears when it comes again
            return
        if change is not None:
            yield f"id: {change.version}\ndata: {change.body}\n\n"
            if change.final:
                return
            seen = change.version
            quiet_since = time.monotonic()
        elif time.monotonic() - quiet_since > KEEP_ALIVE_SECONDS:
            yield ": still here\n\n"
            quiet_since = time.monotonic()
        await asyncio.sleep(POLL_SECONDS)
