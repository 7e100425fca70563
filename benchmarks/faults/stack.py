"""A service of real processes, kept up as an init system would: broker, API, workers over SQLite and a folder."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from app.broker import celery_app
from app.settings import Settings, broker_socket
from benchmarks.faults.stores import Stores
from cli.children import start
from cli.up import broker_command
from tests.receiver import SECRET, Received, Receiver, receiving

LEASE_SECONDS = 4.0
HUNG_SECONDS = 15.0
PATIENCE_SECONDS = 300.0


@dataclass
class Stack:
    """`paused` are the names of processes that stay down for now, `newer` of workers of the next version.

    receiver: is told of the ends of jobs, and takes nothing that is not signed for its clock.
    """

    data_dir: Path
    weights_dir: Path
    receiver: Receiver
    workers: int = 2
    stores: Stores = field(default_factory=Stores)
    port: int = 0
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    paused: set[str] = field(default_factory=set)
    newer: set[str] = field(default_factory=set)
    # One for all requests: each new one reads the certificates anew, for longer than an answer takes.
    http: httpx.Client = field(
        default_factory=lambda: httpx.Client(trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))
    )

    def __post_init__(self) -> None:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self.settings = Settings(
            data_dir=self.data_dir,
            weights_dir=self.weights_dir,
            broker_url=f"redis+socket://{broker_socket(self.data_dir)}",
            device="cpu",
            lease_seconds=LEASE_SECONDS,
            database_url=self.stores.database_url,
            blob_url=self.stores.blob_url,
        )
        self.celery = celery_app(self.settings)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def names(self) -> list[str]:
        return ["broker", "api", *self.worker_names()]

    def worker_names(self) -> list[str]:
        return [f"worker-{n}" for n in range(self.workers)]

    def tend(self) -> None:
        """Start what is not running."""
        for name in self.names():
            process = self.processes.get(name)
            if name not in self.paused and (process is None or process.poll() is not None):
                self.processes[name] = self._start(name)

    def until(self, what: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> bool:
        """Tend until `what` is true; False after `seconds`."""
        end = time.monotonic() + seconds
        while not (true := what()) and time.monotonic() < end:
            self.tend()
            time.sleep(0.1)
        return true

    def is_ready(self) -> bool:
        with suppress(httpx.HTTPError):
            return self.http.get(f"{self.url}/readyz").status_code == 200
        return False

    def kill(self, name: str) -> None:
        """kill -9 of a process and all that it started."""
        process = self.processes[name]
        with suppress(psutil.NoSuchProcess):
            for one in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
        process.wait()

    def working(self, name: str) -> psutil.Process | None:
        """The process in which a worker does its steps: Celery forks it, again when it is killed."""
        with suppress(psutil.NoSuchProcess):
            children = psutil.Process(self.processes[name].pid).children()
            return children[0] if children else None
        return None

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        environment = os.environ | {
            "PANSYNTH_DATA_DIR": str(self.data_dir),
            "PANSYNTH_BROKER_URL": self.settings.broker_url,
            "PANSYNTH_WEIGHTS_DIR": str(self.weights_dir),
            "PANSYNTH_DEVICE": "cpu",
            "PANSYNTH_LEASE_SECONDS": str(LEASE_SECONDS),
            "PANSYNTH_HUNG_SECONDS": str(HUNG_SECONDS),
            "PANSYNTH_DATABASE_URL": self.stores.database_url,
            "PANSYNTH_BLOB_URL": self.stores.blob_url,
            "PANSYNTH_WEBHOOK_HOSTS": f"127.0.0.1:{self.receiver.port}",
            "PANSYNTH_WEBHOOK_SECRET": SECRET,
            "PANSYNTH_FAULTS_NEXT_VERSION": "1" if name in self.newer else "",
            "OMP_NUM_THREADS": "1",
        }
        module = [sys.executable, "-m", "benchmarks.faults.process"]
        if name == "broker":
            path = broker_socket(self.data_dir)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            command = broker_command(self.data_dir)
        elif name == "api":
            command = [*module, "serve", str(self.port)]
        else:
            command = [*module, "worker", name]
        return start(command, self.data_dir / f"{name}.log", environment)


@contextmanager
def running(data_dir: Path, weights_dir: Path, workers: int = 2, stores: Stores | None = None) -> Iterator[Stack]:
    """A stack that is ready; at its end nothing of it runs."""
    with receiving() as receiver:
        receiver.judge = is_genuine
        stack = Stack(data_dir, weights_dir, receiver, workers, stores or Stores())
        try:
            assert stack.until(stack.is_ready), "the service did not start; see its logs"
            yield stack
        finally:
            for process in stack.processes.values():
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            broker_socket(data_dir).unlink(missing_ok=True)
            stack.http.close()


def is_genuine(received: Received) -> int:
    """204 for a message that is signed and of these five minutes, 401 for others."""
    try:
        Webhook(SECRET).verify(received.body, received.headers)
    except WebhookVerificationError:
        return 401
    return 204
