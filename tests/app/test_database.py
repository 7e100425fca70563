"""app/database.py: both kinds of database, brought up to date and written to by several at once."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import func, select, text
from sqlalchemy.exc import OperationalError

from app import database, pools, queries
from app.database import Database, clock, insert_new
from app.errors import PoolNotFound
from app.tables import Base, IdempotencyKey, Pool, Step


def pool(name: str) -> Pool:
    return Pool(id=name, name=name, created_at=datetime.now(UTC))


def test_a_server_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(database.PATIENCE, "connect_timeout", "2")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        opened = database.connect(f"postgresql://nobody@127.0.0.1:{silent.getsockname()[1]}/none")
        with pytest.raises(OperationalError, match="timeout"), opened.read() as session:
            clock(session)


def test_how_soon_a_server_that_vanishes_is_given_up_is_the_urls_to_say(postgres_url: str) -> None:
    opened = database.connect(f"{postgres_url}&keepalives_idle=5")
    with opened.engine.connect() as connection:
        given = connection.connection.driver_connection.info.get_parameters()
    assert (given["keepalives_idle"], given["tcp_user_timeout"]) == ("5", database.PATIENCE["tcp_user_timeout"])
    opened.dispose()


def differences(opened: Database) -> list[object]:
    """By what its tables differ from those that the code expects."""
    with opened.engine.connect() as connection:
        return list(compare_metadata(MigrationContext.configure(connection), Base.metadata))


def test_the_migrations_make_the_tables_that_the_code_expects(db: Database) -> None:
    assert differences(db) == []


def test_migrating_again_and_by_several_at_once_changes_nothing(database_url: str, db: Database) -> None:
    with db.write() as session:
        session.add(pool("a"))
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: database.migrate(database_url), range(4)))
    assert differences(db) == []
    with db.read() as session:
        assert session.scalars(select(Pool.name)).all() == ["a"]


def test_an_empty_database_is_migrated_by_several_at_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'deep' / 'new.sqlite'}"
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: database.migrate(url), range(4)))
    opened = database.connect(url)
    assert differences(opened) == []
    opened.dispose()


def test_what_else_stops_a_migration_is_not_laid_to_a_newer_version(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="nonsense"):
        database.migrate(f"sqlite:///{tmp_path / 'new.sqlite'}", "nonsense")


def test_who_looks_sees_one_moment_whatever_is_written_meanwhile(db: Database) -> None:
    """A job and its rows in several queries, say, while the job is deleted."""
    with db.read() as looking:
        assert looking.scalars(select(Pool.name)).all() == []
        with db.write() as session:
            session.add(pool("meanwhile"))
        assert looking.scalars(select(Pool.name)).all() == []
    with db.read() as looking:
        assert looking.scalars(select(Pool.name)).all() == ["meanwhile"]
    with db.write() as session:
        assert session.scalars(select(Pool.name)).all() == ["meanwhile"]


def test_a_block_that_raises_writes_nothing(db: Database) -> None:
    with pytest.raises(ZeroDivisionError), db.write() as session:
        session.add(pool("a"))
        session.flush()
        raise ZeroDivisionError
    with db.read() as session:
        assert session.scalar(select(func.count()).select_from(Pool)) == 0


def test_writers_wait_for_one_another_and_lose_nothing(db: Database) -> None:
    start = threading.Barrier(8)

    def write(name: str) -> None:
        start.wait()
        for turn in range(5):
            with db.write() as session:
                session.execute(select(func.count()).select_from(Pool))
                session.add(pool(f"{name}-{turn}"))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, "abcdefgh"))
    with db.read() as session:
        assert session.scalar(select(func.count()).select_from(Pool)) == 40


def test_a_reader_is_not_held_up_by_a_writer(db: Database) -> None:
    with db.write() as writer:
        writer.add(pool("a"))
        writer.flush()
        with db.read() as reader:
            assert reader.scalars(select(Pool)).all() == []


def test_times_come_back_in_utc(db: Database) -> None:
    with db.write() as session:
        session.add(pool("a"))
    with db.read() as session:
        assert session.scalars(select(Pool)).one().created_at.tzinfo is UTC


def test_rows_that_are_there_already_are_left_as_they_are(db: Database) -> None:
    now = datetime.now(UTC)
    rows = [{"id": name, "name": name, "created_at": now} for name in "ab"]
    with db.write() as session:
        assert [insert_new(session, Pool, some) for some in (rows[:1], rows, rows, [])] == [1, 1, 0, 0]


def test_what_there_was_before_keys_belongs_to_the_default_tenant_and_nothing_is_lost(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    for url in (f"sqlite:///{tmp_path / 'old.sqlite'}", request.getfixturevalue("postgres_url")):
        database.migrate(url, "0002")
        opened = database.connect(url)
        now = "2026-01-01 00:00:00+00:00"
        with opened.write() as session:
            for statement in (
                f"INSERT INTO pools VALUES ('p', 'held', '{now}')",
                f"INSERT INTO pool_images VALUES (1, 'p', 'a.png', 5, 4, '{'a' * 64}', '{now}')",
                "INSERT INTO jobs (id, kind, status, parameters, pool_id, pool_high_water, done, total, version, "
                f"created_at) VALUES ('j', 'synthesis', 'queued', '{{}}', 'p', 1, 0, 1, 1, '{now}')",
                "INSERT INTO steps (job_id, kind, position, first, last, status, attempts) "
                "VALUES ('j', 'index', 0, 0, 1, 'ready', 0)",
                f"INSERT INTO idempotency_keys VALUES ('k', '{'f' * 64}', 'j', '{now}')",
            ):
                session.execute(text(statement))
        database.migrate(url)
        with opened.of("default").read() as session:
            assert pools.images(session, "held")[0][0].name == "a.png"
            job = queries.find_job(session, "j")
            assert (job.tenant, job.api_key, job.pool_id) == ("default", "", "p")
            assert session.get_one(IdempotencyKey, ("default", "k")).job_id == "j"
            assert session.scalars(select(Step.job_id)).all() == ["j"]
        with opened.of("other").read() as session, pytest.raises(PoolNotFound):
            pools.find(session, "held")
        opened.dispose()
