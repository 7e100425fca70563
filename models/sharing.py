"""Several processes working in one folder: file locks of the system decide who does what.

The system releases a lock when its process ends, however it ends; so what a killed process left undone is done by
another.
"""

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import IO
from zipfile import is_zipfile


class NotLockable(ValueError):
    """A folder on a disk that locks no files, as some network disks."""


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Wait until no other process works in `folder`, and keep others out. Raises NotLockable."""
    import fcntl  # not on Windows, see `cli.held`

    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            raise _not_lockable(folder, error) from None
        yield


@contextmanager
def whole(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to, which appears at `path` once it is complete and on the disk. One process at a time.

    A failure leaves nothing behind: on a full disk a part would keep it full. An OSError names the file.
    """
    aside = path.with_name(path.name + ".new")
    try:
        with named(path), aside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # else a power cut may leave the name without the content
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


@contextmanager
def named(path: Path) -> Iterator[None]:
    """An OSError of the block names what is written: the system does not where a disk is full."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def check_archive(path: Path) -> None:
    """Raises ValueError for a file of `torch.save`, a zip archive, that was cut short, as by a copy that broke off."""
    if not is_zipfile(path):
        raise ValueError(f"{path} is damaged; delete it to begin anew")


def reserve(file: IO[bytes], size: int) -> None:
    """Reserve `size` bytes on the disk, where the system can: too little room is an OSError now, not hours later."""
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # this kind of disk cannot reserve
            raise


def each_once(locks: Path, tasks: Sequence[Sequence[Path]], make: Callable[[int], None]) -> None:
    """Have every task's files made, each task by the process that comes to it first; all files exist at the end.

    locks: a file, made if need be. tasks: the files of each, below the folder of `locks`; processes may have different
    tasks, or cut the same files into tasks of another size. `make(task)` makes those of its files that are missing. A
    task in another process's hands is left to it, and waited for at the end. Raises NotLockable.
    """
    with locks.open("w") as lock:
        for wait in (False, True):
            for task, files in enumerate(tasks):
                if _there(files):
                    continue
                with _taken(lock, files, wait) as taken:
                    if taken and not _there(files):
                        make(task)


def _there(files: Sequence[Path]) -> bool:
    return all(file.exists() for file in files)


@contextmanager
def _taken(lock: IO[str], files: Sequence[Path], wait: bool) -> Iterator[bool]:
    """Whether this process now holds all of the files. All processes lock in one order, so there is no deadlock."""
    import fcntl

    taken: list[int] = []
    try:
        for byte in sorted(_byte(file, Path(lock.name).parent) for file in files):
            fcntl.lockf(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
            taken.append(byte)
    except BlockingIOError:
        pass
    except OSError as error:
        raise _not_lockable(Path(lock.name).parent, error) from None
    try:
        yield len(taken) == len(files)
    finally:
        for byte in taken:
            fcntl.lockf(lock, fcntl.LOCK_UN, 1, byte)


def _byte(file: Path, folder: Path) -> int:
    """The byte of the lock file that stands for a file: the same in every process, whatever its tasks are."""
    return int.from_bytes(sha256(str(file.relative_to(folder)).encode()).digest()[:7])


def _not_lockable(folder: Path, error: OSError) -> NotLockable:
    return NotLockable(f"{folder}: its disk locks no files ({error.strerror}); take another --out")
