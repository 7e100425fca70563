"""`pansynth serve`, `worker` and `migrate`: the parts of `pansynth up`, each for a machine of its own."""

import os
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.failure import Failure

if TYPE_CHECKING:
    from app.database import Database
    from app.settings import Settings

DataDir = Annotated[
    Path | None,
    typer.Option(help="Folder of the embedded store. Default: $PANSYNTH_DATA_DIR or pansynth-data."),
]
Host = Annotated[str, typer.Option(help="Address to bind; beyond loopback API keys are asked for.")]
CONNECTIONS = 65_536  # at most, with everything else that is open
# What `pansynth synthesize` and its like read, and what Kubernetes tells of Services whose names begin with pansynth.
OF_OTHERS = re.compile(r"PANSYNTH_(URL|API_KEY|(.+_)?SERVICE_(HOST|PORT.*)|(.+_)?PORT(_\d+_.+)?)")


def serve(
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    data_dir: DataDir = None,
    fd: Annotated[int | None, typer.Option(hidden=True, help="A listening socket to inherit.")] = None,
) -> None:
    """Answer HTTP. Needs a database, whose tables it makes, a broker, and workers elsewhere."""
    settings = guarded(settings_for(data_dir), host)
    _check_stores(settings)
    _hold_many_connections()
    import uvicorn

    from app.main import create_app
    from app.monitoring import logs

    logs.write(settings.log_format)
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        log_config=None,  # the server's lines look like ours
        host=host,
        port=port,
        ws="none",
        http="h11",  # which bounds the headers; httptools, taken where it is installed, does not
        lifespan="on",
        server_header=False,
        timeout_keep_alive=75,  # proxies keep theirs for 60 s, and would send a POST into a closing one
        timeout_graceful_shutdown=3,  # for transfers under way
    )
    server = uvicorn.Server(config)
    app.state.is_stopping = lambda: server.should_exit  # event streams end, and their clients go to another API
    # Once it has shut down the server raises Ctrl-C again: Python would then wait for the thread of a migration.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        server.run(sockets=None if fd is None else [socket.socket(fileno=fd)])
    except SystemExit:  # its log says why
        raise Failure(f"cannot listen on {host}:{port}; choose another --port, 0 for a free one") from None


def _hold_many_connections() -> None:
    """Take the file descriptors that the system grants: event streams hold theirs, and shells start with few."""
    import resource

    granted, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS if most == resource.RLIM_INFINITY else min(CONNECTIONS, most)
    if resource.RLIM_INFINITY != granted < wanted:
        with suppress(ValueError, OSError):  # macOS grants less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def worker(
    name: Annotated[
        str, typer.Option(help="Differs between the workers of a machine, stays the same over restarts.")
    ] = "worker",
    data_dir: DataDir = None,
) -> None:
    """Move jobs along: plan, sample, package. One process per device; takes no port."""
    settings = settings_for(data_dir)
    check_tables(settings)
    from celery.signals import worker_process_init, worker_shutting_down

    from cli.children import die_with

    # Before the worker's own start, which takes seconds: its parent may be killed meanwhile.
    parent = os.getpid()
    worker_process_init.connect(lambda **_: die_with(parent), weak=False)
    statuses = [0]
    worker_shutting_down.connect(lambda exitcode, **_: statuses.append(exitcode), weak=False)

    from worker.celery import app

    options = ["--pool=prefork", "--concurrency=1", "--queues=pansynth", "--loglevel=WARNING"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    banner = ["--quiet"] if settings.log_format == "json" else []  # which is no JSON
    app.worker_main([*banner, "worker", f"--hostname={name}@%h", *options, *quiet])
    raise typer.Exit(statuses[-1])  # which `worker_main` keeps to itself


def migrate(data_dir: DataDir = None) -> None:
    """Bring the database's tables to this version. Safe to repeat."""
    migrate_tables(settings_for(data_dir))


def migrate_tables(settings: "Settings") -> None:
    """Bring the database to this version. Raises Failure where it cannot be reached or is no database."""
    from app.database import migrate

    with _database_in_words(settings):
        migrate(settings.database())


def _check_stores(settings: "Settings") -> None:
    """Open the stores once; nothing is asked of them. Raises Failure naming the setting that is wrong."""
    from obstore.exceptions import BaseError

    from app.blobs import Blobs
    from app.database import connect

    with _database_in_words(settings):
        connect(settings.database()).dispose()
    try:
        Blobs(settings.blobs())
    except (BaseError, ValueError, OSError) as error:
        where = "PANSYNTH_BLOB_URL" if settings.blob_url else f"the blobs in {settings.data_dir}"
        raise Failure(f"{where}: {str(error).splitlines()[0]}") from error


@contextmanager
def _database_in_words(settings: "Settings") -> Iterator[None]:
    """A line that names the setting instead of a traceback: for no answer, no folder, no database of ours."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, ValueError, OSError) as error:
        where = "PANSYNTH_DATABASE_URL" if settings.database_url else f"the database in {settings.data_dir}"
        raise Failure(f"{where}: {str(error).splitlines()[0]}") from error


def settings_for(data_dir: Path | None) -> "Settings":
    """The environment's settings; --data-dir goes there too, so that whatever this process starts agrees.

    A misspelt one is told, not refused: who knows what else has variables of this prefix.
    """
    from pydantic import SecretStr, ValidationError

    from app.settings import Settings

    known = {f"PANSYNTH_{name.upper()}" for name in Settings.model_fields}
    for name in sorted(os.environ):
        if name.startswith("PANSYNTH_") and name not in known and not OF_OTHERS.fullmatch(name):
            typer.echo(f"pansynth: {name} is ignored, there is no such setting", err=True)
    if data_dir is not None:
        os.environ["PANSYNTH_DATA_DIR"] = str(data_dir.resolve())
    try:
        return Settings()
    except ValidationError as error:
        from app.problems import plain

        wrong = []
        for item in error.errors():
            name = str(item["loc"][0])
            # A wrong secret may still be nearly right, and a URL that names a user may hold a password.
            secret = Settings.model_fields[name].annotation is SecretStr or "@" in str(item["input"])
            shown = "what cannot be one" if secret else repr(item["input"])
            wrong.append(f"PANSYNTH_{name.upper()} is {shown}: {plain(item['msg'])}")
        raise Failure("; ".join(wrong)) from error


def guarded(settings: "Settings", host: str) -> "Settings":
    """The settings with keys required where `host` is reachable from other machines.

    Raises Failure where keys are required and could not be checked, or would let nobody in beyond loopback.
    """
    from app.webhooks.hosts import is_loopback

    loopback = is_loopback(host)
    if loopback and not settings.api_keys_required:
        return settings
    if not loopback and not _has_key(settings):
        raise Failure(
            f"--host {host} is reachable from other machines, so API keys are asked for, and there is none yet. "
            "Make one first: pansynth keys create NAME (see `pansynth keys create --help`), "
            "with the same --data-dir and settings; or bind to 127.0.0.1"
        )
    secret_for(settings)
    return settings.model_copy(update={"api_keys_required": True})


def secret_for(settings: "Settings") -> bytes:
    """The secret under which keys are hashed. Raises Failure where it is missing or too short."""
    from app.access.secret import BadSecret, secret_of

    try:
        return secret_of(settings)
    except BadSecret as error:
        raise Failure(str(error)) from error


def _has_key(settings: "Settings") -> bool:
    """Whether a key is there that is good now. Raises Failure without a database."""
    from app.access import api_keys

    with _database_in_words(settings), _as_it_is(settings) as database:
        if database is None:
            return False
        with database.read() as session:
            return api_keys.any_active(session)


def check_tables(settings: "Settings") -> None:
    """Raises Failure where nothing has made the service's tables yet, as where --data-dir is another folder."""
    with _database_in_words(settings), _as_it_is(settings) as database:
        if database is None:
            raise ValueError(
                "pansynth has no tables there; give the service's own --data-dir and settings, or make the tables: "
                "pansynth migrate"
            )


@contextmanager
def _as_it_is(settings: "Settings") -> "Iterator[Database | None]":
    """The database; None where it lacks our tables. Nothing is made by asking, as connecting to SQLite would."""
    from sqlalchemy import inspect, make_url

    from app.database import connect

    address = make_url(settings.database())
    if address.get_backend_name() == "sqlite" and not Path(address.database or "").exists():
        yield None
        return
    database = connect(settings.database())
    try:
        yield database if inspect(database.engine).has_table("api_keys") else None
    finally:
        database.dispose()
