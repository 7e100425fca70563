"""`pansynth keys`: who may use the service. It writes to the database itself and needs no running service."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.failure import Failure
from cli.fleet import DataDir, check_tables, migrate_tables, secret_for, settings_for

if TYPE_CHECKING:
    from app.database import Database
    from app.settings import Settings
    from app.tables import ApiKey

app = typer.Typer(help="API keys: who may use the service.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
MOST, MOST_PER_DAY = 2**31 - 1, 2**63 - 1  # what the columns hold


class ScopeName(StrEnum):
    read = "read"
    submit = "submit"
    admin = "admin"


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Whom or what it is for; shown in lists.")],
    tenant: Annotated[str, typer.Option(help="Whose pools and jobs it sees; made by its first key.")] = "default",
    scope: Annotated[
        list[ScopeName] | None,
        typer.Option(
            help="Repeat. read: look and download; submit: everything else; "
            "admin: /metrics and /audit. Default: read and submit."
        ),
    ] = None,
    expires_days: Annotated[float | None, typer.Option(min=0, max=36_500, help="Default: never.")] = None,
    max_queued_jobs: Annotated[
        int | None, typer.Option(min=1, max=MOST, help="That wait or run at once. Default: the service's limit.")
    ] = None,
    max_bytes_per_day: Annotated[
        int | None, typer.Option(min=0, max=MOST_PER_DAY, help="Of uploads. Default: no limit.")
    ] = None,
    max_samples_per_day: Annotated[
        int | None, typer.Option(min=0, max=MOST_PER_DAY, help="Asked for. Default: no limit of samples.")
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it: this once, for only a hash of it is kept."""
    from app import pools
    from app.access import api_keys, audit
    from app.database import clock

    _check(name, tenant)
    settings = settings_for(data_dir)
    secret = secret_for(settings)
    with _database(settings) as database, database.of(tenant).write() as session:
        token, row = api_keys.create(
            session,
            secret,
            name=name,
            tenant=tenant,
            scopes=[one.value for one in scope or (ScopeName.read, ScopeName.submit)],
            limits=api_keys.Limits(max_queued_jobs, max_bytes_per_day, max_samples_per_day),
            expires_at=None if expires_days is None else clock(session) + timedelta(days=expires_days),
        )
        pools.create_first(session)
        audit.by_command(session, "keys create", tenant, row.prefix)
    if as_json:
        typer.echo(json.dumps({"key": token, **_told(row, row.created_at)}))
    else:
        typer.echo(token)
        where = "PANSYNTH_DATABASE_URL" if settings.database_url else settings.data_dir.resolve()
        typer.echo(f"the key of {name!r} for tenant {tenant}, in {where}: keep it, it is not shown again", err=True)


@app.command("list")
def list_(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Every key ever made, by its prefix."""
    from app.access import api_keys
    from app.database import clock

    settings = settings_for(data_dir)
    check_tables(settings)
    with _database(settings) as database, database.read() as session:
        now = clock(session)
        keys = [_told(row, now) for row in api_keys.list_(session)]
    if as_json:
        typer.echo(json.dumps(keys))
        return
    if not keys:
        typer.echo("there is no key yet; `pansynth keys create NAME` makes one", err=True)
    for key in keys:
        used = f"last used {_minute(key['last_used_at'])}" if key["last_used_at"] else "never used"
        bounds = [f"until {_minute(key['expires_at'])}"] if key["expires_at"] else []
        bounds += [f"{limit} {key[limit]}" for limit in vars(api_keys.Limits()) if key[limit] is not None]
        columns = (key["prefix"], f"{key['state']:8}", key["tenant"], ",".join(key["scopes"]), used, key["name"])
        typer.echo("  ".join(columns) + (f" ({', '.join(bounds)})" if bounds else ""))


@app.command()
def revoke(
    key: Annotated[
        str,
        typer.Argument(
            metavar="PREFIX", help="The key's beginning, pansynth_... as `keys list` shows it; or all of it."
        ),
    ],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Refuse a key from now on. Running services notice within 5 seconds; its jobs and pools stay."""
    from app.access import api_keys, audit
    from app.database import clock

    settings = settings_for(data_dir)
    check_tables(settings)
    prefix = "_".join(key.split("_")[:2])  # without the secret, which the words of a refusal must not repeat
    with _database(settings) as database, database.write() as session:
        try:
            row = api_keys.revoke(session, prefix)
        except api_keys.KeyNotFound as error:
            raise Failure(str(error)) from error
        audit.by_command(session, "keys revoke", row.tenant, row.prefix)
        told = _told(row, clock(session))
    typer.echo(json.dumps(told) if as_json else f"{told['prefix']} is revoked")


@contextmanager
def _database(settings: "Settings") -> "Iterator[Database]":
    """The service's database, with its tables in place."""
    from app.database import connect

    migrate_tables(settings)
    database = connect(settings.database())
    try:
        yield database
    finally:
        database.dispose()


def _minute(time: str) -> str:
    return f"{time[:16]} UTC"


def _check(name: str, tenant: str) -> None:
    from app.access.tenants import NAME, NAME_IN_WORDS

    if not (name.isprintable() and 0 < len(name) <= 63):
        raise Failure(f"{name[:80]!r} cannot be a key's name: give 1 to 63 printable characters")
    if not re.fullmatch(NAME, tenant):
        raise Failure(f"--tenant {tenant[:80]!r}: {NAME_IN_WORDS}")


def _told(row: "ApiKey", now: datetime) -> dict[str, Any]:
    """A key for people and programs: everything but its hash."""
    from app.access.api_keys import is_active, named

    columns = {column.key: getattr(row, column.key) for column in row.__table__.columns if column.key != "digest"}
    state = "revoked" if row.revoked_at else "active" if is_active(row, now) else "expired"
    told = columns | {"prefix": named(row.prefix), "state": state}
    return {key: value.isoformat() if isinstance(value, date) else value for key, value in told.items()}
