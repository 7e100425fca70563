"""The SQL database: SQLite in WAL mode, or PostgreSQL; by URL, and nothing else differs."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from sqlalchemy import URL, Connection, Engine, ExceptionContext, Table, create_engine, event, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import InterfaceError, OperationalError, TimeoutError
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from app.tables import Base

AWAY = (OperationalError, InterfaceError, TimeoutError)  # what is raised where the database does not answer
READ_ONLY = "25006"  # PostgreSQL's code for it
HIDE = True  # errors go to the logs, and a statement's values hold the names of files
WRITING = {"pansynth_writing": True}
# A PostgreSQL server that has vanished is given up within a minute; by TCP's own rules that may take two hours. What
# the URL itself says of these comes first.
PATIENCE = {
    "connect_timeout": "10",  # s
    "tcp_user_timeout": "30000",  # ms
    "keepalives_idle": "30",  # s, as the next
    "keepalives_interval": "10",
    "keepalives_count": "3",
}
MIGRATIONS_LOCK = 0x70616E73  # any constant: the advisory lock under which PostgreSQL's schema is changed


class OfNewerVersion(ValueError):
    """The schema is at a revision that this version does not know."""


@dataclass(frozen=True)
class Database:
    """Where sessions come from: `read()` for looking, `write()` for a transaction that commits at the end."""

    engine: Engine
    tenant: str | None = None  # whose rows the sessions see, see `app.access.tenants`; None: the house's

    def of(self, tenant: str) -> "Database":
        """The same database as one tenant sees it."""
        return replace(self, tenant=tenant)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for looking, at one moment however many its queries. Its rows stay readable afterwards."""
        with Session(self._looking, expire_on_commit=False, info={"tenant": self.tenant}) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session whose changes are committed at the end of the block, or all undone by an exception."""
        engine = self.engine.execution_options(**WRITING)
        about = {"tenant": self.tenant}
        with Session(engine, expire_on_commit=False, info=about) as session, session.begin():
            yield session

    @property
    def _looking(self) -> Engine:
        """SQLite's transactions see one moment anyway; PostgreSQL's do when asked."""
        if self.engine.dialect.name != "postgresql":
            return self.engine
        return self.engine.execution_options(isolation_level="REPEATABLE READ")

    def dispose(self) -> None:
        self.engine.dispose()


def connect(url: str | URL) -> Database:
    """Open a database; of a SQLite file the folder is made. Nothing is asked of the server yet."""
    address = make_url(url)
    if address.get_backend_name() == "sqlite":
        return Database(_connect_sqlite(address))
    if address.drivername in ("postgresql", "postgres"):
        address = address.set(drivername="postgresql+psycopg")
    address = address.set(query={**PATIENCE, **address.query})
    engine = create_engine(address, pool_pre_ping=True, hide_parameters=HIDE)
    event.listen(engine, "handle_error", _away_while_read_only)
    return Database(engine)


def migrate(url: str | URL, revision: str = "head") -> None:
    """Bring the schema up to date, or up to a revision; safe to run again, and by several processes at once.

    Raises OfNewerVersion.
    """
    from alembic import command  # imported here: only migrating needs it, and it is slow to load
    from alembic.config import Config
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", "app:migrations")
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    database = connect(url)
    try:
        with database.engine.execution_options(**WRITING).connect() as connection, _by_copying(connection).begin():
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATIONS_LOCK})
            for found in MigrationContext.configure(connection).get_current_heads():
                if found not in known:
                    raise OfNewerVersion(
                        f"its revision {found!r} is unknown here: it was made by a newer version of pansynth, or by "
                        "another program; install that version, or take another database"
                    )
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
    finally:
        database.dispose()


def _by_copying(connection: Connection) -> Connection:
    """Let SQLite change a table by copying it, dropping it and renaming the copy.

    With foreign keys enforced, the drop would delete every row that refers to it. It must be said before BEGIN.
    """
    if connection.dialect.name == "sqlite":
        cast(Any, connection.connection.driver_connection).execute("PRAGMA foreign_keys=OFF")
    return connection


def clock(session: Session) -> datetime:
    """The database's time, UTC: the one clock that all processes share, wherever they run and whatever theirs say."""
    if session.get_bind().dialect.name == "postgresql":
        now: datetime = session.execute(text("SELECT clock_timestamp()")).scalar_one()
        return now.astimezone(UTC)
    said: str = session.execute(text("SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')")).scalar_one()
    return datetime.fromisoformat(said).replace(tzinfo=UTC)


def insert_new(session: Session, entity: type[Base], rows: Sequence[Mapping[str, Any]]) -> int:
    """Insert the rows that break no unique constraint, leave the others. Returns how many were new."""
    if not rows:
        return 0
    table = cast(Table, entity.__table__)
    statement = dialect_of(session).insert(table).on_conflict_do_nothing().returning(*table.primary_key)
    return len(session.execute(statement, list(rows)).all())


def dialect_of(session: Session) -> Any:
    """SQLAlchemy's module for the session's database, whose `insert` knows what to do on a conflict."""
    return postgresql if session.get_bind().dialect.name == "postgresql" else sqlite


def _away_while_read_only(context: ExceptionContext) -> OperationalError | None:
    """PostgreSQL may be read-only for now, as a standby or because its provider found it too full. Pooled connections
    would stay so.
    """
    if getattr(context.original_exception, "sqlstate", None) != READ_ONLY:
        return None
    context.is_disconnect = True
    return OperationalError(context.statement, None, context.original_exception, HIDE)


def _connect_sqlite(address: URL) -> Engine:
    file = Path(address.database or "")
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file.touch(mode=0o600)  # SQLite would let everybody on the machine read it; its -wal and -shm follow suit
    engine = create_engine(address, hide_parameters=HIDE)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _entry: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # the driver leaves BEGIN to us
        for pragma in ("busy_timeout=30000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A writer takes the lock at once: one that read first would fail with "database is locked", not wait.
        writing = connection.get_execution_options().get("pansynth_writing")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    return engine
