"""Many phantoms on all cores."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from typing import TypeVar

import numpy as np

WORTH_PROCESSES = 64

Made = TypeVar("Made")


def in_parallel(make: Callable[[int], Made], count: int) -> Iterator[Made]:
    """`make` of 0 ... count - 1 in order, on all cores where that is worth starting processes for."""
    if count < WORTH_PROCESSES:
        yield from map(make, range(count))
        return
    pool = ProcessPoolExecutor(mp_context=get_context("spawn"), initializer=_begin)
    try:
        # Processes inherit what this one blocks, so Ctrl-C is not for them: it ends this one, which ends them.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            made = pool.map(make, range(count), chunksize=4)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        yield from made
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """End with the parent, even if it is killed. And free one large block: from then on glibc keeps freed memory for
    the next array instead of handing it back to the system each time, which costs a phantom a tenth of its time."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    np.empty(24 << 20, np.uint8)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
