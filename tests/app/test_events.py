import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from sqlalchemy import event, text

from app import jobs
from app.events import last_version
from app.service import Service
from app.settings import Settings
from tests.serving import Served, claim, finish, make_sample, plan, serving, submit


def events(lines: Iterator[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(id, job) of each event in a stream."""
    version = 0
    for line in lines:
        if line.startswith("id: "):
            version = int(line[4:])
        if line.startswith("data: "):
            yield version, json.loads(line[6:])


def test_every_change_is_told_until_the_job_ends(client: httpx.Client, service: Service, pool: str) -> None:
    job = submit(client, pool)
    with client.stream("GET", job["links"]["events"]) as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        told = events(stream.iter_lines())
        _, first = next(told)
        assert first == job
        plan(service, pool, 2)
        assert any(changed["stage"] == "sampling" for _, changed in told)
        sampling = claim(service)
        make_sample(service, sampling, 0)
        assert next(told)[1]["progress"]["done"] == 1
        client.post(job["links"]["cancel"])
        assert next(told)[1]["status"] == "cancelling"
        with service.database.write() as session:
            jobs.stop(session, sampling, now=datetime.now(UTC))
        assert [changed["status"] for _, changed in told] == ["cancelled"]


def test_a_stream_ends_with_its_job(client: httpx.Client, service: Service, pool: str) -> None:
    job = submit(client, pool)
    worker = threading.Thread(target=finish, args=(service, pool, 2, b"a dataset"))
    with client.stream("GET", job["links"]["events"]) as stream:
        worker.start()
        told = [changed for _, changed in events(stream.iter_lines())]
    worker.join()
    assert told[-1]["status"] == "succeeded"


def test_a_client_goes_on_where_it_was_cut_off(client: httpx.Client, service: Service, pool: str) -> None:
    job = submit(client, pool)
    with client.stream("GET", job["links"]["events"]) as stream:
        seen, _ = next(events(stream.iter_lines()))
    plan(service, pool, 2)
    with client.stream("GET", job["links"]["events"], headers={"Last-Event-ID": str(seen)}) as stream:
        version, changed = next(events(stream.iter_lines()))
    assert version > seen
    assert changed["stage"] == "sampling"
    later = {"Last-Event-ID": str(version + 5)}  # of a database that has been put back to a copy
    with client.stream("GET", job["links"]["events"], headers=later) as stream:
        assert next(events(stream.iter_lines())) == (version, changed)


def test_what_a_client_missed_comes_as_one_event_from_any_api(
    client: httpx.Client, service: Service, settings: Settings, pool: str
) -> None:
    job = submit(client, pool)
    with client.stream("GET", job["links"]["events"]) as stream:
        seen, _ = next(events(stream.iter_lines()))
    finish(service, pool, 2, b"a dataset")
    with serving(settings) as other:
        with other.client.stream("GET", job["links"]["events"], headers={"Last-Event-ID": str(seen)}) as stream:
            ((last, told),) = events(stream.iter_lines())
        assert last > seen
        assert (told["status"], told["progress"]) == ("succeeded", {"done": 2, "total": 2})
        assert other.client.get(job["links"]["events"], headers={"Last-Event-ID": str(last)}).status_code == 204


def test_a_client_cut_off_again_and_again_misses_no_state_and_sees_none_twice(
    client: httpx.Client, service: Service, pool: str
) -> None:
    job = submit(client, pool)
    worker = threading.Thread(target=finish, args=(service, pool, 2, b"a dataset"))
    worker.start()
    seen, told = 0, []
    while not told or told[-1]["finished_at"] is None:
        headers = {"Last-Event-ID": str(seen)} if seen else {}
        with client.stream("GET", job["links"]["events"], headers=headers) as stream:
            version, changed = next(events(stream.iter_lines()))
        assert version > seen
        seen = version
        told.append(changed)
    worker.join()
    done = [changed["progress"]["done"] for changed in told]
    assert done == sorted(done)
    assert told[-1]["status"] == "succeeded"


def test_a_client_that_has_seen_the_end_is_told_to_stop(client: httpx.Client, pool: str) -> None:
    job = submit(client, pool)
    client.post(job["links"]["cancel"])
    with client.stream("GET", job["links"]["events"]) as stream:
        *_, (last, _) = events(stream.iter_lines())
    assert client.get(job["links"]["events"], headers={"Last-Event-ID": str(last)}).status_code == 204


def test_a_stream_ends_when_its_job_is_deleted(client: httpx.Client, pool: str) -> None:
    job = submit(client, pool)
    with client.stream("GET", job["links"]["events"]) as stream:
        told = events(stream.iter_lines())
        next(told)
        client.post(job["links"]["cancel"])
        client.delete(job["links"]["self"])
        list(told)
    assert client.get(job["links"]["events"]).status_code == 404


def test_a_stream_ends_in_order_when_the_database_is_away(
    client: httpx.Client, service: Service, pool: str, caplog: pytest.LogCaptureFixture
) -> None:
    job = submit(client, pool)

    def rename(old: str, new: str) -> None:
        with service.database.write() as session:
            session.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))

    with client.stream("GET", job["links"]["events"]) as stream:
        told = events(stream.iter_lines())
        next(told)
        rename("jobs", "jobs_away")
        try:
            assert list(told) == []
        finally:
            rename("jobs_away", "jobs")
    assert not [record for record in caplog.records if record.exc_info]
    with client.stream("GET", job["links"]["events"]) as stream:
        assert next(events(stream.iter_lines()))[1] == job


def test_streams_that_wait_for_the_database_hold_nobody_else_up(served: Served, pool: str) -> None:
    job = submit(served.client, pool)
    engine, answers = served.service.database.engine, threading.Event()

    def wait(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("SELECT jobs.version"):  # what a stream looks at
            answers.wait(60)

    with ExitStack() as stack:
        event.listen(engine, "before_cursor_execute", wait)
        stack.callback(event.remove, engine, "before_cursor_execute", wait)
        stack.callback(answers.set)
        for _ in range(60):  # more than there are threads for requests
            stream = stack.enter_context(socket.create_connection(("127.0.0.1", served.port), timeout=20))
            stream.sendall(f"GET {job['links']['events']} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert b"200 OK" in stream.recv(1000)
        assert served.client.get("/jobs").json()["items"] == [job]


def test_an_event_id_that_is_none_of_ours_is_as_none() -> None:
    assert [last_version(text) for text in (None, "", "x", "-1", "٣", "9" * 30, "7")] == [0, 0, 0, 0, 0, 0, 7]
