"""Child processes that neither outlive their parent nor leave children of their own behind."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def pansynth(*arguments: str) -> list[str]:
    """This very `pansynth`; -P, since a folder named `app` where the user stands must not hide ours."""
    return [sys.executable, "-P", "-m", "cli", *arguments]


def start(
    command: Sequence[str],
    log: Path,
    environment: Mapping[str, str],
    inherited: Sequence[int] = (),
    death_signal: signal.Signals = signal.SIGKILL,
) -> subprocess.Popen[bytes]:
    """Start `command` as the leader of a process group, both outputs appended to `log`.

    On Linux it gets `death_signal` when this process ends, however that comes about.
    """
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            pass_fds=tuple(inherited),
            start_new_session=True,
            preexec_fn=_tie(death_signal),
        )


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill whatever is left of the process group that `process` leads or led."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def die_with(parent: int) -> None:
    """For a process that was forked rather than started: be killed when `parent` ends, or has ended (Linux)."""
    tie = _tie(signal.SIGKILL, parent)
    if tie is not None:
        tie()


def _tie(death_signal: signal.Signals, parent: int | None = None) -> Callable[[], None] | None:
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork: little is safe after it
    parent = parent or os.getpid()

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, int(death_signal))
        if os.getppid() != parent:  # it ended before the call
            os._exit(1)

    return tie
