"""One command at a time: a lock that ends with its process, kill -9 or not."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cli.failure import Failure


@contextmanager
def held(lock: Path, holder: str, remedy: str) -> Iterator[None]:
    """Hold the file `lock`. Raises Failure, `holder (process N) remedy`, where process N holds it.

    Also on a disk that locks no files.
    """
    import fcntl  # not on Windows, where the commands that only talk to a service work

    with lock.open("a+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock: forked children would hold on to it
        except BlockingIOError:
            file.seek(0)
            raise Failure(f"{holder} (process {file.read().strip()}) {remedy}") from None
        except OSError as error:
            raise Failure(f"{lock.parent}: its disk locks no files ({error.strerror}); choose another folder") from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
        file.truncate(0)
