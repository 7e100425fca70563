"""The one task: claim a step, do it, finish it, wake others. Its message says no more than: look."""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from kombu.exceptions import OperationalError

from app import broker, jobs, logs
from app.errors import BlobMissing, LastingError, LeaseLost
from app.records import Claim
from models.synthesis import Stopped
from models.weights import WeightsError
from worker.evaluating import train_arm, write_report
from worker.importing import import_files, unpack
from worker.lease import Lease
from worker.packaging import package
from worker.planning import index, plan
from worker.sampling import make_samples
from worker.workplace import Workplace

log = logging.getLogger(__name__)

# Does a step and finishes it; returns how many steps can be claimed because of that.
Doing = Callable[[Workplace, Lease], int]

DOING: dict[str, Doing] = {
    "unpack": unpack,
    "import": import_files,
    "index": index,
    "plan": plan,
    "sample": make_samples,
    "package": package,
    "arm": train_arm,
    "report": write_report,
}
MAX_WAKES = 64  # the sweeper sends the rest as these are used up


def work(place: Workplace) -> bool:
    """Take the fairest step there is and do it. False: there was none. Never raises for a step's failure."""
    with place.database.write() as session:
        claim = jobs.claim(
            session,
            worker=place.name,
            now=datetime.now(UTC),
            lease_seconds=place.settings.lease_seconds,
            max_attempts=place.settings.max_attempts,
        )
    if claim is None:
        return False
    log.info("job %s: %s %d-%d, attempt %d", claim.job_id, claim.kind, claim.first, claim.last, claim.attempt)
    with logs.about(claim.job_id), Lease(place.database, claim, place.settings.lease_seconds) as lease:
        started = time.monotonic()
        made = _do(place, lease)
        place.figures.step_ended(claim.kind, time.monotonic() - started)
    # One message was used up by this step: replace it, so that whatever else is claimable has one too.
    wake(place, claim.job_id, max(1, min(made, MAX_WAKES)))
    return True


def release_leases(place: Workplace) -> None:
    """A worker starts: free what an earlier process of its name held when it was killed."""
    with place.database.write() as session:
        freed = jobs.release(session, place.name)
    for job_id in freed:
        wake(place, job_id, 1)


def wake(place: Workplace, job_id: str, count: int) -> None:
    try:
        broker.wake(place.celery, job_id, count)
    except OperationalError:
        log.warning("the broker does not answer; the sweeper will wake job %s", job_id, exc_info=True)


def _do(place: Workplace, lease: Lease) -> int:
    claim = lease.claim
    try:
        return DOING[claim.kind](place, lease)
    except (LeaseLost, Stopped) as lost:
        log.info("job %s: %s stopped: %r", claim.job_id, claim.kind, lost)
        with place.database.write() as session:
            jobs.stop(session, claim, now=datetime.now(UTC))
    except (LastingError, WeightsError, BlobMissing) as error:
        log.error("job %s failed at %s: %s", claim.job_id, claim.kind, error)
        words = str(error)
        _unless_lost(place, claim, lambda session: jobs.fail(session, claim, words))
    except Exception as error:
        log.exception("job %s, %s, attempt %d", claim.job_id, claim.kind, claim.attempt)
        detail = f"{type(error).__name__}: {error}"
        _unless_lost(
            place,
            claim,
            lambda session: jobs.retry_later(
                session, claim, now=datetime.now(UTC), max_attempts=place.settings.max_attempts, detail=detail
            ),
        )
    return 0


def _unless_lost(place: Workplace, claim: Claim, verb: Callable[..., None]) -> None:
    try:
        with place.database.write() as session:
            verb(session)
    except LeaseLost:
        with place.database.write() as session:
            jobs.stop(session, claim, now=datetime.now(UTC))
