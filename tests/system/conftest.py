"""What the system tests share: tiny weights, radiographs as files, and the dataset that each must make."""

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cli.children import pansynth
from cli.client import connect
from cli.failure import Failure
from tests.system.names import everything, send_names
from tests.system.running import (
    FirstRun,
    Left,
    Radiographs,
    Restarted,
    Running,
    WorkerKilled,
    embedded,
    family,
    import_pool,
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
def first_run(tmp_path_factory: pytest.TempPathFactory, weights_dir: Path, radiographs: Radiographs) -> FirstRun:
    """`pansynth up --host 0.0.0.0`, whose key a clinic has: the main job and jobs full of names, ended by Ctrl-C."""
    folder, out = tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("clinic") / "dataset.zip"
    data = folder / "data"
    create = pansynth("keys", "create", "clinic", "--tenant", "clinic", "--data-dir", str(data))
    key = subprocess.run(create, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    with embedded(data, weights_dir, options=("--host", "0.0.0.0")) as service, pytest.MonkeyPatch.context() as patch:
        before = Left(family(service.process), sockets(folder))
        status_without_key = httpx.get(f"{service.url}/jobs").status_code
        with pytest.raises(Failure) as refused, connect(service.url) as client:
            import_pool(client, radiographs)
        patch.setenv("PANSYNTH_API_KEY", key)
        with connect(service.url) as client:
            dataset = make_dataset(client, radiographs, out)
            answers = send_names(client)
        files_before = everything(folder)
        service.process.send_signal(signal.SIGINT)
        status = service.process.wait(20)
        after = Left([process for process in before.processes if is_alive(process)], sockets(folder))
    return FirstRun(
        url=service.url,
        output=service.log.read_text(),
        status_without_key=status_without_key,
        words_without_key=str(refused.value),
        dataset=dataset,
        answers=answers,
        before=before,
        files_before=files_before,
        status=status,
        after=after,
        files_after=everything(folder),
    )


@pytest.fixture(scope="session")
def reference(first_run: FirstRun) -> bytes:
    """The dataset that every way to run the same job must make."""
    return first_run.dataset


@pytest.fixture(scope="session")
def restarted(
    tmp_path_factory: pytest.TempPathFactory, weights_dir: Path, radiographs: Radiographs
) -> Iterator[Restarted]:
    data = tmp_path_factory.mktemp("killed") / "data"
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
    with embedded(data, weights_dir) as service:
        yield Restarted(worker_killed, service, data, job, left)


def kill_a_worker(service: Running, client: httpx.Client, radiographs: Radiographs, out: Path) -> WorkerKilled:
    before = service.workers()
    dataset = make_dataset(client, radiographs, out, halfway=before[0].kill)
    after = {worker.pid for worker in service.workers()}
    return WorkerKilled(dataset, before[0].pid, {worker.pid for worker in before}, after)
