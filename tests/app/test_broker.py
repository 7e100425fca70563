"""app/broker.py, with a real Valkey on a unix socket."""

from pathlib import Path
from uuid import uuid4

import pytest
from celery import Celery
from kombu.exceptions import OperationalError

from app import broker
from app.settings import Settings


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
