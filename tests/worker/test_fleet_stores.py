"""The stores of a fleet: PostgreSQL, a bucket, and a broker on a port. Only the addresses differ."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app import database
from app.janitor import GRACE, tidy
from app.settings import Settings
from models.phantoms import Phantom
from tests.worker_service import dataset, fill_pool, submit, work_off
from worker import planning
from worker.workplace import Workplace, open_workplace


def make_dataset(radiographs: Sequence[Phantom], *places: Workplace) -> bytes:
    fill_pool(places[0], radiographs[2:8])
    job_id = submit(places[0], radiographs[:2])
    work_off(*places)
    return dataset(places[0], job_id)


def test_a_fleets_stores_give_the_bytes_that_a_folder_gives(
    place: Workplace,
    settings: Settings,
    radiographs: Sequence[Phantom],
    postgres_url: str,
    broker_by_tcp: str,
    s3_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(planning, "CHUNK_CPU", 2)  # steps enough for two workers
    stores = {"database_url": postgres_url, "broker_url": broker_by_tcp, "blob_url": s3_url}
    database.migrate(postgres_url)
    fleet = [
        open_workplace(settings.model_copy(update={**stores, "data_dir": tmp_path / name}), f"{name}@test")
        for name in ("first", "second")
    ]
    assert make_dataset(radiographs, *fleet) == make_dataset(radiographs, place)
    assert not (tmp_path / "first" / "blobs").exists()
    before = sorted(fleet[0].blobs.list())
    tidy(fleet[0].database, fleet[0].blobs, None, datetime.now(UTC) + 2 * GRACE)
    assert sorted(fleet[0].blobs.list()) == before, "nothing is left over"
    tidy(fleet[0].database, fleet[0].blobs, 1, datetime.now(UTC) + timedelta(days=2))
    assert [key for key in fleet[0].blobs.list() if key.startswith("jobs/")] == []
    for one in fleet:
        one.database.dispose()
