"""app/sweeper.py: what an API does by itself."""

from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from app.settings import Settings
from app.tables import Step
from tests.serving import claim, serving
from tests.waiting import until


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
        until(lambda: onlooker.execute(tidying).fetchone() is not None)
        job = served.client.post("/pools/default/images", files={"images": ("a.png", b"x")}).json()
        claimed = claim(served.service)
        assert served.client.post(job["links"]["cancel"]).json()["status"] == "cancelling"
        with served.service.database.write() as session:  # its worker was killed
            session.get_one(Step, claimed.step_id).leased_until = datetime(2020, 1, 1, tzinfo=UTC)
        until(lambda: served.client.get(job["links"]["self"]).json()["status"] == "cancelled")
        assert onlooker.execute(tidying).fetchone() is not None
        other.rollback()
