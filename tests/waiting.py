"""Other processes, and waiting for what they and other threads do, on a machine that may be busy."""

import time
from collections.abc import Callable

import psutil


def until(true: Callable[[], object], seconds: float = 120.0, said: Callable[[], str] = str) -> None:
    """Returns as soon as it is true; fails after so many seconds, with what `said` then says."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, said()
        time.sleep(0.02)


def decoder_processes() -> set[psutil.Process]:
    """The children of this process that decode uploads."""
    return {child for child in psutil.Process().children() if "app.uploads.decoder_process" in child.cmdline()}


def is_alive(process: psutil.Process) -> bool:
    """A process that has ended but that nobody has waited for yet is not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
