"""Where a command is to write what it makes."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cli.failure import Failure


def beside(out: Path) -> Path:
    """The folder of caches, checkpoints and curves: beside the weights, never among them."""
    return out.with_name(f"{out.name}.training")


def check_new(out: Path) -> None:
    """Raises Failure where `out` is there already or could not be written: now, not when the work is done."""
    if out.exists():
        raise Failure(f"--out {out} is there already; choose another name or remove it")
    folder = next(parent for parent in out.absolute().parents if parent.exists())
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise Failure(f"--out {out}: {folder} cannot be written ({error.strerror}); choose another folder") from None


def check_new_folder(out: Path) -> None:
    """As `check_new`, also where something is in the place in which `filled` is to make the folder."""
    check_new(out)
    if (aside := _aside(out)).exists():
        raise Failure(f"{aside} is there already, perhaps left by a command that was killed; remove it")


@contextmanager
def filled(out: Path) -> Iterator[Path]:
    """A new folder to fill, beside `out`, which it becomes at the end: a failure and Ctrl-C leave nothing."""
    check_new_folder(out)
    aside = _aside(out)
    aside.mkdir(parents=True)
    try:
        yield aside
    except BaseException:
        shutil.rmtree(aside)
        raise
    aside.rename(out)


def _aside(out: Path) -> Path:
    return out.with_name(f"{out.name}.new")
