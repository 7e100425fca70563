"""app/webhooks/deliveries.py: the API tells real receivers, over real sockets."""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError
from standardwebhooks.webhooks import Webhook

from app import jobs, sweeper
from app.database import clock
from app.settings import Settings
from app.tables import Delivery
from app.webhooks import deliveries
from tests.evaluations import both_sets, finished_synthesis, send
from tests.receiver import SECRET, Receiver, make_due, receiving
from tests.serving import (
    Served,
    claim,
    empty,
    figures,
    fill_pool,
    finish,
    guide_files,
    refused,
    serving,
    statements_of,
    submit,
)
from tests.waiting import until

IMAGE = {"images": ("a.png", b"x")}


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as server:
        yield server


def telling(settings: Settings, folder: Path, hosts: str) -> Settings:
    """An API of its own that may tell these hosts."""
    same = {name: getattr(settings, name) for name in ("broker_url", "weights_dir")}
    return Settings(**same, data_dir=folder, webhook_hosts=hosts, webhook_secret=SECRET)


@pytest.fixture(scope="module")
def own_settings(settings: Settings, tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Settings:
    return telling(settings, tmp_path_factory.mktemp("telling"), f"127.0.0.1:{receiver.port}, hooks.invalid, xn--")


@pytest.fixture(scope="module", autouse=True)
def looks_often() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweeper, "SWEEP_SECONDS", 0.2)
        yield


@pytest.fixture(scope="module")
def running(own_settings: Settings) -> Iterator[Served]:
    with serving(own_settings) as served:
        yield served


@pytest.fixture
def api(running: Served, receiver: Receiver) -> Iterator[Served]:
    """The API as on its first start, with a pool; the receiver has had nothing."""
    receiver.received.clear()
    receiver.answers.clear()
    receiver.headers.clear()
    fill_pool(running.service, "held", 3)
    yield running
    empty(running.service)


def webhook_when(api: Served, job: dict[str, Any], status: str, attempts: int = 1, error: str = "") -> dict[str, Any]:
    """The job's webhook as soon as so many attempts have brought it to this status and these words."""
    found: dict[str, Any] = {}

    def there() -> bool:
        found.update(api.client.get(job["links"]["self"]).json()["webhook"])
        return (found["status"], found["attempts"]) == (status, attempts) and error in (found["last_error"] or "")

    until(there, said=lambda: str(found))
    return found


def cancelled(api: Served, url: str) -> dict[str, Any]:
    """A job that has asked for a webhook and has ended."""
    job = submit(api.client, "held", webhook=url)
    api.client.post(job["links"]["cancel"])
    return job


def test_the_end_of_a_job_is_told_once_and_signed(api: Served, receiver: Receiver) -> None:
    job = submit(api.client, "held", webhook=receiver.url)
    assert job["webhook"] == {"url": receiver.url, "status": "pending", "attempts": 0, "last_error": None}
    finish(api.service, "held", 2, b"a dataset")
    assert webhook_when(api, job, "delivered")["last_error"] is None
    time.sleep(2 * sweeper.SWEEP_SECONDS)
    (received,) = receiver.received
    assert received.path == "/hooks/pansynth?clinic=7"
    message = Webhook(SECRET).verify(received.body, received.headers)
    assert message["type"] == "job.succeeded"
    assert message["data"] == {"id": job["id"], "kind": "synthesis", "status": "succeeded", "links": job["links"]}
    assert b"guide-0" not in received.body


def test_a_failure_is_told_without_its_words(api: Served, receiver: Receiver) -> None:
    job = submit(api.client, "held", webhook=receiver.url)
    failing = claim(api.service)
    with api.service.database.write() as session:
        jobs.fail(session, failing, "pool image 'smith.png' cannot be read")
    webhook_when(api, job, "delivered")
    (received,) = receiver.received
    assert json.loads(received.body)["type"] == "job.failed"
    assert b"smith" not in received.body


def test_imports_and_evaluations_are_told_as_well(api: Served, receiver: Receiver) -> None:
    finished = finished_synthesis(api.client, api.service, "held")
    evaluation = send(api.client, finished, both_sets(), webhook=receiver.url).json()
    imported = api.client.post("/pools/held/images", files=IMAGE, data={"webhook": receiver.url}).json()
    for job in (evaluation, imported):
        assert "webhook" not in job["parameters"]
        api.client.post(job["links"]["cancel"])
        webhook_when(api, job, "delivered")
    told = [json.loads(received.body)["data"]["kind"] for received in receiver.received]
    assert told == ["evaluation", "pool_import"]


def test_a_receiver_in_trouble_is_tried_again_under_the_same_id(
    api: Served, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.answers[:] = [500, None, 302]
    job = cancelled(api, receiver.url)
    for attempt, error in enumerate(("answered 500", "no answer within 0.5 s", "answered 302"), start=1):
        webhook_when(api, job, "pending", attempt, error)
        monkeypatch.setattr(deliveries, "ATTEMPT_SECONDS", 0.5 if attempt == 1 else 15.0)  # of the next attempt
        make_due(api.service.database)
    assert webhook_when(api, job, "delivered", 4)["last_error"] is None
    assert {received.path for received in receiver.received} == {"/hooks/pansynth?clinic=7"}  # nothing followed
    assert {received.headers["webhook-id"] for received in receiver.received} == {f"msg_{job['id']}"}
    for received in receiver.received:
        Webhook(SECRET).verify(received.body, received.headers)


@pytest.mark.parametrize(
    ("retry_after", "least", "most"),
    [
        ("3600", 3600, 4320),
        ("1", 5, 6),
        ("9" * 400, 4 * 3600, 4.8 * 3600),
        ("Fri, 31 Dec 2049 23:59:59 GMT", 4 * 3600, 4.8 * 3600),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 5, 6),
        ("soon", 5, 6),
    ],
)
def test_a_receiver_that_asks_for_a_pause_gets_it(
    api: Served, receiver: Receiver, retry_after: str, least: float, most: float
) -> None:
    receiver.answers[:] = [429]
    receiver.headers["Retry-After"] = retry_after
    with api.service.database.read() as session:
        before = clock(session)
    job = cancelled(api, receiver.url)
    webhook_when(api, job, "pending", 1, "answered 429")
    with api.service.database.read() as session:
        due, after = session.get_one(Delivery, job["id"]).due_at, clock(session)
    assert due - before >= timedelta(seconds=least)
    assert due - after < timedelta(seconds=most)


def test_what_a_receiver_sets_for_one_job_is_not_sent_with_another(api: Served, receiver: Receiver) -> None:
    for _ in range(2):
        webhook_when(api, cancelled(api, receiver.url), "delivered")
    assert not [name for received in receiver.received for name in received.headers if name.lower() == "cookie"]


def test_a_stop_while_a_receiver_is_silent_is_not_put_down_to_it(
    own_settings: Settings, tmp_path: Path, receiver: Receiver
) -> None:
    stopping = own_settings.model_copy(update={"data_dir": tmp_path})
    receiver.received.clear()
    receiver.answers[:] = [None]
    with serving(stopping) as api:
        fill_pool(api.service, "held", 3)
        job = cancelled(api, receiver.url)
        until(lambda: receiver.received)
    with serving(stopping.model_copy(update={"webhook_hosts": ()})) as api:
        webhook_when(api, job, "pending", 1, "pansynth was stopped before an answer came")


def test_logs_name_the_job_and_no_address(api: Served, receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    job = cancelled(api, receiver.url)
    until(lambda: f"webhook of job {job['id']}, attempt 1: delivered" in caplog.text)
    assert "clinic" not in caplog.text


def test_a_receiver_that_wants_no_more_gets_no_more(api: Served, receiver: Receiver) -> None:
    receiver.answers[:] = [410]
    webhook_when(api, cancelled(api, receiver.url), "given_up", 1, "answered 410")


def test_a_receiver_that_is_not_there_holds_up_nobody(api: Served, receiver: Receiver) -> None:
    gone = cancelled(api, "https://hooks.invalid/in")
    job = cancelled(api, receiver.url)
    webhook_when(api, job, "delivered")
    webhook_when(api, gone, "pending", 1, "ConnectError")
    webhook_when(api, cancelled(api, "https://xn--/in"), "pending", 1, "IDNAError")


def test_a_receiver_that_says_nothing_holds_up_nobody(api: Served, receiver: Receiver) -> None:
    receiver.answers[:] = [None]
    silent = cancelled(api, receiver.url)
    until(lambda: receiver.received)
    webhook_when(api, cancelled(api, receiver.url), "delivered")
    assert webhook_when(api, silent, "pending", 1)["last_error"] is None, "its answer is still waited for"


def test_a_receiver_that_says_nothing_to_many_holds_up_no_other_and_asks_the_database_nothing(
    settings: Settings, tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "LOOK_SECONDS", 0.1)
    with receiving() as silent:
        hosts = f"127.0.0.1:{receiver.port}, 127.0.0.1:{silent.port}"
        with serving(telling(settings, tmp_path, hosts)) as api:
            fill_pool(api.service, "held", 3)
            silent.answers[:] = [None] * deliveries.AT_ONCE
            jobs = [cancelled(api, f"{silent.url}&job={number}") for number in range(deliveries.AT_ONCE)]
            until(lambda: silent.received)
            webhook_when(api, cancelled(api, receiver.url), "delivered")
            assert webhook_when(api, jobs[0], "pending", 1)["last_error"] is None, "its answer is still waited for"
            monkeypatch.setattr(deliveries, "AT_ONCE", len(silent.received))

            def asks_nothing() -> bool:
                with statements_of(api.service, "FROM deliveries") as asked:
                    time.sleep(5 * deliveries.LOOK_SECONDS)
                return not asked

            until(asks_nothing, 10)  # it may be asking at this very moment


def test_a_receiver_that_is_no_longer_allowed_is_not_called(
    settings: Settings, tmp_path: Path, receiver: Receiver
) -> None:
    receiver.received.clear()
    with serving(telling(settings, tmp_path, f"127.0.0.1:{receiver.port}")) as api:
        fill_pool(api.service, "held", 3)
        job = submit(api.client, "held", webhook=receiver.url)
    with serving(telling(settings, tmp_path, "hooks.invalid")) as api:
        api.client.post(job["links"]["cancel"])
        webhook_when(api, job, "given_up", 1, "may not go to")
    assert receiver.received == []


def test_several_apis_tell_it_once(api: Served, own_settings: Settings, receiver: Receiver) -> None:
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(serving(own_settings))
        ended = [cancelled(api, receiver.url) for _ in range(6)]
        for job in ended:
            webhook_when(api, job, "delivered")
        time.sleep(2 * sweeper.SWEEP_SECONDS)
    told = [received.headers["webhook-id"] for received in receiver.received]
    assert sorted(told) == sorted(f"msg_{job['id']}" for job in ended)


def test_attempts_are_counted(api: Served, receiver: Receiver) -> None:
    def counted() -> list[float]:
        """Delivered, given up, failed, and waiting for another attempt."""
        found = figures(api.client)
        outcomes = [f'pansynth_webhooks_total{{outcome="{name}"}}' for name in ("delivered", "given_up", "failed")]
        return [found[name] for name in (*outcomes, "pansynth_webhooks_failing")]

    delivered, given_up, failed, waiting = counted()
    receiver.answers[:] = [204, 410, *[500] * 50]
    for status, error in (("delivered", ""), ("given_up", "410"), ("pending", "500")):
        webhook_when(api, cancelled(api, receiver.url), status, 1, error)
    until(lambda: counted()[2] > failed)
    assert counted()[:2] == [delivered + 1, given_up + 1]
    assert counted()[3] == waiting + 1


@pytest.mark.parametrize("url", ["https://elsewhere.example.org/", "http://hooks.invalid:443/", "no URL", ""])
def test_an_address_that_is_not_allowed_is_refused_at_the_door(api: Served, url: str) -> None:
    finished = finished_synthesis(api.client, api.service, "held")
    given = {"webhook": url}
    answers = [
        api.client.post("/synthesize", files=guide_files(), data=given),
        api.client.post("/pools/held/images", files=IMAGE, data=given),
        send(api.client, finished, webhook=url),
    ]
    assert [set(refused(answer)) for answer in answers] == [{"webhook"}] * 3


def test_it_is_refused_beside_whatever_else_is_wrong(api: Served) -> None:
    given = {"webhook": "https://elsewhere.example.org/", "steps": "0"}
    assert set(refused(api.client.post("/synthesize", files=guide_files(), data=given))) == {"webhook", "steps"}


def test_a_service_that_tells_nobody_says_so(client: httpx.Client, pool: str) -> None:
    given = {"webhook": "https://hooks.example.org/", "pool": pool, "top_k": "2"}
    found = refused(client.post("/synthesize", files=guide_files(), data=given))
    assert "PANSYNTH_WEBHOOK_HOSTS" in found["webhook"]


def test_it_is_given_once(api: Served, receiver: Receiver) -> None:
    parts = [("webhook", (None, receiver.url)), ("webhook", (None, receiver.url)), ("images", ("a.png", b"x"))]
    assert "2 times" in refused(api.client.post("/pools/held/images", files=parts))["webhook"]


def test_the_same_idempotency_key_with_another_receiver_is_other_content(api: Served, receiver: Receiver) -> None:
    answers = [
        api.client.post("/synthesize", files=guide_files(), data=given, headers={"Idempotency-Key": "k"})
        for given in ({"pool": "held", "top_k": "2", "webhook": receiver.url + tail} for tail in ("", "", "&other=1"))
    ]
    assert [answer.status_code for answer in answers] == [202, 200, 422]


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_c2hvcnQ=", "C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "whsec_???"])
def test_without_a_good_secret_no_api_starts_that_would_tell(secret: str) -> None:
    with pytest.raises(ValidationError, match="openssl rand -base64 32"):
        Settings(webhook_hosts="hooks.example.org", webhook_secret=secret)


def test_a_secret_is_not_shown(own_settings: Settings) -> None:
    assert SECRET not in repr(own_settings)
