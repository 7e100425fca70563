"""Services run for real, as processes, and what a client does with them."""

import os
import re
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from cli.children import pansynth
from cli.client import download, submit, wait
from cli.pool import import_files
from models.phantoms import phantoms
from models.pixels import image_png, mask_png
from tests.waiting import is_alive, until

READY_SECONDS = 240.0  # seconds of work, but the tests may share their cores with others
ENVIRONMENT = {**os.environ, "PANSYNTH_DEVICE": "cpu"}
# Enough noise levels that a job of the tiny networks lasts for a second or two.
FIELDS = {"pool": "held", "top_k": 8, "seed": 7, "steps": 40, "start_timestep": 40}


PATIENT = pytest.mark.timeout(600)  # services start slowly on a busy machine


@dataclass(frozen=True)
class Radiographs:
    guides: list[Path] = field(default_factory=list)
    masks: list[Path] = field(default_factory=list)
    pool: list[Path] = field(default_factory=list)


def write_radiographs(folder: Path, seed: int, guides: int, pool: int) -> Radiographs:
    """Phantoms as files: guides with their masks, and a pool."""
    files = Radiographs()
    for index, phantom in enumerate(phantoms(seed, guides + pool)):
        image = folder / f"{index:03d}.png"
        image.write_bytes(image_png(phantom.image))
        if index < guides:
            mask = folder / f"{index:03d}-mask.png"
            mask.write_bytes(mask_png(phantom.mask))
            files.guides.append(image)
            files.masks.append(mask)
        else:
            files.pool.append(image)
    return files


@dataclass(frozen=True)
class Running:
    """A service that is ready. `process` is its `pansynth up`, or that of its API in a fleet."""

    url: str
    process: subprocess.Popen[str]
    log: Path
    key: str = ""

    def client(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30)

    def workers(self) -> list[psutil.Process]:
        """The `pansynth worker` processes that `up` started, without those they forked."""
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if "worker" in child.cmdline()]


@dataclass(frozen=True)
class Left:
    """What a service has running and lying about."""

    processes: list[psutil.Process]
    sockets: list[Path]


@dataclass(frozen=True)
class WorkerKilled:
    """One of two workers was killed in the middle of the main job; process ids of workers before and after it."""

    dataset: bytes
    victim: int
    before: set[int]
    after: set[int]


@dataclass(frozen=True)
class Restarted:
    """A service that was killed in the middle of `job`, and what was left of it; then started again, for others, too:
    it asks for `service.key`. What it began with.
    """

    worker_killed: WorkerKilled  # before all that
    service: Running
    data_dir: Path
    job: dict[str, Any]
    left: Left
    began: Left


@dataclass(frozen=True)
class Ended:
    """That service ended by Ctrl-C: of jobs of files full of names the answers, what there was before and after it."""

    answers: list[bytes]
    files_before: dict[str, bytes]
    status: int
    after: Left
    files_after: dict[str, bytes]


@contextmanager
def started(command: list[str], environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[str]]:
    """A process; at the end it is asked to stop, and what is left of it then is an error."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as output:
        process = subprocess.Popen(
            command, env=ENVIRONMENT | dict(environment), stdout=output, stderr=output, text=True
        )
    try:
        yield process
    finally:
        descendants = family(process)
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        left = [child for child in descendants if is_alive(child)]
        for child in left:
            child.kill()
        assert not left, f"{left} outlived {command}: {log.read_text()}"


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Every descendant that runs now."""
    return psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []


def sockets(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if stat.S_ISSOCK(path.lstat().st_mode)]


@contextmanager
def embedded(
    data_dir: Path,
    weights_dir: Path,
    workers: int = 1,
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Iterator[Running]:
    """`pansynth up` with nothing set."""
    command = pansynth("up", "--port", "0", "--data-dir", str(data_dir), "--workers", str(workers), *options)
    log = data_dir.with_suffix(".log")
    log.unlink(missing_ok=True)
    with started(command, {"PANSYNTH_WEIGHTS_DIR": str(weights_dir), **(environment or {})}, log) as process:
        until_ready(lambda: "pansynth is ready at " in log.read_text(), process, log)
        yield Running(re.findall(r"^pansynth is ready at (\S+)$", log.read_text(), re.MULTILINE)[0], process, log)


@contextmanager
def api(folder: Path, environment: dict[str, str]) -> Iterator[Running]:
    """An API alone: without workers, jobs that it takes in wait until they are cancelled."""
    log = folder / "serve.log"
    log.unlink(missing_ok=True)
    with started(pansynth("serve", "--port", "0"), environment, log) as process:
        until_ready(lambda: "running on http" in log.read_text(), process, log)
        yield Running(re.findall(r"running on (\S+)", log.read_text())[0], process, log)


@contextmanager
def fleet(folder: Path, weights_dir: Path, database_url: str, broker_url: str, workers: int) -> Iterator[Running]:
    """`pansynth migrate`, `serve` and `worker`, over servers of their own, with logs for machines to read."""
    environment = {
        "PANSYNTH_LOG_FORMAT": "json",
        "PYTHONWARNINGS": "ignore",  # Celery's to root comes before all logging
        "PANSYNTH_DATABASE_URL": database_url,
        "PANSYNTH_BROKER_URL": broker_url,
        "PANSYNTH_DATA_DIR": str(folder / "data"),
        "PANSYNTH_WEIGHTS_DIR": str(weights_dir),
    }
    subprocess.run(pansynth("migrate"), env=ENVIRONMENT | environment, check=True, timeout=60)
    with ExitStack() as stack:
        for number in range(workers):
            worker = pansynth("worker", "--name", f"worker-{number}")
            stack.enter_context(started(worker, environment, folder / f"worker-{number}.log"))
        service = stack.enter_context(api(folder, environment))
        with service.client() as client:
            until_ready(lambda: client.get("/readyz").status_code == 200, service.process, service.log)
        yield service


def until_ready(what: Callable[[], bool], process: subprocess.Popen[str], log: Path) -> None:
    def ready() -> bool:
        assert process.poll() is None, f"it ended: {log.read_text()}"
        return what()

    until(ready, READY_SECONDS, log.read_text)


def import_pool(client: httpx.Client, radiographs: Radiographs) -> None:
    files = [("images", path.name, path) for path in radiographs.pool]
    outcome = import_files(client, "held", files, quiet)
    assert outcome == {"stored": len(files), "duplicates": 0, "rejected_count": 0, "rejected": []}


def submit_job(client: httpx.Client, radiographs: Radiographs, fields: Mapping[str, object] = FIELDS) -> dict[str, Any]:
    guides = [("image", path.name, path) for path in radiographs.guides]
    masks = [("mask", path.name, path) for path in radiographs.masks]
    return submit(client, "/synthesize", [*guides, *masks], fields)


def make_dataset(
    client: httpx.Client, radiographs: Radiographs, out: Path, halfway: Callable[[], None] | None = None
) -> bytes:
    """The main job as a client does it; `halfway` is called when some samples are made and others are not."""
    import_pool(client, radiographs)
    job = submit_job(client, radiographs)
    if halfway is not None:
        until_halfway(client, job)
        halfway()
    job = wait(client, job, quiet)
    download(client, job["links"]["dataset"], out, quiet)
    return out.read_bytes()


def until_halfway(client: httpx.Client, job: dict[str, Any]) -> None:
    while True:
        progress = client.get(job["links"]["self"]).json()["progress"]
        assert progress["done"] < progress["total"] or not progress["total"], "the job was over too soon"
        if progress["done"]:
            return
        time.sleep(0.02)


def quiet(done: int, total: int, label: str | None = None) -> None:
    """A progress that nobody looks at."""
