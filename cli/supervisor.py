"""Keeps a set of child processes alive and ends them together."""

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from types import FrameType
from typing import TextIO

from cli.children import kill_group, start
from cli.failure import Failure

TICK_SECONDS = 0.2
HEALTHY_SECONDS = 60.0  # a child that lived this long has not crashed at its start
LONGEST_PAUSE_SECONDS = 30.0
TRIES_TO_START = 3  # quick deaths in a row that end everything, as long as it was never ready
GRACE_SECONDS = 8.0
LARGEST_LOG_BYTES = 10_000_000


@dataclass
class Child:
    """A process to keep alive. `deaths` counts the quick ones in a row; `due` is when to start it again.

    One that is `needed_by_others` ends when the others have.
    """

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str]
    inherited: Sequence[int] = ()
    needed_by_others: bool = False
    process: Popen[bytes] | None = field(default=None, init=False)
    started_at: float = field(default=0.0, init=False)
    deaths: int = field(default=0, init=False)
    due: float = field(default=0.0, init=False)

    def start(self) -> None:
        self.process = start(self.command, self.log, self.environment, self.inherited)
        self.started_at = time.monotonic()

    def reap(self) -> int | None:
        """The exit status if it has ended since the last look; then the next start is planned."""
        if self.process is None or (status := self.process.poll()) is None:
            return None
        kill_group(self.process)  # what it started must not outlive it
        if time.monotonic() - self.started_at > HEALTHY_SECONDS:
            self.deaths = 0
        self.put_off()
        return status

    def keep_log_small(self) -> None:
        """Put aside what a large log holds. Its writer appends, and so goes on at the beginning of the emptied file."""
        with suppress(OSError):  # there is none yet
            if self.log.stat().st_size <= LARGEST_LOG_BYTES:
                return
            with suppress(OSError):  # on a full disk there is no room for it
                shutil.copyfile(self.log, self.log.with_suffix(".log.1"))
            os.truncate(self.log, 0)

    def put_off(self) -> None:
        """It ended too soon, or could not be started: plan the next start, at once after the first time."""
        self.deaths += 1
        pause = 0.0 if self.deaths == 1 else min(LONGEST_PAUSE_SECONDS, 0.5 * 2**self.deaths)
        self.process, self.due = None, time.monotonic() + pause


class Supervisor:
    """Starts `children` in their order and again when they end, until SIGINT, SIGTERM or SIGHUP.

    When `is_ready` first says so, `words` are printed. `run` returns when all of them have ended, and raises `Failure`
    where one cannot even start.
    """

    def __init__(self, children: Sequence[Child], is_ready: Callable[[], bool], words: str) -> None:
        self.children = children
        self.is_ready = is_ready
        self.words = words
        self.ready = False
        self.asked = 0  # how often the end was asked for: the second time means at once

    def run(self) -> None:
        with _signals(self._ask):
            try:
                while not self.asked:
                    self._tend()
                    self._look_whether_ready()
                    time.sleep(TICK_SECONDS)
            finally:
                self._end()

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self.asked += 1

    def _tend(self) -> None:
        for child in self.children:
            status = child.reap()
            if status is not None:
                self._mourn(child, status)
            if child.process is None and time.monotonic() >= child.due and not self.asked:
                self._start(child)
            child.keep_log_small()

    def _start(self, child: Child) -> None:
        try:
            child.start()
        except OSError as error:  # no memory for another process, no room for its log: that passes
            child.put_off()
            if not self.ready and child.deaths >= TRIES_TO_START:
                raise
            _say(f"{child.name} cannot be started: {error}; trying again")

    def _mourn(self, child: Child, status: int) -> None:
        how = (
            f"was ended by signal {-status} ({signal.strsignal(-status)})"
            if status < 0
            else f"ended with status {status}"
        )
        if not self.ready and child.deaths >= TRIES_TO_START:
            raise Failure(f"{child.name} {how} {child.deaths} times in a row; {_last_words(child.log)}")
        pause = max(0.0, child.due - time.monotonic())
        again = f"in {pause:.0f} s" if pause else "now"
        _say(f"{child.name} {how}; starting it again {again} (log: {child.log})")

    def _look_whether_ready(self) -> None:
        if not self.ready and self.is_ready():
            self.ready = True
            _say(self.words, sys.stdout)

    def _end(self) -> None:
        for needed in (False, True):
            group = [child.process for child in self.children if child.needed_by_others == needed]
            self._end_together([process for process in group if process is not None])

    def _end_together(self, processes: Sequence[Popen[bytes]]) -> None:
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + GRACE_SECONDS
        asked = self.asked
        while any(process.poll() is None for process in processes):
            if time.monotonic() > deadline or self.asked > max(asked, 1):
                break
            time.sleep(TICK_SECONDS / 4)
        for process in processes:
            kill_group(process)
            process.wait()


def _say(words: str, out: TextIO | None = None) -> None:
    with suppress(OSError):  # whoever read it has gone, or the disk is full: no reason to end the service
        print(words, file=out or sys.stderr, flush=True)


def _last_words(log: Path) -> str:
    words = log.read_text(errors="replace").strip().splitlines()[-12:] if log.exists() else []
    return "\n".join([f"its log, {log}, ends with:", *words])


@contextmanager
def _signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        numbers.append(signal.SIGHUP)
    before = [signal.signal(number, handler) for number in numbers]
    try:
        yield
    finally:
        for number, old in zip(numbers, before, strict=True):
            signal.signal(number, old)
