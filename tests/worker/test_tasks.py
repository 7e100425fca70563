"""worker/tasks.py, lease.py, heartbeat.py and networks.py."""

import json
import logging
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, text

from app import broker, queries
from app.errors import LeaseLost
from app.leases import PLAN
from app.monitoring.logs import JsonLines, about
from app.settings import Settings
from app.tables import Step
from models.phantoms import Phantom
from tests.threads import threads
from tests.tiny import make_tiny_weights
from tests.waiting import until
from tests.worker_service import (
    claim,
    dataset,
    failure,
    look,
    send_archive,
    submit,
    work_off,
    work_off_impatiently,
    work_until,
    workplace,
)
from worker import heartbeat, planning, tasks
from worker.heartbeat import Heartbeat
from worker.lease import Lease
from worker.networks import KEPT
from worker.planning import index
from worker.tasks import release_leases, work
from worker.workplace import Workplace


@pytest.fixture(scope="module")
def beginning(filled: Callable[[int], Path]) -> Path:
    return filled(3)


def steps(place: Workplace) -> Sequence[Step]:
    with place.database.read() as session:
        return session.scalars(select(Step)).all()


def test_with_nothing_to_do_a_wake_up_is_all_there_is(place: Workplace) -> None:
    assert not work(place)


def test_an_error_that_passes_is_tried_again_and_leaves_no_trace(
    place: Workplace, radiographs: Sequence[Phantom]
) -> None:
    job_id = submit(place, radiographs[:1], top_k=2)
    work_until(place, job_id, "packaging")
    cache = place.settings.data_dir / "cache"
    shutil.rmtree(cache)
    cache.write_text("a file where the folder should be")  # as a full or broken disk
    assert work(place)
    assert look(place, job_id).status == "running"
    (left,) = [step for step in steps(place) if step.kind == "package"]
    assert left.lease is None and left.leased_until is not None, "nobody holds it, and nobody may at once"
    cache.unlink()
    work_off_impatiently(place)
    assert dataset(place, job_id)


def test_a_job_that_an_earlier_version_began_to_align_is_finished(
    place: Workplace, radiographs: Sequence[Phantom]
) -> None:
    job_id = submit(place, radiographs[:1], top_k=1, align=True)
    with place.database.write() as session:
        for step in session.scalars(select(Step).where(Step.job_id == job_id)):
            assert step.kind == "index-5", "a worker of that version leaves this job to others"
            step.kind = "index-4"
    work_off(place)
    assert dataset(place, job_id)


def test_who_waits_for_the_database_is_not_taken_to_hang(
    place: Workplace, radiographs: Sequence[Phantom], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = replace(place, settings=place.settings.model_copy(update={"hung_seconds": 2.0}))
    job_id = submit(place, radiographs[:1], top_k=1)

    def rename(old: str, new: str) -> None:
        with place.database.write() as session:
            session.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))

    def meet_an_outage(place: Workplace, lease: Lease) -> int:
        rename("steps", "steps_away")
        threading.Timer(4.0, rename, ("steps_away", "steps")).start()
        return index(place, lease)

    hung: list[object] = []
    monkeypatch.setitem(tasks.DOING, "index", meet_an_outage)
    monkeypatch.setattr(tasks, "_end_hung", lambda *_: hung.append(1))
    assert work(place)
    assert not hung
    assert [step.attempts for step in steps(place)] == [0]
    assert look(place, job_id).status == "running"


def test_a_full_disk_is_waited_for_and_the_log_names_its_folder(
    place: Workplace, full_device: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: full_device.open("r+b", 0))
    job_id = send_archive(place, b"no zip")
    assert work(place)
    assert look(place, job_id).status == "running"
    assert f"No space left on device: '{place.cache}'" in caplog.text


def test_an_error_that_stays_fails_the_job_in_words(place: Workplace, radiographs: Sequence[Phantom]) -> None:
    place = replace(place, settings=place.settings.model_copy(update={"max_attempts": 1}))
    job_id = submit(place, radiographs[:1], top_k=2)
    work_until(place, job_id, "packaging")
    cache = place.settings.data_dir / "cache"
    shutil.rmtree(cache)
    cache.write_text("a file where the folder should be")
    work_off(place)
    words = failure(place, job_id)
    assert "FileExistsError; see the workers' logs" in words
    assert str(place.settings.data_dir) not in words, "where the worker has its files is nobody's business"


def test_weights_that_were_changed_fail_the_job_and_their_folder_stands_in_the_log_alone(
    place: Workplace, radiographs: Sequence[Phantom], caplog: pytest.LogCaptureFixture
) -> None:
    assert place.settings.weights_dir is not None
    folder = make_tiny_weights(place.settings.weights_dir / "changed")
    next(folder.glob("*/*.safetensors")).write_bytes(b"something else")
    job_id = submit(place, radiographs[:1], top_k=1, model="changed")
    work_off(place)
    words = failure(place, job_id)
    assert "the weights are incomplete or were changed" in words
    assert str(folder) not in words
    assert str(folder) in caplog.text


def test_without_a_broker_steps_are_done_all_the_same(settings: Settings, radiographs: Sequence[Phantom]) -> None:
    url = f"redis+socket://{settings.data_dir / 'nobody.sock'}"
    with workplace(settings.model_copy(update={"broker_url": url})) as place:
        job_id = submit(place, radiographs[:1], top_k=1)
        work_off(place)
        assert dataset(place, job_id)


def test_a_lease_is_renewed_while_its_step_is_worked_at(place: Workplace, radiographs: Sequence[Phantom]) -> None:
    submit(place, radiographs[:1], top_k=1)
    claimed = claim(place)
    before = steps(place)[0].leased_until
    with Lease(place.database, claimed, lease_seconds=3) as lease:
        until(lambda: steps(place)[0].leased_until != before)
        lease.check()
    assert steps(place)[0].leased_until < before, "it was of 9 s and is renewed for 3: so before 6 had passed"


def test_who_holds_a_lease_that_was_freed_is_told_soon(place: Workplace, radiographs: Sequence[Phantom]) -> None:
    submit(place, radiographs[:1], top_k=1)
    with Lease(place.database, claim(place), lease_seconds=30) as lease:
        release_leases(place)
        until(lease.over)
        with pytest.raises(LeaseLost):
            lease.check()
    assert [step.status for step in steps(place)] == ["ready"]


def test_a_worker_is_seen_while_it_lives_and_not_after(place: Workplace) -> None:
    def alive(later: float = 0) -> list[str]:
        with place.database.read() as session:
            return [w.id for w in queries.live_workers(session, datetime.now(UTC) + timedelta(seconds=later))]

    shown = Heartbeat(place).start()
    assert alive() == [place.name]
    assert alive(later=60) == []
    shown.stop()
    assert alive() == []


def test_a_worker_whose_cache_cannot_be_tidied_goes_on_showing_that_it_lives(
    place: Workplace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(heartbeat, "TIDY_SECONDS", 0.0)
    (place.settings.data_dir / "cache").write_text("a file where the folder should be")  # as a broken disk
    shown = Heartbeat(place).start()
    until(lambda: caplog.text.count("the cache could not be tidied up") > 1)
    shown.stop()


def test_its_signs_of_life_tell_what_it_has_counted(place: Workplace, radiographs: Sequence[Phantom]) -> None:
    submit(place, radiographs[:1])
    work_off(place)
    shown = Heartbeat(place).start()
    with place.database.read() as session:
        (seen,) = queries.live_workers(session, datetime.now(UTC))
    shown.stop()
    assert seen.figures is not None
    assert (seen.figures["samples"], seen.figures["gpu"]) == (3, None)
    assert seen.figures["steps"].keys() == {"index", PLAN, "sample", "package"}
    sampling = seen.figures["steps"]["sample"]
    assert sampling["buckets"][-1] == ["+Inf", 1]
    assert sampling["seconds"] > 0


def test_what_is_logged_of_a_step_names_its_job_whichever_thread_says_it(
    place: Workplace, radiographs: Sequence[Phantom]
) -> None:
    job_id = submit(place, radiographs[:1], top_k=1)
    said: list[str] = []

    def when_hung() -> None:
        said.append(json.loads(JsonLines().format(logging.makeLogRecord({"msg": "nothing moved"})))["job"])

    with about(job_id), Lease(place.database, claim(place), 30, hung_seconds=0.1, when_hung=when_hung):
        until(lambda: said)
    assert said[0] == job_id


def test_networks_stay_warm_and_only_a_few_of_them(place: Workplace) -> None:
    assert place.settings.weights_dir is not None
    first = place.networks.get("default")
    assert place.networks.get("default") is first
    for seed in range(KEPT):
        make_tiny_weights(place.settings.weights_dir / f"more-{seed}", seed=10 + seed)
        place.networks.get(f"more-{seed}")
    assert place.networks.names() == [f"more-{seed}" for seed in range(KEPT)]


def test_a_step_wakes_as_many_as_there_are_steps_to_claim_because_of_it(
    place: Workplace, radiographs: Sequence[Phantom], monkeypatch: pytest.MonkeyPatch
) -> None:
    def woken() -> int:
        before = broker.waiting(place.celery)
        assert work(place)
        return broker.waiting(place.celery) - before

    monkeypatch.setattr(planning, "CHUNK_CPU", 2)
    with threads(1):
        submit(place, radiographs[:2])
        assert [woken() for _ in range(6)] == [1, 3, 1, 1, 1, 1], "index, plan, three steps of two samples, package"
        submit(place, radiographs[:2])
        monkeypatch.setattr(tasks, "MAX_WAKES", 2)
        assert [woken() for _ in range(2)] == [1, 2]
