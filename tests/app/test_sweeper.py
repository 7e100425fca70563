"""app/sweeper.py: what an API does by itself."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import update

from app import jobs
from app.settings import Settings
from app.tables import Step
from tests.serving import serving


def test_a_cancellation_is_completed_while_a_large_store_is_tidied(
    settings: Settings, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.sweeper.SWEEP_SECONDS", 0.2)
    monkeypatch.setattr("app.sweeper.TIDY_SECONDS", 0.2)  # it may have tidied once before the lock is taken
    given = settings.model_copy(update={"database_url": postgres_url, "data_dir": tmp_path})
    with serving(given) as served, psycopg.connect(postgres_url) as other, psycopg.connect(postgres_url) as onlooker:
        onlooker.autocommit = True
        other.execute("LOCK TABLE key_usage IN SHARE MODE")  # so tidying does not get on
        tidying = (
            "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'DELETE FROM key_usage%'"
        )
        wait_for(lambda: onlooker.execute(tidying).fetchone() is not None)
        job = served.client.post("/pools/default/images", files={"images": ("a.png", b"x")}).json()
        with served.service.database.write() as session:
            about = {"worker": "killed", "lease_seconds": 60.0, "max_attempts": 5}
            assert jobs.claim(session, now=datetime.now(UTC), **about) is not None
        assert served.client.post(job["links"]["cancel"]).json()["status"] == "cancelling"
        with served.service.database.write() as session:
            session.execute(update(Step).values(leased_until=datetime(2020, 1, 1, tzinfo=UTC)))  # the lease ran out
        wait_for(lambda: served.client.get(job["links"]["self"]).json()["status"] == "cancelled")
        assert onlooker.execute(tidying).fetchone() is not None
        other.rollback()


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
