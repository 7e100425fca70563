"""`pansynth serve`, `worker` and `migrate`: the parts of `pansynth up`, each for a machine of its own."""

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.failure import Failure

if TYPE_CHECKING:
    from app.settings import Settings

DataDir = Annotated[
    Path | None,
    typer.Option(help="Folder of the embedded store. Default: $PANSYNTH_DATA_DIR or pansynth-data."),
]
AllowOpen = Annotated[bool, typer.Option("--allow-open", help="Bind beyond loopback although anybody may then use it.")]


def serve(
    host: Annotated[str, typer.Option(help="Address to bind.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    data_dir: DataDir = None,
    allow_open: AllowOpen = False,
    fd: Annotated[int | None, typer.Option(hidden=True, help="A listening socket to inherit.")] = None,
) -> None:
    """Answer HTTP; needs a migrated database, a broker and workers elsewhere."""
    refuse_open(host, allow_open)
    settings = settings_for(data_dir)
    import uvicorn

    from app.main import create_app

    config = uvicorn.Config(
        create_app(settings),
        **configured(settings),
        host=host,
        port=port,
        ws="none",
        lifespan="on",
        server_header=False,
        timeout_graceful_shutdown=3,  # event streams never end by themselves
    )
    uvicorn.Server(config).run(sockets=None if fd is None else [socket.socket(fileno=fd)])


def configured(settings: "Settings") -> dict[str, Any]:
    """Uvicorn's options for the logs that the settings ask for: as JSON they are ours, and it leaves them alone."""
    if settings.log_format == "text":
        return {}
    from app.logs import write_json

    write_json()
    return {"log_config": None}


def worker(
    name: Annotated[
        str, typer.Option(help="Differs between the workers of a machine, stays the same over restarts.")
    ] = "worker",
    data_dir: DataDir = None,
) -> None:
    """Move jobs along: plan, sample, package. One process per device; takes no port."""
    settings_for(data_dir)
    from celery.signals import worker_process_init

    from worker.celery import app

    worker_process_init.connect(_die_with_parent, weak=False)
    options = ["--pool=prefork", "--concurrency=1", "--queues=pansynth", "--loglevel=WARNING"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    app.worker_main(["worker", f"--hostname={name}@%h", *options, *quiet])


def migrate(data_dir: DataDir = None) -> None:
    """Create the database's tables or bring them to this version; safe to repeat."""
    settings = settings_for(data_dir)
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    migrate_tables(settings)


def migrate_tables(settings: "Settings") -> None:
    """Bring the database to this version. Raises Failure where it cannot be reached or is no database."""
    from sqlalchemy.exc import SQLAlchemyError

    from app.database import migrate

    try:
        migrate(settings.database())
    except SQLAlchemyError as error:
        where = "PANSYNTH_DATABASE_URL" if settings.database_url else f"the database in {settings.data_dir}"
        raise Failure(f"{where}: {str(error).splitlines()[0]}") from error


def settings_for(data_dir: Path | None) -> "Settings":
    """The environment's settings; --data-dir goes there too, so that whatever this process starts agrees."""
    import os

    from pydantic import ValidationError

    from app.settings import Settings

    if data_dir is not None:
        os.environ["PANSYNTH_DATA_DIR"] = str(data_dir.resolve())
    try:
        return Settings()
    except ValidationError as error:
        wrong = [
            f"PANSYNTH_{str(item['loc'][0]).upper()} is {item['input']!r}: {item['msg']}" for item in error.errors()
        ]
        raise Failure("; ".join(wrong)) from error


def refuse_open(host: str, allow_open: bool) -> None:
    """Raise `Failure` where `host` is reachable from other machines and nobody said that this is wanted."""
    import ipaddress

    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback and not allow_open:
        raise Failure(
            f"--host {host} is reachable from other machines, and API keys are not available yet: bind to "
            "127.0.0.1 and put a proxy with authentication in front, or say --allow-open in a closed network"
        )


def _die_with_parent(**_: object) -> None:
    from cli.children import die_with_parent

    die_with_parent()
