"""Progress of long work: a bar on a terminal, plain lines elsewhere; always on standard error."""

import math
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

Show = Callable[..., None]  # show(done, total, label=...)

LINE_SECONDS = 5.0
SAME_SECONDS = 60.0
PACE_SECONDS = 86_400.0  # an evaluation's arm takes minutes to hours, of which rich's own 30 s would see nothing
SELDOM_SECONDS = 10.0


@contextmanager
def progress(label: str) -> Iterator[Show]:
    """Yield `show(done, total, label=None)`; a total of 0 means that it is not known yet."""
    from rich.console import Console

    console = Console(stderr=True)
    if sys.stderr.isatty() and not console.is_dumb_terminal:  # on which no line can be drawn anew
        with _bar(label, console) as show:
            yield show
    else:
        yield _Lines(label)


def say(words: str, err: bool = False) -> None:
    """A line in the midst of progress, above its bar, which wipes out what `typer.echo` writes past it."""
    print(words, file=sys.stderr if err else sys.stdout, flush=True)


def seldom(show: Show) -> Callable[[int, int, str], None]:
    """`show` for what is told at every step: at most once in 10 s, and at the end."""
    said = -math.inf

    def update(done: int, total: int, text: str) -> None:
        nonlocal said
        if time.monotonic() - said > SELDOM_SECONDS or done == total:
            said = time.monotonic()
            show(done, total, text)

    return update


@contextmanager
def _bar(label: str, console: "Console") -> Iterator[Show]:
    from rich.console import RenderableType
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn
    from rich.table import Column
    from rich.text import Text

    class LabelAbove(Progress):
        """A training's label is longer than a terminal is wide: beside the bar it would push the numbers out."""

        def get_renderables(self) -> Iterator[RenderableType]:
            yield from (Text(task.description) for task in self.tasks)
            yield self.make_tasks_table(self.tasks)

    kept = Column(no_wrap=True)  # where it is narrow the bar gives way
    columns = (
        BarColumn(),
        MofNCompleteColumn(table_column=kept),
        TimeElapsedColumn(table_column=kept),
        "remaining",
        TimeRemainingColumn(table_column=kept),
    )
    beside = bool(sys.stdout and sys.stdout.isatty())  # else what is said goes to a file, and not through rich
    with LabelAbove(*columns, console=console, speed_estimate_period=PACE_SECONDS, redirect_stdout=beside) as bar:
        task = bar.add_task(label, total=None)

        def show(done: int, total: int, label: str | None = None) -> None:
            bar.update(task, completed=done, total=total or None, description=label)

        yield show


class _Lines:
    """A line at every new label (new numbers make none), at the end, and otherwise no more than one in 5 s.

    Where nothing changes, as while an evaluation's arm is trained, one a minute, which says for how long.
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self.said: tuple[str, int, int] | None = None
        self.said_at = self.since = -math.inf

    def __call__(self, done: int, total: int, label: str | None = None) -> None:
        new = (label or self.label, done, total)
        now = time.monotonic()
        turned = self.said is None or _words(self.said[0]) != _words(new[0])
        complete = total > 0 and done == total
        words = f"{new[0]} {done}/{total}" if total else new[0]
        if new != self.said and (turned or complete or now - self.said_at >= LINE_SECONDS):
            print(words, file=sys.stderr, flush=True)
            self.said, self.said_at, self.since = new, now, now
        elif new == self.said and now - self.said_at >= SAME_SECONDS:
            print(f"{words} for {(now - self.since) / 60:.0f} min", file=sys.stderr, flush=True)
            self.said_at = now


def _words(label: str) -> str:
    return re.sub(r"\d+", "", label)
