"""Several processes in one folder: every file is made once, and all are there at the end."""

import errno
import os
import signal
import time
from multiprocessing import get_context
from pathlib import Path

import pytest

from models.sharing import NotLockable, alone, each_once

SPAWN = get_context("spawn")
TASKS = 12


def files(folder: Path) -> list[list[Path]]:
    return [[folder / f"{task}-{part}" for part in range(2)] for task in range(TASKS)]


def work(folder: Path, seconds: float) -> None:
    def make(task: int) -> None:
        time.sleep(seconds)
        with (folder / "log").open("a") as log:
            log.write(f"{task} {os.getpid()}\n")
        for path in files(folder)[task]:
            path.touch()

    each_once(folder / "locks", files(folder), make)
    assert all(path.exists() for paths in files(folder) for path in paths)


def done(folder: Path) -> list[tuple[int, int]]:
    """Which task was done by which process."""
    lines = (folder / "log").read_text().splitlines() if (folder / "log").exists() else []
    return [(int(task), int(process)) for task, process in map(str.split, lines)]


def test_processes_share_the_tasks_and_each_ends_when_all_are_done(tmp_path: Path) -> None:
    (tmp_path / "3-0").touch()
    (tmp_path / "3-1").touch()
    processes = [SPAWN.Process(target=work, args=(tmp_path, 0.1)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert sorted(task for task, _ in done(tmp_path)) == [task for task in range(TASKS) if task != 3]
    assert {process for _, process in done(tmp_path)} == {process.pid for process in processes}


def test_what_a_killed_process_was_at_is_done_by_another(tmp_path: Path) -> None:
    stuck = SPAWN.Process(target=work, args=(tmp_path, 600))
    stuck.start()
    while not (tmp_path / "locks").exists():
        time.sleep(0.01)
    time.sleep(0.5)
    other = SPAWN.Process(target=work, args=(tmp_path, 0))
    other.start()
    while len(done(tmp_path)) < TASKS - 1:
        time.sleep(0.01)
    assert 0 not in [task for task, _ in done(tmp_path)]  # it waits for that one
    assert stuck.pid is not None
    os.kill(stuck.pid, signal.SIGKILL)
    other.join(60)
    assert other.exitcode == 0
    assert sorted(done(tmp_path)) == [(task, other.pid) for task in range(TASKS)]


def test_a_task_that_fails_is_free_for_another_try(tmp_path: Path) -> None:
    def fail(task: int) -> None:
        raise RuntimeError(f"task {task}")

    with pytest.raises(RuntimeError, match="task 0"):
        each_once(tmp_path / "locks", files(tmp_path), fail)
    work(tmp_path, 0)
    assert len(done(tmp_path)) == TASKS


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
            work(tmp_path, 0)
