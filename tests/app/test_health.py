import socket
import threading
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from sqlalchemy import event, update

from app import database
from app.monitoring.figures import Figures
from app.service import Service
from app.settings import Settings
from app.tables import Worker
from tests.serving import (
    WORKER,
    Served,
    answer_of,
    claim,
    figures,
    give_sign_of_life,
    make_sample,
    plan,
    serving,
    submit,
)
from tests.waiting import until


def test_it_is_alive(client: httpx.Client) -> None:
    assert client.get("/livez").json() == {"status": "alive"}
    assert client.head("/livez").status_code == 200  # as some load balancers ask


def test_it_is_alive_while_all_its_threads_wait_for_a_database_that_says_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(database.PATIENCE, "connect_timeout", "60")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    away = settings.model_copy(update={"database_url": f"postgresql://nobody@127.0.0.1:{port}/none"})
    with serving(away) as served, socket.create_server(("127.0.0.1", port)), ExitStack() as waiting:
        for _ in range(50):  # there are 40 threads
            asked = waiting.enter_context(socket.create_connection(("127.0.0.1", served.port)))
            asked.sendall(b"GET /jobs HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with pytest.raises(httpx.ReadTimeout):
            while True:
                served.client.get("/presets", timeout=0.5)
        assert served.client.get("/livez").status_code == 200


def test_who_asks_whether_it_is_ready_holds_nobody_up_while_a_store_hangs(served: Served) -> None:
    answers, looks = threading.Event(), []

    def wait(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "SELECT 1 FROM jobs" in statement:
            looks.append(statement)
            answers.wait(60)

    engine = served.service.database.engine
    with ExitStack() as stack:
        event.listen(engine, "before_cursor_execute", wait)
        stack.callback(event.remove, engine, "before_cursor_execute", wait)
        asking = []
        for _ in range(60):  # more than there are threads
            asking.append(stack.enter_context(socket.create_connection(("127.0.0.1", served.port), timeout=20)))
            asking[-1].sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        stack.callback(answers.set)
        until(lambda: looks)
        assert served.client.get("/jobs").status_code == 200
        answers.set()
        assert {answer_of(one).partition("\n")[0] for one in asking} == {"HTTP/1.1 503 Service Unavailable"}


def test_it_is_ready_with_a_live_worker(client: httpx.Client, service: Service) -> None:
    give_sign_of_life(service, ["default"])
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ready", "store": "ok", "broker": "ok", "worker": "ok"}


def test_it_names_what_is_missing(client: httpx.Client) -> None:
    assert client.head("/readyz").status_code == 503
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert [error["field"] for error in answer.json()["errors"]] == ["worker"]
    assert "Retry-After" in answer.headers


def test_a_worker_that_is_missing_is_told_in_words_also_where_keys_are_asked_for(
    client: httpx.Client, guarded: Served
) -> None:
    words = "no worker has given a sign of life lately; start one with `pansynth worker`"
    for asked in (client, guarded.client):
        assert asked.get("/readyz").json()["errors"] == [{"field": "worker", "detail": words}]


@pytest.mark.parametrize("year", [2020, 2099])  # long ago, and before the clock was set back
def test_an_old_sign_of_life_is_none(client: httpx.Client, service: Service, year: int) -> None:
    give_sign_of_life(service, [])
    with service.database.write() as session:
        session.execute(update(Worker).values(seen_at=datetime(year, 1, 1, tzinfo=UTC)))
    assert client.get("/readyz").status_code == 503


def test_who_asks_whether_it_is_ready_is_not_refused(client: httpx.Client) -> None:
    before = figures(client)
    assert client.get("/readyz").status_code == 503
    refusals = [name for name in figures(client) if name.startswith("pansynth_refusals")]
    assert refusals == [name for name in before if name.startswith("pansynth_refusals")]
    assert all(figures(client)[name] == before[name] for name in refusals)


@pytest.mark.parametrize("keys", [False, True])
def test_it_is_not_ready_without_its_stores_and_tells_the_operator_alone_where_they_are(
    settings: Settings, keys: bool
) -> None:
    away = {
        "api_keys_required": keys,
        "database_url": "postgresql://nobody@127.0.0.1:1/none",
        "broker_url": "redis+socket:///nowhere/broker.sock",
    }
    with serving(settings.model_copy(update=away)) as served:
        answer = served.client.get("/readyz")
    assert answer.status_code == 503
    assert [error["field"] for error in answer.json()["errors"]] == ["store", "broker", "worker"]
    assert ("127.0.0.1" in answer.text) == ("/nowhere/" in answer.text) == (not keys)


def test_a_full_disk_is_told(client: httpx.Client, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its workers cannot give a sign of life any more, and starting another one would not help."""
    give_sign_of_life(service, [])
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=40_000))
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert [error["field"] for error in answer.json()["errors"]] == ["store"]
    assert "No space left on device" in answer.json()["errors"][0]["detail"]


def test_a_bucket_that_is_not_there_is_a_store_that_is_away(settings: Settings, s3_url: str, tmp_path: Path) -> None:
    assert s3_url, "it is there, unlike another"
    away = {"blob_url": "s3://a-bucket-that-nobody-made/prefix", "data_dir": tmp_path}
    with serving(settings.model_copy(update=away)) as served:
        give_sign_of_life(served.service, [])
        ready = served.client.get("/readyz")
        taken = served.client.post("/pools/default/images", files={"images": ("a.png", b"x")})
    assert [error["field"] for error in ready.json()["errors"]] == ["store"]
    assert (ready.status_code, taken.status_code) == (503, 503)
    assert "blob store" in taken.json()["detail"]


def test_the_figures_follow_the_jobs(client: httpx.Client, service: Service, pool: str) -> None:
    refused = 'pansynth_refusals_total{reason="job-not-found",status="404"}'
    before = figures(client)
    client.get("/jobs/x")
    job = submit(client, pool)
    waiting = figures(client)
    depth = 'pansynth_queue_depth{kind="synthesis"}'
    assert waiting['pansynth_jobs{kind="synthesis",status="queued"}'] == waiting[depth] == 1
    assert waiting["pansynth_steps_to_do"] == 1
    assert waiting["pansynth_oldest_queued_seconds"] >= 0
    assert waiting[refused] == before.get(refused, 0) + 1

    plan(service, pool, 2)
    make_sample(service, claim(service), 0)
    give_sign_of_life(service, [])
    running = figures(client)
    assert running['pansynth_jobs{kind="synthesis",status="running"}'] == 1
    assert running[depth] == 0
    assert running["pansynth_workers_alive"] == 1
    assert running["pansynth_steps_to_do"] == 1
    client.post(job["links"]["cancel"])
    assert figures(client)["pansynth_steps_to_do"] == 0, "its worker is to leave it"


def test_the_figures_show_what_live_workers_have_counted(client: httpx.Client, service: Service) -> None:
    counted = Figures()
    counted.samples_made(4)
    counted.samples_made(3)
    for seconds in (0.5, 10.0, 1000.0):
        counted.step_ended("sample", seconds)
    gpu = {"used": 2_000_000_000, "total": 80_000_000_000}
    give_sign_of_life(service, [], {**counted.snapshot(), "gpu": gpu})
    found = figures(client)
    worker = f'worker="{WORKER}"'
    assert found[f"pansynth_samples_total{{{worker}}}"] == 7
    steps = f'pansynth_step_seconds_{{}}{{{{kind="sample",{{}}{worker}}}}}'
    buckets = {bound: found[steps.format("bucket", f'le="{bound}",')] for bound in ("1.0", "3.0", "10.0", "+Inf")}
    assert buckets == {"1.0": 1, "3.0": 1, "10.0": 2, "+Inf": 3}
    assert found[steps.format("count", "")] == 3
    assert found[steps.format("sum", "")] == 1010.5
    assert found[f"pansynth_gpu_memory_used_bytes{{{worker}}}"] == gpu["used"]


def test_a_worker_of_a_version_that_counts_nothing_is_alive_all_the_same(
    client: httpx.Client, service: Service
) -> None:
    give_sign_of_life(service, [])
    assert figures(client)["pansynth_workers_alive"] == 1
