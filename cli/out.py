"""Where a command is to write what it makes."""

import tempfile
from pathlib import Path

from cli.failure import Failure


def check_new(out: Path) -> None:
    """Raises Failure where `out` is there already or could not be written: now, not when the work is done."""
    if out.exists():
        raise Failure(f"--out {out} is there already; choose another name or remove it")
    folder = next(parent for parent in out.absolute().parents if parent.exists())
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise Failure(f"--out {out}: {folder} cannot be written ({error.strerror}); choose another folder") from None
