"""The one task: claim a step, do it, finish it, wake others. Its message says no more than: look."""

import logging
import os
import signal
import time
from collections.abc import Callable
from functools import partial

import torch
from sqlalchemy.orm import Session

from app import broker, jobs
from app.database import AWAY, clock
from app.errors import BlobMissing, LastingError, LeaseLost, PansynthError
from app.evaluations import ARM
from app.leases import HELD, MATCHED, PLAN
from app.monitoring import logs
from app.records import Claim
from models.memory import is_out_of_memory
from models.synthesis import Stopped
from models.weights import WeightsError
from worker.evaluating import train_arm, write_report
from worker.importing import import_files, unpack
from worker.lease import Lease, TurnOver, WorkerEnds
from worker.outages import is_outage
from worker.packaging import package
from worker.planning import index, plan
from worker.sampling import make_samples
from worker.workplace import Workplace

log = logging.getLogger(__name__)

# Does a step and finishes it, or raises TurnOver; returns how many steps can be claimed because of that.
Doing = Callable[[Workplace, Lease], int]
Verb = Callable[[Session, Claim], None]  # of `app.jobs`

# A worker claims the kinds it knows and leaves the others: so a version that does a step differently, with another
# result or other rows, gives it another name here, and workers of both versions can share a job.
DOING: dict[str, Doing] = {
    "unpack": unpack,
    "import": import_files,
    "index": index,
    PLAN: plan,
    "sample": make_samples,
    "package": package,
    ARM: train_arm,
    "report": write_report,
}
# Also by the names of earlier versions: their jobs may be under way when the last of their workers ends.
DOING |= {"plan": plan, "arm": train_arm, "arm-5": train_arm}
DOING |= {
    f"{kind}-{number}": DOING[kind]
    for number in range(HELD, MATCHED + 1)
    for kind in ("index", "plan", "sample", "package", "arm")
}
DATABASE_PAUSE_SECONDS = 1.0
UNUSABLE_WEIGHTS = "the weights are incomplete or were changed, and cannot be used; see the workers' logs"
MAX_WAKES = 64  # the sweeper sends the rest as these are used up


def work(place: Workplace) -> bool:
    """Take the fairest step there is and do it. False: there was none. Never raises for a step's failure."""
    with place.database.write() as session:
        claim = jobs.claim(
            session,
            worker=place.name,
            now=clock(session),
            lease_seconds=place.settings.lease_seconds,
            max_attempts=place.settings.max_attempts,
            kinds=DOING,
        )
    if claim is None:
        return False
    lease_seconds, hung_seconds = place.settings.lease_seconds, place.settings.hung_seconds
    when_hung = partial(_end_hung, place, claim)
    with logs.about(claim.job_id):
        log.info("job %s: %s %d-%d, attempt %d", claim.job_id, claim.kind, claim.first, claim.last, claim.attempt)
        with Lease(place.database, claim, lease_seconds, hung_seconds, when_hung, place.told_to_end) as lease:
            started = time.monotonic()
            made, verb = _do(place, lease)
            place.figures.step_ended(claim.kind, time.monotonic() - started)
        if verb is not None:
            _tell(place, claim, verb)  # outside the lease: to wait for the database is not to hang
    # One message was used up by this step: replace it, so that whatever else is claimable has one too.
    broker.wake(place.celery, claim.job_id, max(1, min(made, MAX_WAKES)))
    return True


def release_leases(place: Workplace) -> None:
    """A worker starts: free what an earlier process of its name held when it was killed."""
    with place.database.write() as session:
        freed = jobs.release(session, place.name)
    for job_id in freed:
        broker.wake(place.celery, job_id)


def _do(place: Workplace, lease: Lease) -> tuple[int, Verb | None]:
    """-> how many steps can be claimed because of it, and for a step that is not finished the verb that says so."""
    claim = lease.claim
    try:
        return DOING[claim.kind](place, lease), None
    except TurnOver:
        return 1, jobs.hand_back
    except (LeaseLost, WorkerEnds, Stopped) as told:
        log.info("job %s: %s stopped: %r", claim.job_id, claim.kind, told)
        return 0, _stop
    except (LastingError, BlobMissing) as error:
        log.error("job %s failed at %s, its `error` says why: %s", claim.job_id, claim.kind, type(error).__name__)
        status = error.status if isinstance(error, LastingError) else LastingError.status
        return 0, partial(jobs.fail, detail=str(error), status=status)
    except WeightsError as error:  # it names folders of this machine, which are no client's business
        log.error("job %s failed at %s: %s", claim.job_id, claim.kind, error)
        return 0, partial(jobs.fail, detail=UNUSABLE_WEIGHTS)
    except Exception as error:
        if isinstance(error, OSError) and is_outage(error):  # the system names no file where a disk is full
            error.filename = error.filename or str(place.cache)  # the one folder in which steps write
        log.exception("job %s, %s, attempt %d", claim.job_id, claim.kind, claim.attempt)
        if is_outage(error):
            return 0, _wait_out
        again = _again(place, _in_words(error))
        if not isinstance(error, torch.AcceleratorError):
            return 0, again
        _tell(place, claim, again)
        _end_process()  # no call to the GPU would succeed in it any more
        return 0, None


def _in_words(error: Exception) -> str:
    """An error in words for clients: of one that is not ours the type alone, as its text may quote paths and values."""
    if is_out_of_memory(error):
        return "the worker ran out of memory"
    kind = type(error).__name__
    return f"{kind}: {error}" if isinstance(error, PansynthError) else kind


def _tell(place: Workplace, claim: Claim, verb: Verb) -> None:
    """Say what became of a step; while the database is away, try again until it answers or the worker is ended."""
    while True:
        try:
            with place.database.write() as session:
                verb(session, claim)
            return
        except LeaseLost:
            verb = _stop
        except AWAY:
            log.warning("job %s waits for the database", claim.job_id, exc_info=True)
            time.sleep(DATABASE_PAUSE_SECONDS)


def _stop(session: Session, claim: Claim) -> None:
    jobs.stop(session, claim, now=clock(session))


def _wait_out(session: Session, claim: Claim) -> None:
    jobs.wait_out(session, claim, now=clock(session))


def _again(place: Workplace, detail: str) -> Verb:
    def retry(session: Session, claim: Claim) -> None:
        limit = place.settings.max_attempts
        jobs.retry_later(session, claim, now=clock(session), max_attempts=limit, detail=detail)

    return retry


def _end_hung(place: Workplace, claim: Claim) -> None:
    """End the process: nothing else ends a thread that is stuck in native code."""
    seconds = place.settings.hung_seconds
    log.error("job %s, %s %d: nothing moved for %g s", claim.job_id, claim.kind, claim.first, seconds)
    _tell(place, claim, _again(place, f"nothing moved for {seconds:g} s"))
    _end_process()


def _end_process() -> None:
    """Celery forks another."""
    os.kill(os.getpid(), signal.SIGKILL)
