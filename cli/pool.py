"""`pansynth pool`: the unlabeled images."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.failure import Failure
from cli.progress import Show, progress

if TYPE_CHECKING:
    import httpx

    from cli.client import File

app = typer.Typer(help="Pools of unlabeled images.", no_args_is_help=True)

Url = Annotated[str, typer.Option(help="Where the service is.", envvar="PANSYNTH_URL")]
DEFAULT_URL = "http://127.0.0.1:8000"
BATCH_FILES = 100
BATCH_BYTES = 50_000_000


@app.command("import")
def import_(
    name: Annotated[str, typer.Argument(help="The pool; made if it is not there.")],
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="Image files, folders of them (with all below; of images/ alone where masks lie beside it), zip files."
        ),
    ],
    region: Annotated[str, typer.Option(help="none, or crop: keep the tooth-bearing jaw alone.")] = "none",
    url: Url = DEFAULT_URL,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Upload unlabeled images into a pool.

    Bad files are listed, good ones go in; it fails where all of them are bad.
    """
    from cli.client import connect

    files = list(_files(paths))
    jobs: list[dict[str, Any]] = []
    try:
        with connect(url) as client, progress("importing") as show:
            for job in _imports(client, name, files, show, region):
                jobs.append(job)
    finally:  # what a failure or Ctrl-C comes after has been stored
        if jobs:
            _report(name, _outcome(jobs), as_json)
    if not any(job["stored"] or job["duplicates"] for job in jobs):
        raise typer.Exit(1)


@app.command("list")
def list_(
    url: Url = DEFAULT_URL, as_json: Annotated[bool, typer.Option("--json", help="Print the pools as JSON.")] = False
) -> None:
    """The pools, and how many images each has."""
    tell_all(url, "/pools", as_json, lambda pool: f"{pool['image_count']:9,}  {pool['name']}")


@app.command()
def delete(name: Annotated[str, typer.Argument(help="The pool.")], url: Url = DEFAULT_URL) -> None:
    """Remove a pool and its images; the datasets made from it stay."""
    from cli.client import answer_of, connect, pool_path

    with connect(url) as client:
        answer_of(client, "DELETE", pool_path(name))
    typer.echo(f"pool {name} is removed")


def tell_all(url: str, path: str, as_json: bool, line: Callable[[dict[str, Any]], str]) -> None:
    """Every item of the service's list at `path`: a line each, or all as JSON."""
    from cli.client import connect, listed

    with connect(url) as client:
        found = list(listed(client, path))
    for words in [json.dumps(found)] if as_json else map(line, found):
        typer.echo(words)


def import_files(client: "httpx.Client", name: str, files: "Sequence[File]", show: Show) -> dict[str, Any]:
    """Upload `files` into a pool: {"stored", "duplicates", "rejected_count", "rejected": [{"name", "detail"}]}."""
    return _outcome(list(_imports(client, name, files, show)))


def _imports(
    client: "httpx.Client", name: str, files: "Sequence[File]", show: Show, region: str = "none"
) -> Iterator[dict[str, Any]]:
    """Upload `files` in batches, each a job; the jobs as they succeed."""
    from cli.client import pool_path, submit, wait

    _make_pool(client, name)
    sent, count = 0, len(files)
    for batch in _batches(files):

        def show_all(done: int, total: int, label: str | None = None) -> None:  # noqa: ARG001
            show(sent + done, count - len(batch) + max(total, len(batch)))  # noqa: B023

        job = wait(client, submit(client, f"{pool_path(name)}/images", batch, {"region": region}), show_all)
        sent += job["progress"]["done"]
        count += job["progress"]["total"] - len(batch)  # an archive may hold many files
        show(sent, count)
        yield job


def _outcome(jobs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of all jobs together; each names the first 1000 of its rejected files."""
    stored, duplicates = (sum(job[name] for job in jobs) for name in ("stored", "duplicates"))
    done = sum(job["progress"]["done"] for job in jobs)
    rejected = [bad for job in jobs for bad in job["rejected"]]
    return {
        "stored": stored,
        "duplicates": duplicates,
        "rejected_count": done - stored - duplicates,
        "rejected": rejected,
    }


def _make_pool(client: "httpx.Client", name: str) -> None:
    """Make the pool unless it is there, perhaps since a moment."""
    from cli.client import answer_of

    answer_of(client, "POST", "/pools", also=(409,), json={"name": name})


def _files(paths: Sequence[Path]) -> "Iterator[File]":
    """The files under `paths` by the names they get. Raises Failure for a path that holds none."""
    from models.splits import MANIFEST
    from models.training.images import SUFFIXES, image_paths

    for path in paths:
        if (path / MANIFEST).is_file():
            raise Failure(f"{path} holds all sets of `pansynth split`, those for tests, too; give {path / 'pool'}")
        if path.is_dir():
            if not (found := image_paths(path)):
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
    rejected, count = outcome["rejected"], outcome["rejected_count"]
    typer.echo(
        f"pool {name}: {outcome['stored']} image{'' if outcome['stored'] == 1 else 's'} stored, "
        f"{outcome['duplicates']} there already, {count} rejected"
    )
    for bad in rejected:
        typer.echo(f"  {bad['name']}: {bad['detail']}")
    if count > len(rejected):
        typer.echo(f"  and {count - len(rejected)} more")
