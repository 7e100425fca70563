"""The `pansynth` command."""

import typer

from cli import demo, evaluate, fleet, keys, phantoms, pool, reproduce, split, synthesize, train, up
from cli.failure import Failure

app = typer.Typer(
    name="pansynth",
    help="Label-true synthetic augmentation of panoramic dental radiographs, as a service.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(up.up)
app.command()(fleet.serve)
app.command()(fleet.worker)
app.command()(fleet.migrate)
app.add_typer(keys.app, name="keys")
app.add_typer(pool.app, name="pool")
app.command()(synthesize.synthesize)
app.command()(evaluate.evaluate)
app.command()(demo.demo)
app.command()(phantoms.phantoms)
app.command()(split.split)
app.add_typer(train.app, name="train")
app.add_typer(reproduce.app, name="reproduce")


def main() -> None:
    """Entry point: a `Failure`, or a file that cannot be used, is a line on standard error and exit status 1."""
    try:
        app()
    except Failure as failure:
        typer.echo(f"pansynth: {failure}", err=True)
        raise SystemExit(1) from None
    except OSError as error:
        if error.strerror is None or error.filename is None:
            raise
        typer.echo(f"pansynth: {error.filename}: {error.strerror}", err=True)
        raise SystemExit(1) from None
