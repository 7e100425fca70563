"""Webhooks and a killed API: what was not told before is told after."""

from pathlib import Path
from typing import Any

import httpx
from standardwebhooks.webhooks import Webhook

from app import database
from app.settings import Settings
from tests.receiver import SECRET, make_due, receiving
from tests.system.running import PATIENT, api
from tests.waiting import until

pytestmark = PATIENT


def ended_job(client: httpx.Client, url: str) -> dict[str, Any]:
    """A job that was to tell `url` of its end, and has ended."""
    images = {"images": ("a.png", b"never read")}
    job: dict[str, Any] = client.post("/pools/default/images", files=images, data={"webhook": url}).json()
    assert client.post(job["links"]["cancel"]).json()["status"] == "cancelled"
    return job


def test_a_webhook_outlives_the_api_that_should_have_sent_it(tmp_path: Path, broker_url: str) -> None:
    with receiving() as receiver:
        environment = {
            "PANSYNTH_DATA_DIR": str(tmp_path / "data"),
            "PANSYNTH_BROKER_URL": broker_url,
            "PANSYNTH_WEBHOOK_HOSTS": f"127.0.0.1:{receiver.port}",
            "PANSYNTH_WEBHOOK_SECRET": SECRET,
        }
        receiver.answers[:] = [None]  # it takes the message and says nothing, so the API dies in the middle
        with api(tmp_path, environment) as first, first.client() as client:
            jobs = [ended_job(client, receiver.url)]
            until(lambda: bool(receiver.received))
            jobs.append(ended_job(client, receiver.url))  # committed, and nobody has looked at it yet
            first.process.kill()
            first.process.wait()
        assert len(receiver.received) == 1

        store = database.connect(Settings(data_dir=tmp_path / "data").database())
        make_due(store)
        store.dispose()
        with api(tmp_path, environment) as second, second.client() as client:
            until(lambda: len(receiver.received) == 3)

            def webhook(job: dict[str, Any]) -> tuple[str, int]:
                found = client.get(job["links"]["self"]).json()["webhook"]
                return found["status"], found["attempts"]

            until(lambda: [webhook(job) for job in jobs] == [("delivered", 2), ("delivered", 1)])
    ids = [received.headers["webhook-id"] for received in receiver.received]
    assert ids[0] == f"msg_{jobs[0]['id']}"
    assert sorted(ids[1:]) == sorted(f"msg_{job['id']}" for job in jobs)
    for received in receiver.received:
        Webhook(SECRET).verify(received.body, received.headers)
