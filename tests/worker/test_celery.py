"""worker/celery.py: a worker process that is ready, hangs and is told to stop; the fault tests kill one."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
from sqlalchemy import select

from app import broker, jobs, keys, queries
from app.settings import Settings
from app.tables import Step
from models.phantoms import Phantom
from tests.waiting import until
from tests.worker_service import dataset, look, manifest, submit
from worker.workplace import Workplace

pytestmark = pytest.mark.timeout(900)  # processes start slowly on a busy machine


@pytest.fixture(scope="module")
def beginning(filled: Callable[[int], Path]) -> Path:
    return filled(12)


@contextmanager
def celery_worker(settings: Settings, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    options = f"worker -n w1@%h --pool prefork -c 1 -Q {broker.QUEUE} -l INFO --without-gossip --without-mingle"
    command = [sys.executable, "-m", "celery", "-A", "worker.celery:app", *options.split()]
    given = {
        "PANSYNTH_DATA_DIR": str(settings.data_dir),
        "PANSYNTH_BROKER_URL": settings.broker_url,
        "PANSYNTH_WEIGHTS_DIR": str(settings.weights_dir),
        "PANSYNTH_DEVICE": "cpu",
    }
    given["PANSYNTH_HUNG_SECONDS"] = str(settings.hung_seconds)
    with log.open("ab") as out:
        process = subprocess.Popen(command, env=os.environ | given, stdout=out, stderr=out)
    try:
        yield process
    finally:
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.terminate()
        try:
            process.wait(30)
            assert not any(child.is_running() for child in children), log.read_text()
        except subprocess.TimeoutExpired:  # Celery's warm shutdown hangs once in a while; supervisors kill it
            for each in (*children, process):
                each.kill()
            process.wait(10)


def sweep(place: Workplace) -> None:
    """What the API does every two seconds, sooner, but not as often as one can."""
    time.sleep(0.2)
    with place.database.write() as session:
        claimable = jobs.sweep(session, now=datetime.now(UTC))
    broker.top_up(place.celery, claimable)


def workers(place: Workplace) -> list[str]:
    with place.database.read() as session:
        return [worker.id for worker in queries.live_workers(session, datetime.now(UTC))]


def step_of(place: Workplace, job_id: str) -> str:
    """The status of a job's newest step."""
    with place.database.read() as session:
        return session.scalars(select(Step.status).where(Step.job_id == job_id).order_by(Step.id.desc())).first() or ""


def finish(place: Workplace, job_id: str, log: Path) -> None:
    def ended() -> bool:
        sweep(place)
        return look(place, job_id).status not in ("queued", "running")

    until(ended, 400, log.read_text)


def test_a_step_that_hangs_costs_time_and_nothing_else_and_one_in_hand_is_handed_back_at_the_end(
    place: Workplace,
    pool: str,
    settings: Settings,
    radiographs: Sequence[Phantom],
    undisturbed: bytes,
    tmp_path: Path,
) -> None:
    hanging = submit(place, radiographs[:2])
    chosen = manifest(undisturbed)[1]["pool_image_sha256"]
    image = settings.data_dir / "blobs" / keys.pool_image(pool, chosen)
    aside = image.rename(tmp_path / "aside")
    os.mkfifo(image)  # who opens it waits for a writer, in native code
    log = tmp_path / "worker.log"
    with celery_worker(settings.model_copy(update={"hung_seconds": 8.0}), log) as process:
        until(lambda: "this worker is ready, on cpu" in log.read_text(), 400, log.read_text)
        until(lambda: len(workers(place)) == 1, 400, log.read_text)

        def hung() -> bool:
            sweep(place)
            return "nothing moved for 8 s" in log.read_text()

        until(hung, 400, log.read_text)
        aside.replace(image)
        finish(place, hanging, log)
        assert process.poll() is None

        minutes = submit(place, radiographs[:2], start_timestep=999, steps=999)
        broker.wake(place.celery, minutes)
        until(lambda: look(place, minutes).stage == "sampling", 400, log.read_text)
        until(lambda: step_of(place, minutes) == "leased", 400, log.read_text)
        process.terminate()
        # Handed back: it has not made its first sample.
        until(lambda: step_of(place, minutes) == "ready", 60, log.read_text)
        assert look(place, minutes).done == 0
    assert manifest(dataset(place, hanging)) == manifest(undisturbed)
    assert dataset(place, hanging) == undisturbed
    if process.returncode == 0:
        assert workers(place) == [], "a worker that leaves takes its row along"
