"""`pansynth job`: what the service is at, and what it has made."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.out import check_new_file
from cli.pool import DEFAULT_URL, Url, tell_all
from cli.progress import progress

app = typer.Typer(help="Jobs: imports, syntheses and evaluations.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help="Of the job, as `job list` shows it.")]


@app.command("list")
def list_(
    url: Url = DEFAULT_URL, as_json: Annotated[bool, typer.Option("--json", help="Print the jobs as JSON.")] = False
) -> None:
    """The jobs, the newest first: id, status, progress, time, kind."""
    tell_all(url, "/jobs", as_json, _line)


def _line(job: dict[str, Any]) -> str:
    far = f"{job['progress']['done']}/{job['progress']['total']}"
    return f"{job['id']}  {job['status']:10}  {far:>15}  {job['created_at'][:19]}Z  {job['kind']}"


@app.command()
def show(job_id: Id, url: Url = DEFAULT_URL) -> None:
    """All that the service says of a job, as JSON."""
    from cli.client import answer_of, connect, job_path

    with connect(url) as client:
        typer.echo(json.dumps(answer_of(client, "GET", job_path(job_id)).json(), indent=2))


@app.command()
def cancel(job_id: Id, url: Url = DEFAULT_URL) -> None:
    """Stop a job that has not ended."""
    from cli.client import answer_of, connect, job_path

    with connect(url) as client:
        job = answer_of(client, "POST", f"{job_path(job_id)}/cancel").json()
    typer.echo(f"job {job['id']} is {job['status']}")  # cancelling, until its workers have heard of it


@app.command()
def delete(job_id: Id, url: Url = DEFAULT_URL) -> None:
    """Remove a job that has ended, and all it made."""
    from cli.client import answer_of, connect, job_path

    with connect(url) as client:
        answer_of(client, "DELETE", job_path(job_id))
    typer.echo(f"job {job_id} is removed")


@app.command()
def download(
    job_id: Id,
    out: Annotated[Path, typer.Option(help="The zip to write; must not be there yet.")] = Path("dataset.zip"),
    url: Url = DEFAULT_URL,
) -> None:
    """Fetch the dataset of a synthesis, and check every file."""
    from cli.client import connect, download, job_path
    from cli.dataset import verify

    check_new_file(out)
    with connect(url) as client, progress("dataset") as show:
        download(client, f"{job_path(job_id)}/dataset", out, lambda done, total: show(done, total, "bytes"))
    count = verify(out)
    typer.echo(f"{count} sample{'s' if count != 1 else ''} in {out}")
