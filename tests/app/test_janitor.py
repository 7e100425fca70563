"""app/janitor.py: leftovers of killed processes go, everything a row names stays."""

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import jobs, keys, queries
from app.access import api_keys
from app.blobs import Blobs, _untouched_since
from app.database import Database
from app.janitor import GRACE, remove_old_jobs, tidy
from app.service import Service
from app.settings import Settings
from app.tables import IdempotencyKey, Job, KeyUsage, Pool, PoolImage, PoolLatent, Worker
from models.pixels import sha256 as sha256_of
from tests.evaluations import finished_synthesis, send
from tests.key_holders import make_key
from tests.serving import claim, finish, guide_files, make_sample, plan, statements_of, stored, submit

LATER = datetime.now(UTC) + 2 * GRACE  # when everything the tests write is old


def tidied(service: Service, now: datetime = LATER, retention_days: float | None = None) -> dict[str, int]:
    removed = tidy(service.database, service.blobs, retention_days, now)
    return {what: count for what, count in removed.items() if count}


def test_what_rows_name_stays(client: httpx.Client, service: Service, pool: str) -> None:
    submit(client, pool, top_k=2)
    finish(service, pool, 2, b"the zip")
    submit(client, pool, top_k=2)
    before = stored(service)
    assert tidied(service) == {}
    assert stored(service) == before


def test_blobs_of_a_job_that_never_was_go_when_no_request_can_still_be_at_it(service: Service) -> None:
    """The API was killed between the blobs and the commit."""
    for key in (keys.guide("f" * 32, "a" * 64), keys.upload("e" * 32, 0), keys.archive("d" * 32)):
        service.blobs.put(key, b"x")
    assert tidied(service, datetime.now(UTC) + timedelta(hours=23)) == {}
    assert tidied(service) == {"blobs of jobs": 3}
    assert list(service.blobs.list("jobs/")) == []


def test_a_sample_written_by_a_worker_killed_before_its_commit_goes_when_the_job_has_ended(
    client: httpx.Client, service: Service, pool: str
) -> None:
    job_id = submit(client, pool, top_k=2)["id"]
    plan(service, pool, 2)
    sampling = claim(service)
    mask = b"the mask, moved"
    kept = make_sample(service, sampling, 0, mask)
    service.blobs.put(keys.sample(job_id, "c" * 64), b"no row names it")
    service.blobs.put(keys.dataset(job_id), b"packaged, never committed")
    assert tidied(service) == {}, "a job under way keeps everything"
    with service.database.write() as session:
        jobs.fail(session, sampling, "enough")
    assert tidied(service) == {"blobs of jobs": 2}
    assert {keys.sample(job_id, sha256) for sha256 in (kept, sha256_of(mask))} <= set(service.blobs.list())


def test_what_a_job_under_way_alone_needs_goes_when_it_has_ended(client: httpx.Client, service: Service) -> None:
    answer = client.post("/pools/default/images", files={"images": ("a.png", b"pixels")})
    job_id = answer.json()["id"]
    for key in (keys.archive(job_id), keys.original(job_id, "a" * 64), keys.matches(job_id, 0)):
        service.blobs.put(key, b"x")
    assert tidied(service) == {}
    assert client.post(f"/jobs/{job_id}/cancel").status_code == 202
    assert tidied(service) == {"blobs of jobs": 4}


def test_of_an_evaluation_that_has_ended_the_checkpoints_go_and_its_images_stay(
    client: httpx.Client, service: Service, pool: str
) -> None:
    job = send(client, finished_synthesis(client, service, pool)).json()
    images = set(service.blobs.list(f"jobs/{job['id']}/"))
    assert len(images) == 8, "two real images, two test images and their masks"
    for key in (keys.checkpoint(job["id"], 0), keys.arm(job["id"], 1)):
        service.blobs.put(key, b"half trained")
    assert tidied(service) == {}
    assert client.post(job["links"]["cancel"]).json()["status"] == "cancelled"
    assert tidied(service) == {"blobs of jobs": 2}
    assert set(service.blobs.list(f"jobs/{job['id']}/")) == images


@pytest.mark.parametrize("days", [0.0, 1e6, float("inf"), float("nan")])
def test_a_retention_that_leads_out_of_the_calendar_is_refused_at_the_start(days: float) -> None:
    with pytest.raises(ValidationError, match="retention_days"):
        Settings(retention_days=days)


def test_images_and_latents_without_a_row_go_unless_a_job_uses_the_pool(
    client: httpx.Client, service: Service, pool: str
) -> None:
    with service.database.write() as session:
        pool_id = session.scalars(select(Pool.id).where(Pool.name == pool)).one()
        image = session.scalars(select(PoolImage).where(PoolImage.pool_id == pool_id)).first()
        assert image is not None
        latent = {"shard": "5" * 64, "row": 0, "low": 0.0, "high": 1.0}
        session.add(PoolLatent(pool_image_id=image.id, model_sha256="0" * 64, **latent))
    service.blobs.put(keys.latents(pool_id, "0" * 64, "5" * 64), b"a row names it")
    service.blobs.put(keys.latents(pool_id, "0" * 64, "6" * 64), b"no row")
    service.blobs.put(keys.pool_image(pool_id, "7" * 64), b"no row")
    service.blobs.put(keys.pool_image("8" * 32, image.sha256), b"no such pool")
    assert tidied(service, datetime.now(UTC)) == {}, "whoever wrote them may be about to write the rows"
    job_id = submit(client, pool)["id"]
    before = stored(service)
    assert tidied(service) == {"blobs of pools": 1}
    client.post(f"/jobs/{job_id}/cancel")
    assert tidied(service) == {"blobs of pools": 2}
    gone = {
        keys.latents(pool_id, "0" * 64, "6" * 64),
        keys.pool_image(pool_id, "7" * 64),
        keys.pool_image("8" * 32, image.sha256),
    }
    assert before[1] - stored(service)[1] == gone


def test_the_samples_of_a_large_job_are_not_looked_through_for_every_blob(service: Service, finished: str) -> None:
    assert service.blobs.exists(keys.dataset(finished))
    with statements_of(service, "FROM samples") as asked:
        assert tidied(service) == {}
    with service.database.engine.connect() as connection:
        plans = [connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}", given).all() for query, given in asked]
    assert [row[3] for (row,) in plans] == [
        "SEARCH samples USING INDEX samples_by_image (image_sha256=?)",
        "SEARCH samples USING INDEX samples_by_mask (mask_sha256=?)",
    ]


def test_of_a_pool_of_images_alone_no_latents_are_looked_through(service: Service, pool: str) -> None:
    assert pool == "held"
    with statements_of(service, "pool_latents") as asked:
        assert tidied(service) == {}
    assert asked == []


def test_dead_workers_old_idempotency_keys_and_what_was_used_long_ago_are_forgotten(
    client: httpx.Client, service: Service, pool: str
) -> None:
    for name in ("old", "new"):
        given = {"data": {"pool": pool, "top_k": "1"}, "files": guide_files()}
        assert client.post("/synthesize", headers={"Idempotency-Key": name}, **given).status_code == 202
    now, prefix = datetime.now(UTC), api_keys.prefix_of(make_key(service))
    with service.database.write() as session:
        session.get_one(IdempotencyKey, ("default", "old")).created_at = now - timedelta(days=31)
        for name, days in (("dead", 2), ("alive", 0)):
            seen_at = now - timedelta(days=days)
            session.add(Worker(id=name, device="cpu", models=[], seen_at=seen_at))
        for day in (now.date() - timedelta(days=31), now.date()):
            session.add(KeyUsage(prefix=prefix, day=day, bytes=1, samples=0))
    assert tidied(service, now) == {"outdated rows": 3}
    with service.database.read() as session:
        assert session.scalars(select(IdempotencyKey.key)).all() == ["new"]
        assert session.scalars(select(Worker.id)).all() == ["alive"]
        assert session.scalars(select(KeyUsage.day)).all() == [now.date()]


def test_jobs_past_their_retention_go_with_all_they_made_the_zips_first(
    client: httpx.Client, service: Service, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = []
    for _ in range(2):
        submit(client, pool, top_k=2)
        ended.append(finish(service, pool, 2, b"the zip"))
    running = submit(client, pool)["id"]
    gone: list[str] = []
    delete = Blobs.delete
    monkeypatch.setattr(Blobs, "delete", lambda self, *keys: (gone.extend(keys), delete(self, *keys))[1])
    assert remove_old_jobs(service.database, service.blobs, datetime.now(UTC) - timedelta(days=1)) == 0
    assert gone == []
    assert tidied(service, datetime.now(UTC) + timedelta(days=8), 7) == {"jobs past their retention": 2}
    assert gone[:2] == [keys.dataset(job_id) for job_id in ended]
    with service.database.read() as session:
        assert session.scalars(select(Job.id)).all() == [running]
    assert {key.split("/")[1] for key in service.blobs.list("jobs/")} == {running}


def test_a_synthesis_past_its_retention_stays_while_an_evaluation_trains_on_it(
    client: httpx.Client, service: Service, pool: str
) -> None:
    synthesis = finished_synthesis(client, service, pool)
    evaluation = send(client, synthesis).json()
    late = datetime.now(UTC) + timedelta(days=8)
    assert tidied(service, late, 7) == {}
    assert client.get(f"/jobs/{synthesis}/dataset").status_code == 200
    assert client.post(evaluation["links"]["cancel"]).json()["status"] == "cancelled"
    assert tidied(service, late, 7) == {"jobs past their retention": 2}


def test_a_synthesis_past_its_retention_stays_whole_for_an_evaluation_that_comes_in_meanwhile(
    client: httpx.Client, service: Service, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    synthesis = finished_synthesis(client, service, pool)
    found = queries.ended_before

    def then_evaluated(session: Session, moment: datetime) -> Sequence[str]:
        expired = found(session, moment)
        if synthesis in expired:
            assert send(client, synthesis).status_code == 202
        return expired

    monkeypatch.setattr(queries, "ended_before", then_evaluated)
    assert tidied(service, datetime.now(UTC) + timedelta(days=8), 7) == {}
    assert client.get(f"/jobs/{synthesis}/dataset").status_code == 200


def test_halves_of_files_left_by_a_killed_writer_go(tmp_path: Path, db: Database) -> None:
    blobs = Blobs(f"file://{tmp_path / 'blobs'}")
    blobs.put("jobs/1/guides/a.png", b"whole")
    half = tmp_path / "blobs" / "jobs" / "1" / "dataset.zip#1"
    half.write_bytes(b"half")
    assert list(blobs.list()) == ["jobs/1/guides/a.png"], "a half is never listed"
    assert tidy(db, blobs, None, datetime.now(UTC))["unfinished files"] == 0
    assert tidy(db, blobs, None, LATER)["unfinished files"] == 1
    assert not half.exists()
    assert list(blobs.list()) == [], "nor is there a job 1"


def test_folders_that_go_while_it_looks_for_unfinished_files_are_passed_over(
    blobs: Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    halves = [tmp_path / "blobs" / "jobs" / job / "dataset.zip#1" for job in ("1", "2", "3")]
    for half in halves:
        half.parent.mkdir(parents=True)
        half.write_bytes(b"half")
    looked = _untouched_since

    def look_while_others_go(file: Path, moment: datetime) -> bool:
        for other in {half.parent for half in halves} - {file.parent}:
            shutil.rmtree(other, ignore_errors=True)
        return looked(file, moment)

    monkeypatch.setattr("app.blobs._untouched_since", look_while_others_go)
    assert blobs.remove_unfinished(LATER) == 1
    assert not any(half.exists() for half in halves)
