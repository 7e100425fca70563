"""worker/celery.py: real worker processes, killed and stopped."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from app import broker, jobs, keys, queries
from app.settings import Settings
from models.phantoms import Phantom
from tests.worker_service import dataset, fill_pool, look, manifest, submit, work_off
from worker.workplace import Workplace

pytestmark = pytest.mark.timeout(900)  # processes start slowly on a busy machine


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


def wait_for(what: Callable[[], bool], log: Path, seconds: float = 400) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.05)


def sweep(place: Workplace) -> None:
    """What the API does every two seconds."""
    with place.database.write() as session:
        claimable = jobs.sweep(session, now=datetime.now(UTC))
    broker.top_up(place.celery, claimable)


def workers(place: Workplace) -> list[str]:
    with place.database.read() as session:
        return [worker.id for worker in queries.live_workers(session, datetime.now(UTC))]


def test_a_killed_process_costs_time_and_nothing_else(
    place: Workplace, settings: Settings, radiographs: Sequence[Phantom], tmp_path: Path
) -> None:
    fill_pool(place, radiographs[2:])
    undisturbed = submit(place, radiographs[:2])
    work_off(place)
    job_id = submit(place, radiographs[:2])
    log = tmp_path / "worker.log"
    with celery_worker(settings, log) as process:
        wait_for(lambda: len(workers(place)) == 1, log)
        broker.wake(place.celery, job_id)
        wait_for(lambda: look(place, job_id).status == "running", log)
        child = psutil.Process(process.pid).children()[0]
        os.kill(child.pid, signal.SIGKILL)

        def ended() -> bool:
            sweep(place)
            return look(place, job_id).status not in ("queued", "running")

        wait_for(ended, log)
        assert process.poll() is None
    assert manifest(dataset(place, undisturbed)) == manifest(dataset(place, job_id))
    assert dataset(place, undisturbed) == dataset(place, job_id)
    if process.returncode == 0:
        assert workers(place) == [], "a worker that leaves takes its row along"


def test_a_step_that_hangs_is_ended_and_tried_again(
    place: Workplace, settings: Settings, radiographs: Sequence[Phantom], tmp_path: Path
) -> None:
    pool_id = fill_pool(place, radiographs[2:5])
    undisturbed = submit(place, radiographs[:1])
    work_off(place)
    job_id = submit(place, radiographs[:1])
    image = (
        place.settings.data_dir
        / "blobs"
        / keys.pool_image(pool_id, manifest(dataset(place, undisturbed))[1]["pool_image_sha256"])
    )
    aside = image.rename(tmp_path / "aside")
    os.mkfifo(image)  # who opens it waits for a writer, in native code
    log = tmp_path / "worker.log"
    with celery_worker(settings.model_copy(update={"hung_seconds": 5.0}), log):

        def hung() -> bool:
            sweep(place)
            return "nothing moved for 5 s" in log.read_text()

        wait_for(hung, log)
        aside.replace(image)

        def ended() -> bool:
            sweep(place)
            return look(place, job_id).status not in ("queued", "running")

        wait_for(ended, log)
    assert dataset(place, undisturbed) == dataset(place, job_id)
