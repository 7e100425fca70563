"""Signs of life: a row in `workers`, written every few seconds, so that /readyz and /metrics know of a worker."""

import logging
import threading
import time

from sqlalchemy import delete
from sqlalchemy.exc import SQLAlchemyError

from app.database import clock
from app.tables import Worker
from worker.cache import remove_unused
from worker.workplace import Workplace

log = logging.getLogger(__name__)

BEAT_SECONDS = 3.0
TIDY_SECONDS = 3600.0


class Heartbeat:
    def __init__(self, place: Workplace) -> None:
        self._place = place
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="heartbeat", daemon=True)

    def start(self) -> "Heartbeat":
        """The first sign is written before this returns."""
        beat(self._place)
        self._thread.start()
        return self

    def stop(self) -> None:
        """End the signs of life and remove their row: this worker has left."""
        self._over.set()
        self._thread.join()
        with self._place.database.write() as session:
            session.execute(delete(Worker).where(Worker.id == self._place.name))

    def _keep(self) -> None:
        tidied = time.monotonic()
        while not self._over.wait(BEAT_SECONDS):
            try:
                beat(self._place)
            except SQLAlchemyError:
                log.warning("no sign of life could be written, trying again", exc_info=True)
            if time.monotonic() - tidied > TIDY_SECONDS:
                tidied = time.monotonic()
                try:
                    remove_unused(self._place.cache)
                except OSError:
                    log.warning("the cache could not be tidied up", exc_info=True)


def beat(place: Workplace) -> None:
    """Write that this worker lives."""
    networks = place.networks
    sign = Worker(id=place.name, device=str(networks.device), models=networks.names())
    sign.figures = {**place.figures.snapshot(), "gpu": networks.gpu_memory()}
    with place.database.write() as session:
        sign.seen_at = clock(session)
        session.merge(sign)
