"""What the system tests share: tiny weights, radiographs as files, and the dataset that each must make."""

import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from cli.children import pansynth
from tests.system.names import everything, send_names
from tests.system.running import (
    Ended,
    Left,
    Radiographs,
    Restarted,
    Running,
    WorkerKilled,
    embedded,
    family,
    make_dataset,
    sockets,
    submit_job,
    until_halfway,
    write_radiographs,
)
from tests.waiting import is_alive


@pytest.fixture(scope="session")
def radiographs(tmp_path_factory: pytest.TempPathFactory) -> Radiographs:
    """Two guides with masks and a pool of twelve."""
    return write_radiographs(tmp_path_factory.mktemp("radiographs"), seed=700_001, guides=2, pool=12)


@pytest.fixture(scope="session")
def restarted(
    tmp_path_factory: pytest.TempPathFactory, weights_dir: Path, radiographs: Radiographs
) -> Iterator[Restarted]:
    data = tmp_path_factory.mktemp("killed") / "data #1, 80%25?"  # signs that mean something in a URL
    soon = {"PANSYNTH_LEASE_SECONDS": "9"}  # what the second worker held is free again when the first is back alone
    with embedded(data, weights_dir, workers=2, environment=soon) as service, service.client() as client:
        worker_killed = kill_a_worker(service, client, radiographs, data.with_suffix(".zip"))
        job = submit_job(client, radiographs)
        until_halfway(client, job)
        running = family(service.process)
        service.process.kill()
        service.process.wait()
        end = time.monotonic() + 10
        while any(is_alive(process) for process in running) and time.monotonic() < end:
            time.sleep(0.05)
        left = Left([process for process in running if is_alive(process)], sockets(data))
    create = pansynth("keys", "create", "clinic", "--data-dir", str(data))
    key = subprocess.run(create, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    with embedded(data, weights_dir, options=("--host", "0.0.0.0")) as service:
        began = Left(family(service.process), sockets(data))
        service = replace(service, url=service.url.replace("0.0.0.0", "127.0.0.1"), key=key)
        yield Restarted(worker_killed, service, data, job, left, began)


@pytest.fixture(scope="session")
def reference(restarted: Restarted) -> bytes:
    """The dataset that every way to run the main job must make."""
    return restarted.worker_killed.dataset


@pytest.fixture(scope="session")
def ended(restarted: Restarted) -> Ended:
    """For the last tests: those before them need the service."""
    service, folder = restarted.service, restarted.data_dir.parent
    with service.client() as client:
        answers = send_names(client)
    files_before, running = everything(folder), family(service.process)
    service.process.send_signal(signal.SIGINT)
    status = service.process.wait(20)
    after = Left([process for process in running if is_alive(process)], sockets(folder))
    return Ended(answers, files_before, status, after, everything(folder))


def kill_a_worker(service: Running, client: httpx.Client, radiographs: Radiographs, out: Path) -> WorkerKilled:
    before = service.workers()
    dataset = make_dataset(client, radiographs, out, halfway=before[0].kill)
    after = {worker.pid for worker in service.workers()}
    return WorkerKilled(dataset, before[0].pid, {worker.pid for worker in before}, after)
