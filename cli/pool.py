"""`pansynth pool`: the unlabeled images."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.failure import Failure

if TYPE_CHECKING:
    import httpx

    from cli.client import File

app = typer.Typer(help="Pools of unlabeled images.", no_args_is_help=True)

Url = Annotated[str, typer.Option(help="Where the service is.")]
DEFAULT_URL = "http://127.0.0.1:8000"
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".dcm", ".dicom"})
BATCH_FILES = 100
BATCH_BYTES = 50_000_000


@app.callback()
def pool() -> None:
    """Keeps `import` a subcommand: typer would make the only command the group itself."""


@app.command("import")
def import_(
    name: Annotated[str, typer.Argument(help="The pool; made if it is not there.")],
    paths: Annotated[list[Path], typer.Argument(help="Image files, folders of them (with all below), zip files.")],
    region: Annotated[str, typer.Option(help="none, or crop: keep the tooth-bearing jaw alone.")] = "none",
    url: Url = DEFAULT_URL,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Upload unlabeled images into a pool; bad files are listed, good ones go in."""
    from cli.client import connect
    from cli.progress import progress

    files = list(_files(paths))
    with connect(url) as client, progress("importing") as show:
        outcome = import_files(client, name, files, show, region)
    _report(name, outcome, as_json)


def import_files(
    client: "httpx.Client", name: str, files: "Sequence[File]", show: Callable[..., None], region: str = "none"
) -> dict[str, Any]:
    """Upload `files` in batches, each a job: {"stored", "duplicates", "rejected": [{"name", "detail"}]}."""
    from cli.client import submit, wait

    _make_pool(client, name)
    outcome: dict[str, Any] = {"stored": 0, "duplicates": 0, "rejected": []}
    sent = 0
    for batch in _batches(files):

        def show_all(done: int, total: int, label: str | None = None, sent: int = sent) -> None:  # noqa: ARG001
            show(sent + min(done, len(batch)), len(files))  # noqa: B023

        job = wait(client, submit(client, f"/pools/{name}/images", batch, {"region": region}), show_all)
        outcome["stored"] += job["stored"]
        outcome["duplicates"] += job["duplicates"]
        outcome["rejected"] += job["rejected"]
        sent += len(batch)
        show(sent, len(files))
    return outcome


def _make_pool(client: "httpx.Client", name: str) -> None:
    from cli.client import answer_of

    if client.get(f"/pools/{name}").status_code == 404:
        answer_of(client, "POST", "/pools", json={"name": name})


def _files(paths: Sequence[Path]) -> "Iterator[File]":
    """The files under `paths` by the names they get. Raises Failure for a path that holds none."""
    for path in paths:
        if path.is_dir():
            found = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in SUFFIXES and file.is_file()]
            if not found:
                raise Failure(f"{path}: no image under this folder; known endings: {', '.join(sorted(SUFFIXES))}")
            yield from (("images", file.relative_to(path).as_posix(), file) for file in found)
        elif path.is_file():
            yield ("archive" if path.suffix.lower() == ".zip" else "images", path.name, path)
        else:
            raise Failure(f"{path}: no such file or folder")


def _batches(files: "Sequence[File]") -> "Iterator[list[File]]":
    """Requests of a size that any service takes; an archive goes alone."""
    batch: list[File] = []
    size = 0
    for file in files:
        field, _, path = file
        bytes_ = path.stat().st_size
        if batch and ("archive" in (field, batch[-1][0]) or len(batch) == BATCH_FILES or size + bytes_ > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += bytes_
    if batch:
        yield batch


def _report(name: str, outcome: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"pool": name, **outcome}))
        return
    rejected = outcome["rejected"]
    typer.echo(
        f"pool {name}: {outcome['stored']} images stored, {outcome['duplicates']} were there already, "
        f"{len(rejected)} rejected"
    )
    for bad in rejected:
        typer.echo(f"  {bad['name']}: {bad['detail']}")
