"""app/access/tenants.py: to everybody else a tenant's rows are not there, whichever route is tried."""

from collections.abc import Iterator

import httpx
import pytest

from app import jobs, queries
from app.database import Database
from app.errors import JobNotFound
from tests.evaluations import send
from tests.job_life import NOW, do, look, make_pool
from tests.job_life import submit as submit_to
from tests.key_holders import as_of, holder_of, make_key
from tests.serving import Served, fill_pool, finish, guide_files, stored, submit

LISTS = {"/jobs", "/pools", "/models", "/presets", "/audit", "/metrics", "/livez", "/readyz"}
MAKERS = {"/pools", "/synthesize", "/evaluations", "/tickets"}


@pytest.fixture
def clinic(guarded: Served) -> Iterator[httpx.Client]:
    """Has a pool, a finished synthesis and one that waits."""
    with holder_of(guarded, make_key(guarded.service, "clinic")) as client:
        as_clinic = as_of(guarded.service, "clinic")
        fill_pool(as_clinic, "held", 3)
        submit(client, "held", seed="1")
        finish(as_clinic, "held", 2, b"the clinic's dataset")
        submit(client, "held", seed="2")
        yield client


@pytest.fixture
def stranger(guarded: Served) -> Iterator[httpx.Client]:
    with holder_of(guarded, make_key(guarded.service, "stranger", ["read", "submit", "admin"])) as client:
        yield client


def with_ids(path: str, of: httpx.Client) -> list[str]:
    """The route's addresses, for each of the client's jobs, images and pools."""
    image = of.get("/pools/held/images").json()["items"][0]["id"]
    found = [path.replace("{name}", "held").replace("{image_id}", str(image)).replace("{index}", "0")]
    if "{job_id}" in path:
        ids = [job["id"] for job in of.get("/jobs").json()["items"]]
        assert len(ids) == 2
        found = [found[0].replace("{job_id}", job_id) for job_id in ids]
    assert not any("{" in address for address in found), f"{path}: say here what stands for it"
    return found


def test_every_route_says_404_to_a_foreign_id(guarded: Served, clinic: httpx.Client, stranger: httpx.Client) -> None:
    before = stored(guarded.service)
    tried = 0
    for path, methods in clinic.get("/openapi.json").json()["paths"].items():
        if "{" not in path:
            assert path in LISTS | MAKERS, f"{path}: does it show or take another tenant's ids? Say here"
            continue
        for method in [*methods, *(["head"] if "get" in methods else [])]:
            for address in with_ids(path, clinic):
                upload = {"images": ("a.png", b"x")} if method == "post" and address.endswith("/images") else None
                answer = stranger.request(method.upper(), address, files=upload)
                if answer.status_code == 405 and method == "head":
                    continue
                assert answer.status_code == 404, (method, address, answer.text)
                assert method == "head" or "not-found" in answer.json()["type"]
                tried += 1
    assert tried > 30
    after = stored(guarded.service)
    assert (after[0] | {"audit": 0}, after[1]) == (before[0] | {"audit": 0}, before[1])


def test_an_unknown_id_and_a_foreign_one_get_the_same_words(clinic: httpx.Client, stranger: httpx.Client) -> None:
    theirs = clinic.get("/jobs").json()["items"][0]["id"]
    nobodys = "0" * 32
    for path in ("", "/dataset", "/samples", "/report", "/samples/0/image"):
        foreign, unknown = (stranger.get(f"/jobs/{job_id}{path}") for job_id in (theirs, nobodys))
        assert foreign.text.replace(theirs, nobodys) == unknown.text
    assert stranger.get("/pools/held").text == stranger.get("/pools/none").text.replace("none", "held")


def test_no_list_shows_a_foreign_row(clinic: httpx.Client, stranger: httpx.Client) -> None:
    assert [pool["name"] for pool in stranger.get("/pools").json()["items"]] == ["default"]
    assert stranger.get("/pools").json()["items"][0]["image_count"] == 0
    assert len(clinic.get("/jobs").json()["items"]) == 2
    for query in ({}, {"kind": "synthesis"}, {"status": "succeeded"}, {"cursor": "9999999999999999-x"}):
        assert stranger.get("/jobs", params=query).json()["items"] == []


def test_pools_of_one_name_are_two_and_an_image_in_both_is_stored_in_both(guarded: Served) -> None:
    with (
        holder_of(guarded, make_key(guarded.service, "a")) as first,
        holder_of(guarded, make_key(guarded.service, "b")) as second,
    ):
        for client in (first, second):
            assert client.post("/pools", json={"name": "held"}).status_code == 201
            assert client.post("/pools", json={"name": "held"}).status_code == 409
        fill_pool(as_of(guarded.service, "a"), "same", 1)
        fill_pool(as_of(guarded.service, "b"), "same", 1)
        (one,), (other,) = (client.get("/pools/same/images").json()["items"] for client in (first, second))
        assert one["sha256"] == other["sha256"] and one["id"] != other["id"]
        assert len([key for key in guarded.service.blobs.list("pools/") if one["sha256"] in key]) == 2
        assert first.delete("/pools/same").status_code == 204
        assert second.get(other["links"]["self"]).status_code == 200
        stale = second.get(f"/pools/same/images/{one['id']}", headers={"If-None-Match": f'"{one["sha256"]}"'})
        assert stale.status_code == 404


def test_a_foreign_pool_and_a_foreign_synthesis_cannot_be_named_in_a_form(
    clinic: httpx.Client, stranger: httpx.Client
) -> None:
    refused = stranger.post("/synthesize", data={"pool": "held", "top_k": "1"}, files=guide_files())
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "pool")
    (made,) = clinic.get("/jobs", params={"status": "succeeded"}).json()["items"]
    refused = send(stranger, made["id"])
    assert refused.status_code == 422
    assert "there is none" in refused.json()["detail"]


def test_an_idempotency_key_is_the_tenants_own(guarded: Served, clinic: httpx.Client, stranger: httpx.Client) -> None:
    fill_pool(as_of(guarded.service, "stranger"), "held", 3)
    answers = [
        client.post(
            "/synthesize", headers={"Idempotency-Key": "k"}, data={"pool": "held", "top_k": "1"}, files=guide_files()
        )
        for client in (clinic, stranger, clinic)
    ]
    assert [answer.status_code for answer in answers] == [202, 202, 200]
    assert answers[0].json()["id"] == answers[2].json()["id"] != answers[1].json()["id"]


def test_two_keys_of_a_tenant_share_what_it_has(guarded: Served, clinic: httpx.Client) -> None:
    with holder_of(guarded, make_key(guarded.service, "clinic")) as colleague:
        assert colleague.get("/jobs").json() == clinic.get("/jobs").json()


def test_the_house_finds_jobs_by_their_ids_and_a_tenant_its_own(db: Database) -> None:
    """Over both kinds of database."""
    tenants = {name: db.of(name) for name in ("a", "b")}
    made = {}
    for name, own in tenants.items():
        make_pool(own)
        made[name] = submit_to(own)
        assert made[name].tenant == name
    assert look(db, made["a"].id).id == made["a"].id
    for verb in (queries.find_job, jobs.delete_job, queries.list_samples):
        with pytest.raises(JobNotFound):
            do(tenants["b"], verb, made["a"].id)
    with pytest.raises(JobNotFound):
        do(tenants["b"], jobs.cancel, made["a"].id, now=NOW)
    with tenants["a"].read() as session:
        assert [job.id for job in queries.list_jobs(session)[0]] == [made["a"].id]
