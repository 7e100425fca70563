"""The API's background task: what no request does. Safe to run in many processes at once."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from anyio import to_thread

from app import broker, database, janitor, jobs, pools
from app.database import clock
from app.service import Service

log = logging.getLogger(__name__)

Act = Callable[[], Awaitable[None]]

SWEEP_SECONDS = 2.0
TIDY_SECONDS = 3600.0
LAST_SECONDS = 2.0  # that a stopping API waits for a transaction in hand; a tidying of minutes is left as it is


def prepare(service: Service) -> None:
    """Bring the schema up to date, and make the default pool of an empty database.

    One that a newer version has migrated already is left as it is: an upgrade or its undoing is under way, and this
    API, started anew in the midst of it, does what those do that have been running all along.
    """
    try:
        database.migrate(service.settings.database())
    except database.OfNewerVersion as newer:
        log.warning("working with the database as it is: %s", newer)
    with service.database.write() as session:
        pools.create_first(session)


def sweep(service: Service) -> None:
    """Wake workers for steps that stopped moving."""
    with service.database.write() as session:
        waiting = jobs.sweep(session, now=clock(session))
    broker.top_up(service.celery, waiting)


def tidy(service: Service) -> None:
    """Remove leftovers and what is past its time; rarely, for it walks through the whole store."""
    with service.database.read() as session:
        now = clock(session)
    removed = janitor.tidy(service.database, service.blobs, service.settings.retention_days, now)
    if any(removed.values()):
        log.info("tidied up: %s", ", ".join(f"{count} {what}" for what, count in removed.items() if count))


async def keep_sweeping(service: Service, prepared: bool) -> None:
    """Until cancelled: prepare the database if that was not possible yet, then sweep and tidy.

    Neither waits for the other, since tidying a store of a million blobs takes minutes.
    """
    if not prepared:
        await until_done("preparing the database", lambda: to_thread.run_sync(prepare, service))
    async with asyncio.TaskGroup() as both:  # which ends when both have; `gather` leaves the one that is at work
        both.create_task(keep_doing("sweeping", lambda: to_thread.run_sync(sweep, service)))
        both.create_task(keep_doing("tidying", lambda: to_thread.run_sync(tidy, service), TIDY_SECONDS))


async def keep_doing(what: str, act: Act, pause_seconds: float = 0.0) -> None:
    """Until cancelled, with SWEEP_SECONDS and the pause in between."""
    while True:
        await until_done(what, act)
        await asyncio.sleep(pause_seconds)


async def until_done(what: str, act: Act) -> None:
    """Try every SWEEP_SECONDS until it is done once: outages are waited out, each kind of trouble is logged once."""
    trouble = ""
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        work = asyncio.ensure_future(act())
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:  # its thread goes on, with a connection that is about to be closed
            await asyncio.wait([work], timeout=LAST_SECONDS)
            raise
        except Exception as error:  # the loop must outlive whatever the stores raise while they are away
            if trouble != type(error).__name__:
                trouble = type(error).__name__
                log.warning("%s has to wait: %r", what, error)
