"""A job from its submission to its zip: the same bytes however many work at it, in whatever pieces."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from app import jobs, keys
from app.errors import LeaseLost
from app.records import Claim, MadeSample
from app.tables import Sample, Step
from models import pixels
from models.phantoms import Phantom
from tests.worker_service import claim, dataset, ends_after, look, manifest, members, submit, work_off, work_until
from worker import planning, sampling
from worker.lease import Lease
from worker.workplace import Workplace


@pytest.fixture(scope="module")
def beginning(filled: Callable[[int], Path]) -> Path:
    return filled(12)


def test_a_job_gives_a_zip_that_agrees_with_its_manifest(undisturbed: bytes, radiographs: Sequence[Phantom]) -> None:
    rows = manifest(undisturbed)
    assert [int(row["index"]) for row in rows] == list(range(6))
    files = members(undisturbed)
    assert list(files) == sorted(files)
    assert len(files) == 12 + 4
    for row in rows:
        assert pixels.sha256(files[row["image"]]) == row["image_sha256"]
        assert pixels.sha256(files[row["mask"]]) == row["mask_sha256"]
        guide = radiographs[int(row["guide_name"][6])]
        assert (pixels.mask_from_png(files[row["mask"]]) == guide.mask).all()


def test_two_workers_by_turns_in_uneven_pieces_leave_no_trace(
    place: Workplace,
    second_place: Workplace,
    radiographs: Sequence[Phantom],
    undisturbed: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(planning, "CHUNK_CPU", 4)
    monkeypatch.setattr(sampling, "TURN_CPU", 3)
    together = submit(place, radiographs[:2])
    work_off(second_place, place)
    assert dataset(place, together) == undisturbed


def test_a_step_done_by_two_at_once_counts_once(
    place: Workplace, second_place: Workplace, radiographs: Sequence[Phantom], undisturbed: bytes
) -> None:
    doubled = submit(place, radiographs[:2])
    work_until(place, doubled, "sampling")
    slow = claim(place)
    let_lease_run_out(place, slow)
    work_off(second_place)
    with pytest.raises(LeaseLost):
        sampling.make_samples(place, Lease(place.database, slow, 9))
    assert dataset(place, doubled) == undisturbed
    assert look(place, doubled).done == 6


def let_lease_run_out(place: Workplace, claimed: Claim) -> None:
    """As on a machine that stalls."""
    with place.database.write() as session:
        session.get_one(Step, claimed.step_id).leased_until = datetime(2020, 1, 1, tzinfo=UTC)


def test_workers_that_are_told_to_end_hand_their_steps_back_and_leave_no_trace(
    place: Workplace, radiographs: Sequence[Phantom], undisturbed: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "TURN_CPU", 1)
    job_id = submit(place, radiographs[:2])
    for looks in count(1, 3):
        ends_after(place, looks)
        with place.database.read() as session:
            left = session.scalars(select(Step).where(Step.job_id == job_id)).all()
        if look(place, job_id).status == "succeeded":
            break
        tries = {(step.status, step.attempts) for step in left if step.status != "done"}
        assert tries == {("ready", 0)}, "free, and none of its tries is spent"
    assert dataset(place, job_id) == undisturbed


def test_a_crash_between_blob_and_commit_costs_nothing_but_time(
    place: Workplace,
    second_place: Workplace,
    radiographs: Sequence[Phantom],
    undisturbed: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sampling, "TURN_CPU", 2)
    job_id = submit(place, radiographs[:2])
    work_until(place, job_id, "sampling")
    claimed = claim(place)
    with place.database.engine.connect() as connection:  # the database refuses the second turn's rows
        connection.exec_driver_sql(
            "CREATE TRIGGER refuse BEFORE UPDATE ON samples WHEN NEW.position = 3 BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
        connection.commit()
    with pytest.raises(IntegrityError, match="no"):
        sampling.make_samples(place, Lease(place.database, claimed, 9))
    assert look(place, job_id).done == 2
    assert len(list(place.blobs.list(f"jobs/{job_id}/samples/"))) == 4
    with place.database.engine.connect() as connection:
        connection.exec_driver_sql("DROP TRIGGER refuse")
        connection.commit()
    let_lease_run_out(place, claimed)
    work_off(second_place)
    assert dataset(place, job_id) == undisturbed


def test_what_is_made_is_not_made_again_unless_its_blob_is_gone(
    place: Workplace, radiographs: Sequence[Phantom], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "TURN_CPU", 1)
    job_id = submit(place, radiographs[:2])
    work_until(place, job_id, "sampling")
    claimed = claim(place)
    lease = Lease(place.database, claimed, 9)
    with place.database.read() as session:
        rows = [session.get_one(Sample, (job_id, position)) for position in range(6)]
    with place.database.write() as session:
        marker = pixels.image_png(radiographs[0].image)
        made = {0: pixels.sha256(marker), 1: pixels.sha256(marker), 2: "0" * 64}
        jobs.finish_samples(session, claimed, [MadeSample(n, sha256, {}) for n, sha256 in made.items()])
    place.blobs.put(keys.sample(job_id, pixels.sha256(marker)), marker)
    sampling.make_samples(place, lease)
    with place.database.read() as session:
        after = [session.get_one(Sample, (row.job_id, row.position)).image_sha256 for row in rows]
    assert after[:2] == [pixels.sha256(marker)] * 2
    assert {None, *made.values()}.isdisjoint(after[2:])
