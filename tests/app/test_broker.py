"""app/broker.py, with a real Valkey on a unix socket."""

import sys
import traceback
from pathlib import Path
from uuid import uuid4

import pytest
import redis
from celery import Celery
from kombu.exceptions import OperationalError

from app import broker
from app.settings import Settings
from tests.serving import serving
from tests.waiting import until


@pytest.fixture
def celery(broker_url: str, monkeypatch: pytest.MonkeyPatch) -> Celery:
    monkeypatch.setattr(broker, "QUEUE", f"q{uuid4().hex}")  # the server is shared with other tests
    return broker.celery_app(Settings(broker_url=broker_url))


def test_a_wake_up_waits_in_the_queue(celery: Celery) -> None:
    assert broker.waiting(celery) == 0
    broker.wake(celery, "job", 3)
    assert broker.waiting(celery) == 3


def test_topping_up_sends_only_what_the_queue_lacks(celery: Celery) -> None:
    broker.wake(celery, "job", 2)
    assert broker.top_up(celery, ["a", "b", "c", "d"]) == 2
    assert broker.top_up(celery, ["a", "b", "c", "d"]) == 0
    assert broker.top_up(celery, []) == 0
    assert broker.waiting(celery) == 4


def test_a_broker_that_answers_is_told_from_one_that_does_not(
    celery: Celery, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broker.ping(celery)
    nobody = broker.celery_app(Settings(broker_url=f"redis+socket://{tmp_path / 'none.sock'}"))
    with pytest.raises(OperationalError):
        broker.ping(nobody)
    with pytest.raises(OperationalError):
        broker.top_up(nobody, ["job"])
    broker.wake(nobody, "job")
    assert "job job waits for the broker to come back" in caplog.text


def test_while_the_broker_hangs_one_thread_waits_for_it_however_many_jobs_come_in(
    settings: Settings, tmp_path: Path, broker_by_tcp: str
) -> None:
    def waiting_threads() -> int:
        stacks = (traceback.walk_stack(frame) for frame in sys._current_frames().values())
        return sum(any(frame.f_code is broker.wake.__code__ for frame, _ in stack) for stack in stacks)

    given = settings.model_copy(update={"data_dir": tmp_path, "broker_url": broker_by_tcp})
    with serving(given) as served, redis.Redis.from_url(broker_by_tcp) as valkey:
        valkey.client_pause(60_000, all=False)  # commands that write
        for _ in range(5):
            answer = served.client.post("/pools/default/images", files={"images": ("a.png", b"x")})
            assert answer.status_code == 202, answer.text
            until(waiting_threads)
        assert waiting_threads() == 1
        valkey.client_unpause()
        until(lambda: broker.waiting(served.service.celery) >= 5)
