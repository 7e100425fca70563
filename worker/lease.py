"""A step's lease, kept alive by a thread while the step is worked on."""

import logging
import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from math import inf

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from app import jobs
from app.database import Database, clock
from app.errors import LeaseLost
from app.records import Claim
from app.tables import Job, Step

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5  # how soon a cancellation is noticed


class TurnOver(Exception):
    """The step has had its turn: how far it got is saved, and it goes back to whoever comes next."""


class WorkerEnds(Exception):
    """The worker is told to end: let go of the step, another worker goes on with it."""


class Lease:
    """Renews a claim until the block ends; tells when the step is no longer the worker's.

    The working thread asks `over` or `check` again and again. If it has not for `hung_seconds` it hangs, and
    `when_hung` is called in another thread. told_to_end: whether the worker is to end.
    """

    def __init__(
        self,
        database: Database,
        claim: Claim,
        lease_seconds: float,
        hung_seconds: float = inf,
        when_hung: Callable[[], None] = lambda: None,
        told_to_end: Callable[[], bool] = lambda: False,
    ) -> None:
        self.claim = claim
        self._database = database
        self._lease_seconds = lease_seconds
        self._hung_seconds = hung_seconds
        self._when_hung = when_hung
        self._told_to_end = told_to_end
        self._moved = time.monotonic()
        self._lost = threading.Event()
        self._left = threading.Event()
        keep = partial(copy_context().run, self._keep)  # what the thread logs names the job, too
        self._thread = threading.Thread(target=keep, name=f"lease of step {claim.step_id}", daemon=True)

    def __enter__(self) -> "Lease":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._thread.join()

    def over(self) -> bool:
        """Whether to stop: the job is cancelled or has ended, another worker has the step, or this one is to end."""
        self._moved = time.monotonic()
        return self._lost.is_set() or self._told_to_end()

    def check(self) -> None:
        """Raises LeaseLost or, where the step is still ours but the worker is to end, WorkerEnds."""
        if not self.over():
            return
        if self._lost.is_set():
            raise LeaseLost(f"step {self.claim.step_id} of job {self.claim.job_id} is no longer this worker's")
        raise WorkerEnds(f"step {self.claim.step_id} of job {self.claim.job_id} is for another worker")

    def _keep(self) -> None:
        renewed = time.monotonic()
        while not self._left.wait(LOOK_SECONDS):
            try:
                if time.monotonic() - self._moved > self._hung_seconds:
                    self._when_hung()
                elif time.monotonic() - renewed > self._lease_seconds / 3:
                    with self._database.write() as session:
                        jobs.renew(session, self.claim, now=clock(session), lease_seconds=self._lease_seconds)
                    renewed = time.monotonic()
                elif not self._still_ours():
                    self._lost.set()
            except LeaseLost:
                self._lost.set()
            except SQLAlchemyError:
                log.warning("the lease could not be renewed, trying again", exc_info=True)

    def _still_ours(self) -> bool:
        with self._database.read() as session:
            query = select(Step.lease, Job.status).join(Job, Job.id == Step.job_id).where(Step.id == self.claim.step_id)
            return session.execute(query).first() == (self.claim.lease, "running")
