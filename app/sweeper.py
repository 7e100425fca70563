"""The API's background task: what no request does. Safe to run in many processes at once."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta

from anyio import to_thread

from app import broker, database, jobs, pools, queries
from app.errors import JobNotFound, JobRunning, PoolExists
from app.service import Service

log = logging.getLogger(__name__)

SWEEP_SECONDS = 2.0
DEFAULT_POOL = "default"


def prepare(service: Service) -> None:
    """Bring the schema up to date, and make the default pool of an empty database."""
    database.migrate(service.settings.database())
    with service.database.read() as session:
        first_start = not pools.list_(session, limit=1)[0]
    if first_start:
        try:
            with service.database.write() as session:
                pools.create(session, DEFAULT_POOL)
        except PoolExists:
            pass  # another API started at the same moment


def sweep(service: Service) -> None:
    """Wake workers for steps that stopped moving, and remove what is past its retention."""
    now = datetime.now(UTC)
    with service.database.write() as session:
        waiting = jobs.sweep(session, now=now)
    broker.top_up(service.celery, waiting)
    if service.settings.retention_days is not None:
        remove_old_jobs(service, now - timedelta(days=service.settings.retention_days))


def remove_old_jobs(service: Service, moment: datetime) -> None:
    with service.database.read() as session:
        expired = queries.ended_before(session, moment)
    for job_id in expired:
        try:
            with service.database.write() as session:
                prefix = jobs.delete_job(session, job_id)
        except (JobNotFound, JobRunning):
            continue
        service.blobs.delete_prefix(prefix)


async def keep_sweeping(service: Service, prepared: bool) -> None:
    """Until cancelled: prepare the database if that was not possible yet, then sweep; wait outages out."""
    trouble = ""
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        try:
            if not prepared:
                await to_thread.run_sync(prepare, service)
                prepared = True
            await to_thread.run_sync(sweep, service)
            trouble = ""
        except Exception as error:  # the loop must outlive whatever the stores raise while they are away
            if trouble != type(error).__name__:
                trouble = type(error).__name__
                log.warning("sweeping has to wait: %r", error)
