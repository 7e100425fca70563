"""The `pansynth` command."""

import io
import os
import sys

import typer

from cli import demo, evaluate, fleet, job, keys, phantoms, pool, reproduce, split, synthesize, train, up
from cli.failure import Failure, Interrupted

app = typer.Typer(
    name="pansynth",
    help="Label-true synthetic augmentation of panoramic dental radiographs, as a service.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich's tables cut long options off on a terminal of 80 columns
)
app.command()(up.up)
app.command()(fleet.serve)
app.command()(fleet.worker)
app.command()(fleet.migrate)
app.add_typer(keys.app, name="keys")
app.add_typer(pool.app, name="pool")
app.add_typer(job.app, name="job")
app.command()(synthesize.synthesize)
app.command()(evaluate.evaluate)
app.command()(demo.demo)
app.command()(phantoms.phantoms)
app.command()(split.split)
app.add_typer(train.app, name="train")
app.add_typer(reproduce.app, name="reproduce")


def main() -> None:
    """Entry point: a `Failure`, or a file that cannot be used, is a line on standard error and exit status 1.

    After Ctrl-C the status is 130, as shells have it.
    """
    # Read where torch is loaded. Threads that spin while they wait for one another take three to five times as long
    # where others use the machine, too, and are no faster where nobody does.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # NumPy's, too: after a product of large matrices they spin for 80 ms. Ours take one thread 3 ms.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if isinstance(sys.stdout, io.TextIOWrapper):  # as standard error does: a file's name may be beyond its encoding
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except Failure as failure:
        typer.echo(f"pansynth: {failure}", err=True)
        raise SystemExit(130 if isinstance(failure, Interrupted) else 1) from None
    except OSError as error:
        if error.strerror is None:
            raise
        where = "" if error.filename is None else f"{error.filename}: "  # standard output has none
        typer.echo(f"pansynth: {where}{error.strerror}", err=True)
        raise SystemExit(1) from None
