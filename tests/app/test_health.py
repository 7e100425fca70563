from datetime import UTC, datetime

import httpx
from sqlalchemy import update

from app.service import Service
from app.settings import Settings
from app.tables import Worker
from tests.serving import claim, give_sign_of_life, make_sample, plan, serving, submit


def figures(client: httpx.Client) -> dict[str, float]:
    lines = [line for line in client.get("/metrics").text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_it_is_alive(client: httpx.Client) -> None:
    assert client.get("/livez").json() == {"status": "alive"}


def test_it_is_ready_with_a_live_worker(client: httpx.Client, service: Service) -> None:
    give_sign_of_life(service, ["default"])
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ready", "store": "ok", "broker": "ok", "worker": "ok"}


def test_it_names_what_is_missing(client: httpx.Client, service: Service) -> None:
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert [error["field"] for error in answer.json()["errors"]] == ["worker"]
    assert "Retry-After" in answer.headers

    give_sign_of_life(service, [])
    with service.database.write() as session:
        session.execute(update(Worker).values(seen_at=datetime(2020, 1, 1, tzinfo=UTC)))
    assert client.get("/readyz").status_code == 503


def test_it_is_not_ready_without_its_stores(settings: Settings) -> None:
    away = {
        "database_url": "postgresql://nobody@127.0.0.1:1/none",
        "broker_url": "redis+socket:///nowhere/broker.sock",
    }
    with serving(settings.model_copy(update=away)) as served:
        answer = served.client.get("/readyz")
    assert answer.status_code == 503
    assert [error["field"] for error in answer.json()["errors"]] == ["store", "broker", "worker"]


def test_the_figures_follow_the_jobs(client: httpx.Client, service: Service, pool: str) -> None:
    refused = 'pansynth_refusals_total{reason="job-not-found"}'
    before = figures(client)
    client.get("/jobs/x")
    submit(client, pool)
    waiting = figures(client)
    assert waiting['pansynth_jobs{kind="synthesis",status="queued"}'] == waiting["pansynth_queue_depth"] == 1
    assert waiting["pansynth_oldest_queued_seconds"] >= 0
    assert waiting[refused] == before.get(refused, 0) + 1

    plan(service, pool, 2)
    make_sample(service, claim(service), 0)
    give_sign_of_life(service, [])
    running = figures(client)
    assert running['pansynth_jobs{kind="synthesis",status="running"}'] == 1
    assert running["pansynth_queue_depth"] == 0
    assert running["pansynth_samples_stored"] == running["pansynth_workers_alive"] == 1
