"""Several processes in one folder: every file is made once, and all are there at the end."""

import errno
import os
import signal
import time
from multiprocessing import get_context
from pathlib import Path

import pytest

from models.sharing import NotLockable, alone, each_once, whole
from tests.waiting import until

SPAWN = get_context("spawn")
FILES = 12
SECONDS = 60.0  # for two processes to start on a busy machine


def tasks(folder: Path, size: int) -> list[list[Path]]:
    """The same files for every size of a task."""
    files = [folder / f"file-{number}" for number in range(FILES)]
    return [files[start : start + size] for start in range(0, FILES, size)]


def work(folder: Path, size: int = 1, seconds: float = 0.0, together: int = 1, backwards: bool = False) -> None:
    """Make the files, once so many processes are ready to."""
    mine = tasks(folder, size)[:: -1 if backwards else 1]

    def make(task: int) -> None:
        (folder / f"at-work-{os.getpid()}").touch()
        time.sleep(seconds)
        for path in mine[task]:
            if not path.exists():
                with path.open("x") as file:  # which fails if another process is at it
                    file.write(str(os.getpid()))

    (folder / f"ready-{os.getpid()}").touch()
    until(lambda: len(list(folder.glob("ready-*"))) >= together)
    each_once(folder / "locks", mine, make)
    assert None not in makers(folder)


def makers(folder: Path) -> list[int | None]:
    """Which process made each file, None where there is none."""
    (files,) = tasks(folder, FILES)
    return [int(path.read_text() or 0) if path.exists() else None for path in files]


@pytest.mark.parametrize("sizes", [(1, 1), (1, 5), (3, 2)])
def test_processes_share_the_tasks_and_each_ends_when_all_are_done(tmp_path: Path, sizes: tuple[int, int]) -> None:
    """However each cuts the files into tasks, and in whatever order it comes to them."""
    (tmp_path / "file-3").write_text("0")
    ways = zip(sizes, (False, True), strict=True)
    processes = [SPAWN.Process(target=work, args=(tmp_path, size, 0.1, 2, back), daemon=True) for size, back in ways]
    for process in processes:
        process.start()
    for process in processes:
        process.join(SECONDS)
    assert [process.exitcode for process in processes] == [0, 0]
    assert set(makers(tmp_path)) == {0, *(process.pid for process in processes)}


def test_what_a_killed_process_was_at_is_done_by_another(tmp_path: Path) -> None:
    stuck, other = (SPAWN.Process(target=work, args=(tmp_path, 1, seconds), daemon=True) for seconds in (600.0, 0.0))
    stuck.start()
    until((tmp_path / f"at-work-{stuck.pid}").exists)
    other.start()
    until(lambda: makers(tmp_path).count(None) == 1)
    assert makers(tmp_path)[0] is None  # it waits for that one
    assert stuck.pid is not None
    os.kill(stuck.pid, signal.SIGKILL)
    other.join(SECONDS)
    assert (other.exitcode, makers(tmp_path)) == (0, [other.pid] * FILES)


def test_a_task_that_fails_is_free_for_another_try(tmp_path: Path) -> None:
    def fail(task: int) -> None:
        raise RuntimeError(f"task {task}")

    with pytest.raises(RuntimeError, match="task 0"):
        each_once(tmp_path / "locks", tasks(tmp_path, 1), fail)
    work(tmp_path)


def test_a_file_that_is_not_written_to_its_end_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    for written in (b"first", b"second"):
        with whole(path) as file:
            file.write(written)
            assert not path.exists() or path.read_bytes() != written
        assert path.read_bytes() == written
    with pytest.raises(OSError, match="no room") as raised, whole(path) as file:
        file.write(b"thi")
        raise OSError(errno.ENOSPC, "no room")
    assert path.read_bytes() == b"second"
    assert raised.value.filename == str(path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_gets_its_name_only_when_the_disk_has_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint"
    on_disk = []

    def sync(file: int) -> None:
        assert not path.exists()
        on_disk.append(os.fstat(file).st_size)

    monkeypatch.setattr(os, "fsync", sync)
    with whole(path) as file:
        file.write(b"state")
    assert on_disk == [5] and path.read_bytes() == b"state"


@pytest.mark.parametrize("call", ["flock", "lockf"])
def test_a_disk_that_locks_no_files_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(f"fcntl.{call}", refuse)
    with pytest.raises(NotLockable, match=f"{tmp_path}: its disk locks no files"):
        if call == "flock":
            with alone(tmp_path):
                pass
        else:
            work(tmp_path)
