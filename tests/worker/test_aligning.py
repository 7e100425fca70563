"""Jobs with `align`: every sample brings its own mask, wherever samples' masks are used; jobs without are as before."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from app import evaluations, jobs, keys, queries
from app.errors import LeaseLost
from app.janitor import GRACE, tidy
from app.labels import label
from app.records import Claim
from app.tables import Sample
from app.trust import quality_summary
from models import pixels
from models.phantoms import Phantom
from tests.threads import threads
from tests.waiting import until
from tests.worker.test_evaluating import evaluate
from tests.worker_service import (
    GoingOn,
    claim,
    dataset,
    in_preview,
    look,
    manifest,
    members,
    preview_row,
    send_files,
    submit,
    work_off,
    work_until,
)
from worker import evaluating, planning, sampling
from worker.lease import Lease
from worker.preview import outlined
from worker.tasks import work
from worker.workplace import Workplace

pytestmark = pytest.mark.usefixtures("quick_alignment")

OLDER = ("unpack", "import", "index", "plan", "sample", "package", "report")  # steps of versions without align


def finished(place: Workplace, radiographs: Sequence[Phantom], **parameters: Any) -> str:
    job_id = submit(place, radiographs[:2], **{"align": True, "method": "paste", "top_k": 2, **parameters})
    work_off(place)
    return job_id


@pytest.fixture(scope="module")
def aligned(
    going_on: GoingOn, filled: Callable[[int], Path], radiographs: Sequence[Phantom]
) -> tuple[Path, str, bytes]:
    """A data folder in which a job has been finished on one thread; the job's id, and its dataset."""
    with threads(1), going_on(filled(6)) as place:
        job_id = finished(place, radiographs)
        return place.settings.data_dir, job_id, dataset(place, job_id)


@pytest.fixture
def beginning(aligned: tuple[Path, str, bytes]) -> Path:
    return aligned[0]


@pytest.fixture
def job_id(aligned: tuple[Path, str, bytes]) -> str:
    """Of the job that is finished already."""
    return aligned[1]


@pytest.fixture
def undisturbed(aligned: tuple[Path, str, bytes]) -> bytes:
    """Its dataset."""
    return aligned[2]


def sampling_stage(place: Workplace, radiographs: Sequence[Phantom]) -> str:
    job_id = submit(place, radiographs[:2], align=True, method="paste", top_k=2)
    work_until(place, job_id, "sampling")
    return job_id


def rows_of(place: Workplace, job_id: str) -> Sequence[Sample]:
    with place.database.read() as session:
        return session.scalars(select(Sample).where(Sample.job_id == job_id).order_by(Sample.position)).all()


def test_every_sample_brings_a_mask_of_its_own_moved_with_its_guide(
    undisturbed: bytes, radiographs: Sequence[Phantom]
) -> None:
    rows, files = manifest(undisturbed), members(undisturbed)
    assert len({row["mask_sha256"] for row in rows}) == len(rows) == 4
    for number, row in enumerate(rows):
        assert pixels.sha256(files[row["mask"]]) == row["mask_sha256"]
        guide, mask = radiographs[int(row["guide_name"][6])], pixels.mask_from_png(files[row["mask"]])
        assert (mask != guide.mask).any()
        shown = outlined(pixels.image_from_png(files[row["image"]]), mask)
        assert (preview_row(undisturbed, number)[2] == in_preview(shown)).all()
        assert 0.5 < mask.sum() / guide.mask.sum() < 2
        assert float(row["alignment"]) <= 1
        assert float(row["guide_canal_contrast"]) > 3, "the guide's dark canal lies under the moved mask"
        assert float(row["canal_retention"]) == float(row["canal_correlation"]) == 1, "pasted from the moved guide"
    described, readme = json.loads(files["job.json"]), files["README.md"].decode()
    assert described["parameters"]["align"] is True
    assert "moved with the guide" in readme and "own mask" not in readme.split("## How")[0]


def test_what_is_synthesised_is_the_moved_guide(place: Workplace, radiographs: Sequence[Phantom]) -> None:
    made = [
        manifest(dataset(place, finished(place, radiographs, align=on, method="diffusion", top_k=1)))
        for on in (True, False)
    ]
    for moved, unmoved in zip(*made, strict=True):
        assert (moved["pool_image_sha256"], moved["seed"]) == (unmoved["pool_image_sha256"], unmoved["seed"])
        assert moved["image_sha256"] != unmoved["image_sha256"]


def test_who_moves_which_guide_and_how_many_at_once_leaves_no_trace(
    place: Workplace,
    second_place: Workplace,
    radiographs: Sequence[Phantom],
    undisturbed: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(planning, "CHUNK_CPU", 3)
    monkeypatch.setattr(sampling, "TURN_CPU", 2)
    together = submit(place, radiographs[:2], align=True, method="paste", top_k=2)
    work_until(place, together, "sampling")
    with threads(2):
        work_off(second_place, place)
    assert dataset(place, together) == undisturbed


def test_a_crash_between_blobs_and_commit_and_a_lost_mask_cost_nothing_but_time(
    place: Workplace, radiographs: Sequence[Phantom], undisturbed: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "TURN_CPU", 2)
    job_id = sampling_stage(place, radiographs)
    lease = Lease(place.database, claim(place), 9)
    with place.database.engine.connect() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER refuse BEFORE UPDATE ON samples WHEN NEW.position = 3 BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
        connection.commit()
    with pytest.raises(IntegrityError, match="no"):
        sampling.make_samples(place, lease)
    assert [row.mask_sha256 is None for row in rows_of(place, job_id)] == [False, False, True, True]
    assert len(list(place.blobs.list(f"jobs/{job_id}/samples/"))) == 8
    place.blobs.delete(keys.sample(job_id, rows_of(place, job_id)[1].mask_sha256 or ""))
    with place.database.engine.connect() as connection:
        connection.exec_driver_sql("DROP TRIGGER refuse")
        connection.commit()
    sampling.make_samples(place, lease)
    assert look(place, job_id).done == 4
    assert len(list(place.blobs.list(f"jobs/{job_id}/samples/"))) == 8
    work_off(place)
    assert dataset(place, job_id) == undisturbed


def test_jobs_without_align_are_as_before(place: Workplace, radiographs: Sequence[Phantom]) -> None:
    off = members(dataset(place, finished(place, radiographs, align=False)))
    job_id = submit(place, radiographs[:2], method="paste", top_k=2)
    with place.database.write() as session:
        job = queries.find_job(session, job_id)
        job.parameters = {name: value for name, value in job.parameters.items() if name != "align"}
    work_off(place)
    before = members(dataset(place, job_id))
    assert {name for name in off if off[name] != before[name]} == {"job.json"}
    assert "alignment" not in before["manifest.csv"].decode()
    assert "the guide's own mask" in before["README.md"].decode()
    assert {row.mask_sha256 for row in rows_of(place, job_id)} == {None}
    assert {before[name] for name in before if name.startswith("masks/")} == {
        pixels.mask_png(phantom.mask) for phantom in radiographs[:2]
    }


def test_what_did_not_fit_is_dropped_or_made_anew(
    place: Workplace, radiographs: Sequence[Phantom], undisturbed: bytes
) -> None:
    fits = sorted(float(row["alignment"]) for row in manifest(undisturbed))
    assert fits[1] < fits[2]
    threshold = (fits[1] + fits[2]) / 2
    dropping = finished(place, radiographs, min_alignment=threshold, on_fail="drop")
    kept = manifest(dataset(place, dropping))
    assert sorted(float(row["alignment"]) for row in kept) == fits[2:]
    assert len(list(place.blobs.list(f"jobs/{dropping}/samples/"))) == 2 * len(kept) == 4
    assert {row.mask_sha256 is None for row in rows_of(place, dropping) if row.dropped} == {True}
    redrawing = finished(place, radiographs, min_alignment=threshold, on_fail="redraw")
    rows, summary = manifest(dataset(place, redrawing)), quality_summary(look(place, redrawing))
    assert summary["redrawn"] > 0
    assert all(float(row["alignment"]) >= threshold for row in rows)
    assert len(list(place.blobs.list(f"jobs/{redrawing}/samples/"))) == 2 * len(rows)


def test_a_guide_whose_anatomy_would_leave_the_picture_is_used_where_it_is(
    place: Workplace, radiographs: Sequence[Phantom]
) -> None:
    mask = np.zeros((256, 512), bool)
    mask[150:153, 0:3] = True
    guide = replace(radiographs[0], mask=mask)
    send_files(place, [("left.png", pixels.image_png(np.roll(guide.image, -12, axis=1)))])
    work_off(place)
    job_id = submit(place, [guide, radiographs[1]], align=True, method="paste", top_k=1)
    work_off(place)
    lost, moved = manifest(dataset(place, job_id))
    assert (lost["pool_image_name"], lost["alignment"]) == ("left.png", "")
    assert lost["mask_sha256"] == pixels.sha256(pixels.mask_png(mask))
    assert moved["alignment"] != ""
    assert moved["mask_sha256"] != pixels.sha256(pixels.mask_png(radiographs[1].mask))
    strict = submit(
        place, [guide, radiographs[1]], align=True, method="paste", top_k=1, min_alignment=0.0, on_fail="drop"
    )
    work_off(place)
    assert [row["alignment"] for row in manifest(dataset(place, strict))] == [moved["alignment"]]
    [dropped] = json.loads(members(dataset(place, strict))["job.json"])["dropped"]
    assert dropped["detail"] == "the guide could not be moved, and min_alignment is 0"


def test_an_evaluation_trains_on_the_samples_own_masks(
    place: Workplace, radiographs: Sequence[Phantom], job_id: str, undisturbed: bytes
) -> None:
    files = members(undisturbed)
    lease = Lease(place.database, Claim(0, "", job_id, evaluations.ARM, 0, 1, 1), 9)
    found = evaluating._load_samples(place, lease, evaluating._read_synthesis(place, job_id))
    rows = manifest(undisturbed)
    assert (found.images == np.stack([pixels.image_from_png(files[row["image"]]) for row in rows])).all()
    assert (found.masks == np.stack([pixels.mask_from_png(files[row["mask"]]) for row in rows])).all()
    assert found.groups == tuple(row["guide_sha256"] for row in rows), "or a guide's anatomy would judge itself"
    evaluation = evaluate(place, radiographs, job_id)
    work_off(place)
    assert look(place, evaluation).status == "succeeded"


def test_a_worker_of_an_earlier_version_leaves_such_jobs_alone(
    place: Workplace, radiographs: Sequence[Phantom]
) -> None:
    job_id = submit(place, radiographs[:1], align=True, method="paste", top_k=1)
    known = {"worker": "older", "lease_seconds": 9, "max_attempts": 5, "kinds": OLDER}
    seen = []
    while look(place, job_id).status != "succeeded":
        with place.database.write() as session:
            assert jobs.claim(session, now=datetime.now(UTC), **known) is None
        seen.append(look(place, job_id).stage)
        assert work(place)
    assert seen == [None, "planning", "sampling", "packaging"]


def test_moving_guides_stops_when_the_lease_is_lost(
    place: Workplace, radiographs: Sequence[Phantom], monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = sampling_stage(place, radiographs)
    moved = []
    move = sampling.move_guides

    def cancelled(*given: Any) -> Any:
        moved.append(len(given[0]))
        with place.database.write() as session:
            jobs.cancel(session, job_id, now=datetime.now(UTC))
        until(lease.over)
        return move(*given)

    monkeypatch.setattr(sampling, "move_guides", cancelled)
    with threads(1), Lease(place.database, claim(place), 9) as lease, pytest.raises(LeaseLost):
        sampling.make_samples(place, lease)
    assert moved == [1]
    assert list(place.blobs.list(f"jobs/{job_id}/samples/")) == []


def test_the_janitor_keeps_the_masks_that_rows_name_and_leaves_no_other(place: Workplace, job_id: str) -> None:
    with place.database.read() as session:
        guides = queries.guides(session, job_id)
        named = {label(sample, guides[sample.guide]).key for sample in session.scalars(queries.made(job_id))}
    assert named <= set(place.blobs.list(f"jobs/{job_id}/samples/"))
    place.blobs.put(keys.sample(job_id, "c" * 64), b"a mask written by a worker killed before its commit")
    removed = tidy(place.database, place.blobs, None, datetime.now(UTC) + GRACE + timedelta(hours=1))
    assert removed["blobs of jobs"] == 1
    assert named <= set(place.blobs.list(f"jobs/{job_id}/samples/"))
    with place.database.write() as session:
        jobs.delete_job(session, job_id)
    place.blobs.delete_prefix(keys.of_job(job_id))
    assert list(place.blobs.list(f"jobs/{job_id}/")) == []
