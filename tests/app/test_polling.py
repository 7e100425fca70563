"""What a client that polls costs: one look at one row, found by its key, however large the job and the queue."""

import re
import time
from datetime import UTC, datetime

import httpx
import pytest
from sqlalchemy import text

from app import imports, jobs, leases
from app.database import clock
from app.records import Outcome
from app.service import Service
from app.webhooks import outbox
from tests.key_holders import holder_of, make_key
from tests.serving import Served, claim, fill_pool, plan, statements_of, submit


def test_polling_a_synthesis_costs_one_query_by_key(client: httpx.Client, service: Service, pool: str) -> None:
    job = submit(client, pool, top_k=3)
    plan(service, pool, 3)
    with statements_of(service, "jobs.id = ?") as statements:
        assert client.get(job["links"]["self"]).json()["stage"] == "sampling"
    ((statement, parameters),) = statements
    assert "JOIN" not in statement
    with service.database.engine.connect() as connection:
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
    assert [row[3] for row in rows] == ["SEARCH jobs USING INDEX sqlite_autoindex_jobs_1 (id=?)"]


def test_samples_that_could_not_be_made_are_looked_up_by_an_index(
    client: httpx.Client, service: Service, pool: str
) -> None:
    job = submit(client, pool, top_k=3)
    plan(service, pool, 3)
    with service.database.write() as session:
        sampling = jobs.claim(session, worker="w", now=clock(session), lease_seconds=30, max_attempts=5)
        assert sampling is not None
        jobs.fail_sample(session, sampling, position=1, detail="loss is nan")
    with statements_of(service, "FROM samples") as statements:
        assert [failed["index"] for failed in client.get(job["links"]["self"]).json()["failed_samples"]] == [1]
    ((statement, parameters),) = statements
    with service.database.engine.connect() as connection:
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
    assert [row[3] for row in rows] == ["SEARCH samples USING INDEX samples_failed (job_id=?)"]


def test_a_mask_costs_one_query_for_its_job(client: httpx.Client, service: Service, finished: str) -> None:
    with statements_of(service, "jobs.id = ?") as statements:
        assert client.get(f"/jobs/{finished}/samples/0/mask").status_code == 200
    assert len(statements) == 1


def test_polling_an_import_costs_one_query_and_looks_up_rejected_files_by_an_index(
    client: httpx.Client, service: Service, pool: str
) -> None:
    with service.database.write() as session:
        imports.submit_import(session, job_id="a" * 32, pool=pool, names=["1.png", "2.png"])
    with statements_of(service, "jobs.id = ?") as of_jobs, statements_of(service, "FROM uploads") as of_uploads:
        assert client.get(f"/jobs/{'a' * 32}").json()["stored"] == 0
    assert (len(of_jobs), len(of_uploads)) == (1, 0)
    with service.database.write() as session:
        importing = jobs.claim(session, worker="w", now=clock(session), lease_seconds=30, max_attempts=5)
        assert importing is not None
        imports.imported(session, importing, [Outcome(0, None, "no image"), Outcome(1, None, "no image")], [])
    with statements_of(service, "FROM uploads") as statements:
        assert client.get(f"/jobs/{'a' * 32}").json()["rejected"][1] == {"name": "2.png", "detail": "no image"}
    ((statement, parameters),) = statements
    with service.database.engine.connect() as connection:
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
    assert [row[3] for row in rows] == ["SEARCH uploads USING INDEX uploads_rejected (job_id=?)"]


def test_a_list_asks_for_all_webhooks_at_once(client: httpx.Client, service: Service) -> None:
    for name in "abc":
        with service.database.write() as session:
            job = imports.submit_import(session, job_id=name * 32, pool="default", names=["1.png"])
            outbox.order(session, job, f"https://hooks.example.org/{name}")
    with statements_of(service, "FROM deliveries") as statements:
        listed = client.get("/jobs").json()["items"]
    assert [job["webhook"]["url"][-1] for job in listed] == ["c", "b", "a"]
    assert len(statements) == 1


def test_a_list_names_ten_files_of_a_job_that_were_refused(client: httpx.Client, service: Service) -> None:
    with service.database.write() as session:
        names = [f"{n}.txt" for n in range(12)]
        imports.submit_import(session, job_id="a" * 32, pool="default", names=names)
    importing = claim(service)
    with service.database.write() as session:
        imports.imported(session, importing, [Outcome(n, None, "no image") for n in range(12)], [])
    rejected = client.get(f"/jobs/{'a' * 32}").json()["rejected"]
    assert [file["name"] for file in rejected] == names
    (listed,) = client.get("/jobs").json()["items"]
    assert listed["rejected"] == rejected[:10]


def test_a_list_names_ten_guides_of_a_job(client: httpx.Client, pool: str) -> None:
    job = submit(client, pool, top_k=1, guides=12)
    named = [f"guide-{n}.png" for n in range(12)]
    assert job["parameters"]["guides"] == client.get(job["links"]["self"]).json()["parameters"]["guides"] == named
    (listed,) = client.get("/jobs").json()["items"]
    assert listed["parameters"] == job["parameters"] | {"guides": named[:10]}


def test_following_a_job_that_does_not_change_reads_its_version_alone(
    client: httpx.Client, service: Service, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.events.POLL_SECONDS", 0.02)
    monkeypatch.setattr("app.events.KEEP_ALIVE_SECONDS", 0.2)
    job = submit(client, pool)
    begun = time.monotonic()
    with client.stream("GET", job["links"]["events"]) as stream:
        lines = stream.iter_lines()
        while next(lines) != ": still here":
            pass
        with statements_of(service, "jobs.id = ?") as statements:
            for _ in range(6):  # three more, with a blank line after each
                next(lines)
    assert time.monotonic() - begun >= 0.8, "told now and then, not at every look in vain"
    assert statements
    assert all(statement.startswith("SELECT jobs.version \n") for statement, _ in statements)


def test_no_table_is_walked_through_to_find_a_step(service: Service) -> None:
    with service.database.engine.connect() as connection:
        query = "SELECT id FROM steps WHERE status = 'leased' AND leased_until < '2026-01-01'"
        (row,) = connection.execute(text(f"EXPLAIN QUERY PLAN {query}")).all()
    assert row[3] == "SEARCH steps USING COVERING INDEX steps_to_do (status=? AND leased_until<?)"
    with statements_of(service, "step_id") as statements, service.database.read() as session:
        leases.fairest(session, datetime.now(UTC), kinds=None)
    ((statement, parameters),) = statements
    with service.database.engine.connect() as connection:
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
    steps = [row[3] for row in rows if re.search(r"\b(steps|jobs)\b", row[3])]
    assert len(steps) > 5
    assert all(step.startswith("SEARCH") for step in steps), steps


def test_with_a_key_it_costs_one_more_while_the_key_is_believed_and_no_write(
    guarded: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.access.callers.BELIEVED_SECONDS", 600.0)  # longer than all this takes
    service = guarded.service
    with holder_of(guarded, make_key(service, tenant="default")) as client:
        fill_pool(service, "held", 3)
        job = submit(client, "held", top_k=3)
        service.callers._believed.clear()
        with statements_of(service, "jobs.id = ?") as of_jobs, statements_of(service, "api_keys") as of_keys:
            for _ in range(5):
                assert client.get(job["links"]["self"]).status_code == 200
    assert len(of_jobs) == 5
    ((statement, parameters),) = of_keys
    with service.database.engine.connect() as connection:
        (row,) = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
    assert row[3] == "SEARCH api_keys USING INDEX sqlite_autoindex_api_keys_1 (prefix=?)"
