"""app/sweeper.py: what an API does by itself."""

import signal
import threading
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from app import database
from app.settings import Settings
from app.tables import Step
from cli.children import pansynth
from tests.serving import Served, claim, serving
from tests.system.running import started
from tests.waiting import until

# Whether an API tidies up; it does not get on while somebody has locked the table.
TIDYING = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'DELETE FROM key_usage%'"
LOCK = "LOCK TABLE key_usage IN SHARE MODE"


def assert_a_dead_workers_cancellation_is_completed(served: Served) -> None:
    job = served.client.post("/pools/default/images", files={"images": ("a.png", b"x")}).json()
    claimed = claim(served.service)
    assert served.client.post(job["links"]["cancel"]).json()["status"] == "cancelling"
    with served.service.database.write() as session:  # its worker was killed
        session.get_one(Step, claimed.step_id).leased_until = datetime(2020, 1, 1, tzinfo=UTC)
    until(lambda: served.client.get(job["links"]["self"]).json()["status"] == "cancelled")


def test_a_cancellation_is_completed_while_a_large_store_is_tidied(
    settings: Settings, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.sweeper.SWEEP_SECONDS", 0.2)
    monkeypatch.setattr("app.sweeper.TIDY_SECONDS", 0.2)  # it may have tidied once before the lock is taken
    given = settings.model_copy(update={"database_url": postgres_url, "data_dir": tmp_path})
    with serving(given) as served, psycopg.connect(postgres_url) as other, psycopg.connect(postgres_url) as onlooker:
        onlooker.autocommit = True
        other.execute(LOCK)
        until(lambda: onlooker.execute(TIDYING).fetchone() is not None)
        assert_a_dead_workers_cancellation_is_completed(served)
        assert onlooker.execute(TIDYING).fetchone() is not None
        other.rollback()


def test_an_api_of_the_version_before_that_is_started_anew_in_an_upgrade_sweeps_on(
    settings: Settings, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.sweeper.SWEEP_SECONDS", 0.2)
    given = settings.model_copy(update={"database_url": postgres_url, "data_dir": tmp_path})
    database.migrate(postgres_url)
    with psycopg.connect(postgres_url, autocommit=True) as newer:
        newer.execute("UPDATE alembic_version SET version_num = '9999'")
    with serving(given) as served:
        assert_a_dead_workers_cancellation_is_completed(served)


def test_an_api_that_stops_waits_for_the_transaction_in_hand(
    settings: Settings, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.sweeper.SWEEP_SECONDS", 0.2)
    given = settings.model_copy(update={"database_url": postgres_url, "data_dir": tmp_path})
    database.migrate(postgres_url)
    with psycopg.connect(postgres_url) as other, psycopg.connect(postgres_url, autocommit=True) as onlooker:
        onlooker.execute("INSERT INTO workers VALUES ('gone', 'cpu', '[]', '2020-01-01', NULL)")
        other.execute(LOCK)
        with serving(given):
            until(lambda: onlooker.execute(TIDYING).fetchone() is not None)
            threading.Timer(0.7, other.rollback).start()
        assert onlooker.execute("SELECT id FROM workers").fetchall() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_api_that_waits_for_anothers_migration_can_be_stopped(
    postgres_url: str, broker_url: str, tmp_path: Path, number: signal.Signals
) -> None:
    waiting = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    given = {"PANSYNTH_DATABASE_URL": postgres_url, "PANSYNTH_BROKER_URL": broker_url}
    with psycopg.connect(postgres_url) as migrating, psycopg.connect(postgres_url, autocommit=True) as onlooker:
        migrating.execute(f"SELECT pg_advisory_xact_lock({database.MIGRATIONS_LOCK})")
        with started(pansynth("serve", "--port", "0"), given, tmp_path / "serve.log") as serving:
            until(lambda: onlooker.execute(waiting).fetchone() is not None)
            serving.send_signal(number)
            serving.wait(10)
