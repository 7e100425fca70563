"""A clock that can be set: a process started by `benchmarks.faults.process` reads how far from a file, in seconds.

What is set is `time.time`, for every package, and `datetime.now` where the service's own modules say it. The class
`datetime.datetime` itself stays: native code of other packages counts on its layout. Monotonic clocks are never set,
nor is the database's, which is the one that the processes share.
"""

import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

HOUR = 3600.0
ROOMS = ("app", "cli", "worker")


def set_clock(data_dir: Path, name: str, seconds: float) -> None:
    """Set the clock of one of the stack's processes ahead, or with a negative number back; 0 sets it right."""
    aside = data_dir / f"clock.{name}.aside"
    aside.write_text(str(seconds))
    aside.replace(data_dir / f"clock.{name}")


def install_for_all(data_dir: Path, name: str) -> None:
    """Call before other packages are imported: some take their own reference to `time.time`."""
    ahead, seconds, nanoseconds = _offset(data_dir, name), time.time, time.time_ns
    time.time = lambda: seconds() + ahead()
    time.time_ns = lambda: nanoseconds() + int(ahead() * 1e9)


def install_for_the_service(data_dir: Path, name: str) -> None:
    """Call when the service's modules are imported."""
    ahead = _offset(data_dir, name)

    class AnyDatetime(type):
        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, datetime)

    class Set(datetime, metaclass=AnyDatetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(seconds=ahead())

    for module in [module for name, module in sys.modules.items() if name.partition(".")[0] in ROOMS]:
        if getattr(module, "datetime", None) is datetime:
            module.datetime = Set  # type: ignore[attr-defined]


def _offset(data_dir: Path, name: str) -> Callable[[], float]:
    file = data_dir / f"clock.{name}"

    def ahead() -> float:
        try:
            return float(file.read_text())
        except FileNotFoundError:
            return 0.0

    return ahead
