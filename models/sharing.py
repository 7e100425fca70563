"""Several processes at work in one folder: who does what, by locks of the system.

The system lets go of a lock when its process ends, however it ends; so what a killed process left undone is done by
another.
"""

import fcntl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import IO


class NotLockable(ValueError):
    """A folder on a disk that locks no files, as some network disks."""


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Wait until no other process works in `folder`, and keep others out. Raises NotLockable."""
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            raise _not_lockable(folder, error) from None
        yield


@contextmanager
def whole(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to, which lies at `path` once all is written: what is there is whole. One process at a time."""
    aside = path.with_name(path.name + ".new")
    with aside.open("wb") as file:
        yield file
    aside.replace(path)


def each_once(locks: Path, tasks: Sequence[Sequence[Path]], make: Callable[[int], None]) -> None:
    """Have every task's files made, each by whichever process comes to it first; all are there at the end.

    locks: a file, made if need be. tasks: the files of each; all tasks together have the same files in the same order
    in every process, however each cuts them into tasks. `make(task)` makes what is missing of them. What another
    process is at is left to it, and waited for at the end. Raises NotLockable.
    """
    firsts = [0, *accumulate(map(len, tasks))]
    with locks.open("w") as lock:
        for wait in (False, True):
            for task, files in enumerate(tasks):
                if _there(files) or not _taken(lock, firsts[task], len(files), wait):
                    continue
                try:
                    if not _there(files):
                        make(task)
                finally:
                    fcntl.lockf(lock, fcntl.LOCK_UN, len(files), firsts[task])


def _there(files: Sequence[Path]) -> bool:
    return all(file.exists() for file in files)


def _taken(lock: IO[str], first: int, count: int, wait: bool) -> bool:
    """A file's lock is the byte of its number."""
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB, count, first)
    except BlockingIOError:
        return False
    except OSError as error:
        raise _not_lockable(Path(lock.name).parent, error) from None
    return True


def _not_lockable(folder: Path, error: OSError) -> NotLockable:
    return NotLockable(f"{folder}: its disk locks no files ({error.strerror}); take another --out")
