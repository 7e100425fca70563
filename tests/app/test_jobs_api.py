import hashlib
import re
import tracemalloc
from datetime import datetime, timedelta

import httpx
import pytest
from sqlalchemy import insert, update

from app import jobs
from app.database import clock
from app.service import Service
from app.tables import Job
from tests.clocks import set_clock
from tests.serving import claim, fill_pool, finish, make_sample, plan, stored, submit


def test_a_job_tells_how_far_it_is(client: httpx.Client, service: Service, pool: str) -> None:
    job = submit(client, pool, top_k=3)
    here = job["links"]["self"]
    assert (job["status"], job["stage"], job["progress"]) == ("queued", None, {"done": 0, "total": 3})
    assert job["links"] == {
        "self": here,
        "cancel": f"{here}/cancel",
        "events": f"{here}/events",
        "samples": f"{here}/samples",
        "dataset": f"{here}/dataset",
    }
    plan(service, pool, 3)
    planned = client.get(here).json()
    assert (planned["status"], planned["stage"], planned["eta_seconds"]) == ("running", "sampling", None)
    make_sample(service, claim(service), 0)
    sampling = client.get(here).json()
    assert sampling["progress"] == {"done": 1, "total": 3}
    assert sampling["eta_seconds"] >= 0
    assert sampling["started_at"].endswith("Z") and sampling["finished_at"] is None


def test_the_remaining_time_does_not_climb_while_a_batch_is_made(
    client: httpx.Client, service: Service, pool: str
) -> None:
    job = submit(client, pool, top_k=3)
    plan(service, pool, 3)
    make_sample(service, claim(service), 0)
    with service.database.write() as session:
        now = clock(session)
        times = {"started_at": now - timedelta(seconds=90), "progressed_at": now - timedelta(seconds=80)}
        session.execute(update(Job).where(Job.id == job["id"]).values(times))
    assert client.get(job["links"]["self"]).json()["eta_seconds"] == 20, "two samples at 10 s each, as 80 s ago"


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_jobs_times_are_of_one_clock_whatever_the_apis_own_says(
    client: httpx.Client, service: Service, pool: str, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    set_clock(monkeypatch, timedelta(hours=hours), "admission", "pools", "monitoring.metrics")
    submitted = datetime.fromisoformat(submit(client, pool)["created_at"])
    with service.database.read() as session:
        assert timedelta() <= clock(session) - submitted < timedelta(minutes=10)
    waits = re.findall(r"^pansynth_oldest_queued_seconds (\S+)$", client.get("/metrics").text, re.MULTILINE)
    assert 0 <= float(*waits) < 600


def test_a_finished_job_has_a_dataset(client: httpx.Client, finished: str) -> None:
    job = client.get(f"/jobs/{finished}").json()
    assert (job["status"], job["stage"], job["error"], job["eta_seconds"]) == ("succeeded", None, None, None)
    assert client.get(job["links"]["dataset"]).content == b"a dataset"


def test_samples_are_listed_as_they_are_made(client: httpx.Client, service: Service, pool: str) -> None:
    samples = submit(client, pool, top_k=2)["links"]["samples"]
    plan(service, pool, 2)
    sampling = claim(service)
    assert client.get(samples).json() == {"items": [], "next": None}
    for part in ("image", "mask", "pool_image"):
        assert client.get(f"{samples}/1/{part}").status_code == 409
    sha256 = make_sample(service, sampling, 1)
    (sample,) = client.get(samples).json()["items"]
    assert (sample["index"], sample["rank"], sample["seed"]) == (1, 2, 2**62 + 1)
    assert (sample["guide"], sample["pool_image"]) == ("guide-0.png", "pan-1.png")
    assert sample["quality"] == {"canal_retention": 0.9}
    image = client.get(sample["links"]["image"])
    assert (image.headers["Content-Type"], image.headers["ETag"]) == ("image/png", f'"{sha256}"')
    mask = client.get(sample["links"]["mask"])
    assert mask.status_code == 200 and mask.content.startswith(b"\x89PNG")


def test_a_sample_can_be_compared_with_the_image_that_it_was_made_of_until_the_pool_is_deleted(
    client: httpx.Client, service: Service
) -> None:
    digests = fill_pool(service, "compared", 2)
    samples = submit(client, "compared")["links"]["samples"]
    job_id = finish(service, "compared", 2, b"a dataset")
    sample = client.get(samples).json()["items"][1]
    answer = client.get(sample["links"]["pool_image"])
    assert hashlib.sha256(answer.content).hexdigest() == digests[1]
    client.delete("/pools/compared")
    gone = client.get(sample["links"]["pool_image"])
    assert gone.status_code == 404
    assert f"the pool of job {job_id} was deleted" in gone.json()["detail"]


def test_a_sample_of_a_moved_guide_has_a_mask_of_its_own_as_soon_as_it_is_made(
    client: httpx.Client, service: Service, pool: str
) -> None:
    samples = submit(client, pool, top_k=3, align="true")["links"]["samples"]
    plan(service, pool, 3)
    assert client.get(f"{samples}/0/mask").status_code == 409, "nobody knows yet where the guide is moved to"
    sampling = claim(service)
    make_sample(service, sampling, 0, mask=b"the mask, moved")
    make_sample(service, sampling, 1)
    with service.database.write() as session:
        jobs.drop_sample(session, sampling, position=2, detail="alignment 0.1 is below", quality={})
    own, guides, dropped = (client.get(f"{samples}/{index}/mask") for index in range(3))
    assert own.content == b"the mask, moved"
    assert own.headers["ETag"] == f'"{hashlib.sha256(own.content).hexdigest()}"'
    assert guides.status_code == 200 and guides.content.startswith(b"\x89PNG")
    assert dropped.status_code == 404 and "alignment 0.1 is below" in dropped.json()["detail"]


@pytest.mark.parametrize("index", ["7", "-1", str(10**30)])
def test_an_unknown_sample_is_not_found(client: httpx.Client, finished: str, index: str) -> None:
    assert client.get(f"/jobs/{finished}/samples/{index}/image").status_code == 404
    assert client.get(f"/jobs/{finished}/samples/{index}/mask").status_code == 404


def test_a_sample_not_made_is_a_conflict_that_says_whether_to_wait(
    client: httpx.Client, service: Service, pool: str
) -> None:
    job = submit(client, pool)
    plan(service, pool, 2)
    image = f"{job['links']['samples']}/0/image"
    waiting = client.get(image)
    assert waiting.status_code == 409
    assert f"running, is not made; wait for it, {job['links']['events']}" in waiting.json()["detail"]
    client.post(job["links"]["cancel"])
    ended = client.get(image)
    assert ended.status_code == 409
    assert "cancelled, is not made; it never will be" in ended.json()["detail"], "nobody polls for ever"


def test_a_dataset_is_a_conflict_until_the_job_has_succeeded(client: httpx.Client, pool: str) -> None:
    answer = client.get(submit(client, pool)["links"]["dataset"])
    assert answer.status_code == 409
    assert "queued" in answer.json()["detail"]


def test_an_import_has_no_dataset(client: httpx.Client) -> None:
    job = client.post("/pools/default/images", files={"images": ("a.png", b"x")}).json()
    assert "dataset" not in job["links"]
    assert client.get(f"/jobs/{job['id']}/dataset").status_code == 404


@pytest.mark.parametrize("job", ["x", "0" * 32, "%00", "0" * 31 + "%0A"])
def test_an_unknown_job_is_not_found(client: httpx.Client, job: str) -> None:
    calls = [("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/events"), ("GET", "/samples")]
    for method, path in [
        *calls,
        ("GET", "/samples/0/image"),
        ("GET", "/samples/0/mask"),
        ("GET", "/dataset"),
    ]:
        answer = client.request(method, f"/jobs/{job}{path}")
        assert answer.status_code == 404
        assert answer.headers["Content-Type"] == "application/problem+json"


def test_a_waiting_job_is_cancelled_at_once_and_once(client: httpx.Client, pool: str) -> None:
    cancel = submit(client, pool)["links"]["cancel"]
    first, second = client.post(cancel), client.post(cancel)
    assert (first.status_code, first.json()["status"]) == (202, "cancelled")
    assert (second.status_code, second.json()["status"]) == (200, "cancelled")


def test_a_running_job_is_cancelling_while_a_worker_is_at_it(client: httpx.Client, service: Service, pool: str) -> None:
    cancel = submit(client, pool)["links"]["cancel"]
    claim(service)
    assert client.post(cancel).json()["status"] == "cancelling"
    assert client.post(cancel).status_code == 200


def test_an_ended_job_cannot_be_cancelled(client: httpx.Client, finished: str) -> None:
    answer = client.post(f"/jobs/{finished}/cancel")
    assert answer.status_code == 409
    assert "succeeded" in answer.json()["detail"]


def test_a_deleted_job_leaves_nothing(client: httpx.Client, service: Service, finished: str) -> None:
    deleted = client.delete(f"/jobs/{finished}")
    assert (deleted.status_code, deleted.headers.get("Content-Type")) == (204, None)  # nothing comes that is JSON
    assert client.get(f"/jobs/{finished}").status_code == 404
    rows, blobs = stored(service)
    assert rows["jobs"] == rows["samples"] == rows["guides"] == 0
    assert not [key for key in blobs if key.startswith("jobs/")]


def test_a_job_that_has_not_ended_cannot_be_deleted(client: httpx.Client, pool: str) -> None:
    answer = client.delete(submit(client, pool)["links"]["self"])
    assert answer.status_code == 409
    assert "cancel it" in answer.json()["detail"]


def test_a_job_that_is_being_cancelled_is_to_be_waited_for(client: httpx.Client, service: Service, pool: str) -> None:
    job = submit(client, pool)
    claim(service)
    client.post(job["links"]["cancel"])
    answer = client.delete(job["links"]["self"])
    assert answer.status_code == 409
    assert "cancelling; wait for its end" in answer.json()["detail"]


def test_what_a_job_that_is_being_cancelled_has_not_made_is_not_to_be_waited_for(
    client: httpx.Client, service: Service, pool: str
) -> None:
    job = submit(client, pool)
    plan(service, pool, 2)
    claim(service)
    client.post(job["links"]["cancel"])
    for made in (job["links"]["dataset"], f"{job['links']['samples']}/0/image"):
        told = client.get(made).json()["detail"]
        assert "is cancelling, " in told and told.endswith("it never will be")


def test_jobs_are_listed_newest_first_by_kind_and_status(client: httpx.Client, pool: str) -> None:
    first, second = submit(client, pool), submit(client, pool)
    imported = client.post(f"/pools/{pool}/images", files={"images": ("a.png", b"x")}).json()
    client.post(first["links"]["cancel"])

    def listed(**query: str) -> list[str]:
        return [job["id"] for job in client.get("/jobs", params=query).json()["items"]]

    assert listed() == [imported["id"], second["id"], first["id"]]
    assert listed(kind="synthesis") == [second["id"], first["id"]]
    assert listed(kind="synthesis", status="queued") == [second["id"]]
    assert listed(kind="", status="") == listed()  # as clients send what their user left open
    page = client.get("/jobs", params={"limit": 2}).json()
    assert listed(cursor=page["next"]) == [first["id"]]


def test_a_list_of_many_large_jobs_is_in_memory_a_few_at_a_time(client: httpx.Client, service: Service) -> None:
    parameters = {"guides": [f"{n:0100}.png" for n in range(300)]}
    ids = [f"{n:032x}" for n in range(200)]
    with service.database.write() as session:
        about = {"kind": "synthesis", "status": "succeeded", "created_at": clock(session), "parameters": parameters}
        session.execute(insert(Job), [about | {"id": job_id} for job_id in ids])
    tracemalloc.start()
    listed = client.get("/jobs", params={"limit": 199}).json()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [job["id"] for job in listed["items"]] == ids[:0:-1]
    assert [job["id"] for job in client.get("/jobs", params={"cursor": listed["next"]}).json()["items"]] == ids[:1]
    assert peak < 12_000_000, "of which the names of all guides would take 10"


@pytest.mark.parametrize("query", [{"kind": "other"}, {"status": "lost"}, {"cursor": "x"}])
def test_a_bad_filter_is_refused_by_its_name(client: httpx.Client, query: dict[str, str]) -> None:
    answer = client.get("/jobs", params=query)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == list(query)


@pytest.mark.parametrize("cursor", ["1x-0123", "-1", "999999999999999999-0123"])
def test_a_bad_cursor_is_named_whole(client: httpx.Client, cursor: str) -> None:
    answer = client.get("/jobs", params={"cursor": cursor})
    assert (answer.status_code, answer.json()["detail"].split(" is ")[0]) == (422, f"cursor {cursor!r}")
