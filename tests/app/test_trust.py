"""app/trust.py and the thresholds of POST /synthesize: what fails, in which words, and what is counted."""

import httpx
import pytest

from app import jobs, queries
from app.database import Database
from app.errors import LeaseLost
from app.service import Service
from app.trust import shortcomings
from tests.app.test_synthesis_api import refused_fields
from tests.job_life import NOW, do, look, make_pool, must_claim, plan_all
from tests.job_life import submit as submit_synthesis
from tests.serving import claim, guide_files, plan, submit

FIGURES = {"canal_retention": 0.6, "background_ssim": 0.8, "seam": 1.2, "alignment": 0.2, "training_distance": None}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, []),
        ({"min_canal_retention": 0.6, "max_seam": 1.2, "min_background_ssim": 0.8}, []),
        ({"min_canal_retention": 0.7}, ["canal_retention 0.6 is below min_canal_retention 0.7"]),
        ({"min_alignment": 0.3}, ["alignment 0.2 is below min_alignment 0.3"]),
        ({"max_seam": 1.0}, ["seam 1.2 is above max_seam 1"]),
        ({"min_training_distance": 0.5}, []),
        ({"min_background_ssim": 0.9, "max_seam": 1}, ["background_ssim 0.8 is below min_background_ssim 0.9", "seam"]),
    ],
)
def test_a_sample_fails_by_the_thresholds_that_were_given_alone(given: dict[str, float], expected: list[str]) -> None:
    found = shortcomings({"top_k": 3, **given}, FIGURES)
    assert len(found) == len(expected)
    assert all(words.startswith(start) for words, start in zip(found, expected, strict=True))


def test_thresholds_are_parameters_of_the_job_and_a_failure_is_dropped_by_default(
    client: httpx.Client, pool: str
) -> None:
    job = submit(client, pool, min_canal_retention="0.75", max_seam="2")
    assert {name: job["parameters"][name] for name in ("min_canal_retention", "max_seam", "on_fail")} == {
        "min_canal_retention": 0.75,
        "max_seam": 2.0,
        "on_fail": "drop",
    }
    assert job["quality_summary"] == {"made": 0, "kept": 0, "dropped": 0, "redrawn": 0}
    assert not submit(client, pool)["parameters"].keys() & {"on_fail", "min_canal_retention", "min_training_distance"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("min_canal_retention", "nan"),
        ("min_canal_retention", "-1"),
        ("min_canal_retention", "1e3"),
        ("min_canal_retention", "0,5"),
        ("max_seam", "101"),
        ("min_background_ssim", "1.5"),
        ("min_alignment", "1.5"),
        ("min_alignment", "0.5"),
        ("min_background_ssim", ""),
        ("on_fail", "retry"),
    ],
)
def test_a_threshold_that_makes_no_sense_is_refused_by_its_name(
    client: httpx.Client, pool: str, field: str, value: str
) -> None:
    given = {"pool": pool, "max_seam": "3"} | {field: value}
    assert refused_fields(client.post("/synthesize", data=given, files=guide_files())) == [field]


def test_an_alignment_is_asked_for_where_guides_are_aligned_alone(client: httpx.Client, pool: str) -> None:
    given = {"pool": pool, "min_alignment": "0.3"}
    answer = client.post("/synthesize", data=given | {"preset": "harmonize", "align": "false"}, files=guide_files())
    assert refused_fields(answer) == ["min_alignment"]
    assert "give align=true, too" in answer.text
    assert submit(client, align="true", **given)["parameters"]["min_alignment"] == 0.3
    assert submit(client, preset="harmonize", **given)["parameters"]["align"] is True
    assert submit(client, pool)["parameters"]["align"] is False


def test_what_becomes_of_failures_is_asked_in_vain_without_a_threshold(client: httpx.Client, pool: str) -> None:
    answer = client.post("/synthesize", data={"pool": pool, "on_fail": "redraw"}, files=guide_files())
    assert refused_fields(answer) == ["on_fail"]
    assert "min_canal_retention" in answer.text


def test_a_sample_that_was_dropped_says_so_where_its_image_would_be(
    client: httpx.Client, service: Service, pool: str
) -> None:
    job = submit(client, pool, max_seam="1")
    plan(service, pool, 2)
    sampling = claim(service)
    with service.database.write() as session:
        jobs.drop_sample(session, sampling, position=1, detail="seam 3 is above max_seam 1", quality={"seam": 3.0})
    answer = client.get(f"/jobs/{job['id']}/samples/1/image")
    assert answer.status_code == 404
    assert "seam 3 is above max_seam 1" in answer.json()["detail"]
    assert client.get(f"/jobs/{job['id']}/samples").json()["items"] == []
    assert client.get(f"/jobs/{job['id']}").json()["quality_summary"]["dropped"] == 1


def test_a_drop_counts_once_as_done(db: Database) -> None:
    make_pool(db)
    job = submit_synthesis(db)
    plan_all(db)
    claimed = must_claim(db)
    for _ in range(2):
        do(db, jobs.drop_sample, claimed, position=claimed.first, detail="seam", quality={})
    now = look(db, job.id)
    assert (now.done, now.dropped, now.redrawn) == (1, 1, 0)
    do(db, jobs.fail, claimed, "no")
    with pytest.raises(LeaseLost):
        do(db, jobs.drop_sample, claimed, position=claimed.first, detail="seam", quality={})
    with pytest.raises(LeaseLost):
        do(db, jobs.redraw_sample, claimed, position=claimed.first)


def test_a_step_that_is_tried_in_vain_is_not_laid_to_a_sample_that_was_dropped(db: Database) -> None:
    make_pool(db)
    job = submit_synthesis(db)
    plan_all(db)
    dropping = must_claim(db)
    do(db, jobs.drop_sample, dropping, position=dropping.first, detail="seam", quality={})
    do(db, jobs.hand_back, dropping)
    do(db, jobs.retry_later, must_claim(db), now=NOW, max_attempts=1, detail="out of memory")
    with db.read() as session:
        (failed,) = queries.failed_samples(session, queries.find_job(session, job.id))
    assert failed["index"] == dropping.first + 1
