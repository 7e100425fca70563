"""A worker in a thread of the test's process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from app.settings import Settings
from tests.worker_service import workplace
from worker.tasks import work


@contextmanager
def worker(settings: Settings) -> Iterator[None]:
    """A worker in a thread, which looks for work without being woken."""
    over = threading.Event()
    with workplace(settings) as place:

        def keep_working() -> None:
            while not over.is_set():
                if not work(place):
                    over.wait(0.05)

        thread = threading.Thread(target=keep_working)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
