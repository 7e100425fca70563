"""Where a command is to write what it makes, and what it says of it."""

import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cli.failure import Failure
from cli.held import held
from models.sharing import named


def beside(out: Path) -> Path:
    """The folder of caches, checkpoints and curves: beside the weights, never among them. Raises Failure."""
    if out.name in ("", ".."):
        raise Failure(f"--out {out}: the weights take the name of their folder; give it by its name, as weights/mine")
    return out.with_name(f"{out.name}.training")


@contextmanager
def only_training(out: Path) -> Iterator[None]:
    """Keep other trainings out of `beside(out)`: they would overwrite these checkpoints. Raises Failure."""
    folder = beside(out)
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder / "lock", "another training", f"is at work for --out {out}: stop it, or choose another --out"):
        yield


def check_new_file(out: Path) -> None:
    """Raises Failure where `out` is there already or could not be written: now, not when the work is done."""
    if not out.absolute().parent.is_dir():
        raise Failure(f"--out {out}: the folder {out.parent} is not there; make it first")
    _check_new(out)


def check_new_folder(out: Path) -> None:
    """As `check_new_file`, but folders above may be missing; also where the one that `filled` begins with is there."""
    _check_new(out)
    if (aside := _aside(out)).exists():
        raise Failure(f"{aside} is there already, perhaps left by a command that was killed; remove it")


def _check_new(out: Path) -> None:
    if out.exists():
        raise Failure(f"--out {out} is there already; choose another name or remove it")
    folder = next(parent for parent in out.absolute().parents if parent.exists())
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise Failure(f"--out {out}: {folder} cannot be written ({error.strerror}); choose another folder") from None


@contextmanager
def filled(out: Path) -> Iterator[Path]:
    """A new folder to fill, beside `out`, which it becomes at the end: a failure and Ctrl-C leave nothing."""
    check_new_folder(out)
    aside = _aside(out)
    aside.mkdir(parents=True)
    try:
        with named(out):
            yield aside
    except BaseException:
        shutil.rmtree(aside)
        raise
    aside.rename(out)


def in_a_line(facts: Mapping[str, object]) -> str:
    """`steps 2000, psnr 38.7`: what a manifest tells of a training, but for what is nested there."""
    return ", ".join(f"{name} {value}" for name, value in facts.items() if not isinstance(value, dict))


def next_command(*words: object) -> str:
    """What to type next, as a shell takes it."""
    return f"next: {shlex.join(map(str, words))}"


def serving(weights: Path) -> str:
    """The next command where weights are ready."""
    return f"next: PANSYNTH_WEIGHTS_DIR={shlex.quote(str(weights.parent))} pansynth up"


def _aside(out: Path) -> Path:
    return out.with_name(f"{out.name}.new")
