"""app/access/limits.py: what a key may use up, over HTTP and over both kinds of database."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import select

from app import imports
from app.access import api_keys, limits
from app.access.api_keys import Limits
from app.access.callers import Caller
from app.database import Database, clock
from app.errors import LimitReached
from app.tables import Job, KeyUsage
from tests.clocks import set_clock
from tests.job_life import make_pool
from tests.key_holders import as_of, holder_of, make_key
from tests.serving import Served, answer_of, fill_pool, guide_files, head, stored, submit

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def refused(answer: httpx.Response, limit: str) -> str:
    assert (answer.status_code, answer.json()["type"]) == (429, "urn:pansynth:problem:limit-reached")
    assert 0 < int(answer.headers["Retry-After"]) <= 86_401
    detail: str = answer.json()["detail"]
    assert detail.startswith(f"{limit} of this key is ")
    return detail


def post(client: httpx.Client, top_k: int, **headers: str) -> httpx.Response:
    return client.post("/synthesize", headers=headers, data={"pool": "held", "top_k": str(top_k)}, files=guide_files())


@contextmanager
def begun(served: Served, client: httpx.Client, length: str) -> Iterator[socket.socket]:
    """A connection on which the head of an upload was sent, with the client's key."""
    shown = f"Authorization: {client.headers['Authorization']}\r\n{length}"
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as connection:
        connection.sendall(head(shown, "/pools/default/images"))
        yield connection


def test_a_key_has_only_so_many_jobs_waiting(guarded: Served) -> None:
    fill_pool(as_of(guarded.service, "clinic"), "held", 3)
    with holder_of(guarded, make_key(guarded.service, max_queued_jobs=2)) as client:
        first = submit(client, "held")
        submit(client, "held")
        before = stored(guarded.service)
        assert "2 of its jobs wait or run" in refused(post(client, 1), "max_queued_jobs")
        rows, blobs = stored(guarded.service)
        assert (rows | {"audit": before[0]["audit"]}, blobs) == before
        client.post(first["links"]["cancel"])
        submit(client, "held")
    with holder_of(guarded, make_key(guarded.service)) as colleague:
        submit(colleague, "held")


def test_a_key_makes_only_so_many_samples_a_day_deleted_ones_included(guarded: Served) -> None:
    fill_pool(as_of(guarded.service, "clinic"), "held", 3)
    with holder_of(guarded, make_key(guarded.service, max_samples_per_day=4)) as client:
        files = [("images", (f"{n}.png", b"x")) for n in range(5)]
        assert client.post("/pools/held/images", files=files).status_code == 202, "these are no samples"
        job = submit(client, "held", top_k=3)
        client.post(job["links"]["cancel"])
        assert client.delete(job["links"]["self"]).status_code == 204
        assert "samples would reach 5" in refused(post(client, 2), "max_samples_per_day")
        submit(client, "held", top_k=1)


def upload(client: httpx.Client, size: int) -> httpx.Request:
    return client.build_request("POST", "/pools/default/images", files={"images": ("a.png", b"x" * size)})


def test_a_key_sends_only_so_many_bytes_a_day(guarded: Served) -> None:
    bare = len(upload(guarded.client, 0).read())
    limit = 2 * bare + 100
    with holder_of(guarded, make_key(guarded.service, max_bytes_per_day=limit)) as client:
        for size, status in ((60, 202), (41, 429), (40, 202), (0, 429)):
            assert client.send(upload(client, size)).status_code == status
    with guarded.service.database.read() as session:
        assert [usage.bytes for usage in session.scalars(select(KeyUsage))] == [limit]


def test_an_upload_that_the_day_has_no_room_for_is_refused_before_anything_is_sent(guarded: Served) -> None:
    with holder_of(guarded, make_key(guarded.service, max_bytes_per_day=1000)) as client:
        used = upload(client, 500)
        assert client.send(used).status_code == 202
        before = stored(guarded.service)
        announced = 1001 - len(used.read())
        with begun(guarded, client, f"Content-Length: {announced}") as connection:
            answer = answer_of(connection)
    assert answer.startswith("HTTP/1.1 429 ") and "application/problem+json" in answer
    assert "max_bytes_per_day of this key is 1000" in answer and "uploaded bytes would reach 1001" in answer
    rows, blobs = stored(guarded.service)
    assert (rows | {"audit": before[0]["audit"]}, blobs) == before


def test_an_upload_of_unknown_size_is_refused_as_soon_as_the_day_has_no_room_for_it(guarded: Served) -> None:
    part = b'--xyz\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n' + bytes(1000)
    with holder_of(guarded, make_key(guarded.service, max_bytes_per_day=1500)) as client:
        assert client.send(upload(client, 500)).status_code == 202
        with begun(guarded, client, "Transfer-Encoding: chunked") as connection:
            connection.sendall(b"%x\r\n%b\r\n" % (len(part), part))
            answer = answer_of(connection)  # though the body has not ended
    assert answer.startswith("HTTP/1.1 429 ") and "max_bytes_per_day" in answer


def test_each_way_of_uploading_asks_what_the_key_has_left(guarded: Served) -> None:
    once = len(upload(guarded.client, 1).read())
    with holder_of(guarded, make_key(guarded.service, max_bytes_per_day=once)) as client:
        assert client.send(upload(client, 1)).status_code == 202
        for path in ("/synthesize", "/evaluations", "/pools/default/images"):
            refused(client.post(path, files={"images": ("a.png", b"x")}), "max_bytes_per_day")


def test_an_upload_for_which_no_day_has_room_is_not_told_to_come_tomorrow(guarded: Served) -> None:
    with holder_of(guarded, make_key(guarded.service, max_bytes_per_day=1000)) as client:
        answer = client.send(upload(client, 1000))
    assert answer.status_code == 413 and "Retry-After" not in answer.headers
    assert "larger than 1000 bytes, the max_bytes_per_day of this key; send less" in answer.json()["detail"]


def test_more_samples_than_a_key_makes_on_any_day_are_refused_with_the_remedy(guarded: Served) -> None:
    fill_pool(as_of(guarded.service, "clinic"), "held", 3)
    with holder_of(guarded, make_key(guarded.service, max_samples_per_day=5)) as client:
        answer = client.post("/synthesize", data={"pool": "held", "top_k": "3"}, files=guide_files(2))
    assert answer.status_code == 422 and "Retry-After" not in answer.headers
    (wrong,) = answer.json()["errors"]
    assert wrong["field"] == "top_k"
    assert wrong["detail"].startswith("is 3, which makes 6 samples, and max_samples_per_day of this key is 5; choose")


def test_what_the_service_takes_at_once_holds_for_a_key_that_may_more(guarded: Served) -> None:
    with holder_of(guarded, make_key(guarded.service, max_bytes_per_day=10**12)) as client:
        assert client.send(upload(client, guarded.service.settings.max_upload_bytes)).status_code == 413


def test_a_request_sent_again_is_not_charged_again(guarded: Served) -> None:
    fill_pool(as_of(guarded.service, "clinic"), "held", 3)
    with holder_of(guarded, make_key(guarded.service, max_samples_per_day=3)) as client:
        answers = [post(client, 3, **{"Idempotency-Key": "k"}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202, 200, 200]


def test_a_request_sent_again_comes_in_when_the_day_has_no_bytes_left(guarded: Served) -> None:
    fill_pool(as_of(guarded.service, "clinic"), "held", 3)
    sent = {"data": {"pool": "held", "top_k": "3"}, "files": guide_files()}
    once = len(guarded.client.build_request("POST", "/synthesize", **sent).read())
    with holder_of(guarded, make_key(guarded.service, max_bytes_per_day=once)) as client:
        statuses = [post(client, 3, **{"Idempotency-Key": key}).status_code for key in "aab"]
    assert statuses == [202, 200, 429]


def key_of(db: Database, **given: int) -> Caller:
    limits_ = Limits(**given)
    with db.write() as session:
        _, row = api_keys.create(
            session, b"s" * 32, name="k", tenant="default", scopes=["read"], limits=limits_, expires_at=None
        )
    return Caller(key=row.prefix, limits=limits_)


def take_in(db: Database, caller: Caller, job_id: str, now: datetime = NOON, size: int = 0) -> Job:
    with db.write() as session:
        job = imports.submit_import(session, job_id=job_id, pool="p", names=["x"])
        limits.charge(session, caller, job, size, now)
        return job


def test_the_next_day_is_a_new_one_and_the_refusal_says_when(db: Database) -> None:
    make_pool(db)
    caller = key_of(db, max_bytes_per_day=10)
    take_in(db, caller, "a", size=10)
    with pytest.raises(LimitReached) as reached:
        take_in(db, caller, "b", size=1)
    assert reached.value.retry_seconds == 12 * 3600 + 1
    take_in(db, caller, "c", now=NOON + timedelta(seconds=reached.value.retry_seconds), size=1)


def test_the_day_is_the_databases_whatever_the_clock_of_the_api_says(
    guarded: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_clock(monkeypatch, timedelta(days=1), "routes.accepted")
    with holder_of(guarded, make_key(guarded.service)) as client:
        assert client.send(upload(client, 1)).status_code == 202
    with guarded.service.database.read() as session:
        days = session.scalars(select(KeyUsage.day)).all()
        assert days == [clock(session).date()]


def test_of_many_requests_at_once_no_more_come_in_than_may(db: Database) -> None:
    make_pool(db)
    caller = key_of(db, max_queued_jobs=3)
    start = threading.Barrier(8)

    def send(name: str) -> bool:
        start.wait()
        try:
            return take_in(db, caller, name).api_key == caller.key
        except LimitReached:
            return False

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(send, "abcdefgh")) == 3
