"""The API that the tests of this room talk to."""

from collections.abc import Iterator

import httpx
import pytest

from app.service import Service
from app.settings import Settings
from tests.serving import Served, empty, fill_pool, finish, serving, submit, write_weights


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory, broker_url: str) -> Settings:
    """A data folder, the real broker, weights named default, and small limits."""
    folder = tmp_path_factory.mktemp("served")
    write_weights(folder / "weights")
    return Settings(
        data_dir=folder / "data",
        broker_url=broker_url,
        weights_dir=folder / "weights",
        max_upload_bytes=2_000_000,
        max_queued_jobs=5,
    )


@pytest.fixture(scope="session")
def running(settings: Settings) -> Iterator[Served]:
    with serving(settings) as served:
        yield served


@pytest.fixture
def served(running: Served) -> Iterator[Served]:
    """The API as on its first start: the rows and blobs of a test go with it."""
    yield running
    empty(running.service)


@pytest.fixture
def client(served: Served) -> httpx.Client:
    return served.client


@pytest.fixture
def service(served: Served) -> Service:
    return served.service


@pytest.fixture
def pool(service: Service) -> str:
    """A pool of three images."""
    fill_pool(service, "held", 3)
    return "held"


@pytest.fixture
def finished(client: httpx.Client, service: Service, pool: str) -> str:
    """The id of a job that has made two samples: the first all 100, the second all 101."""
    submit(client, pool)
    return finish(service, pool, 2, b"a dataset")


@pytest.fixture(scope="session")
def running_guarded(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("guarded")
    with serving(settings.model_copy(update={"data_dir": folder, "api_keys_required": True})) as served:
        yield served


@pytest.fixture
def guarded(running_guarded: Served) -> Iterator[Served]:
    """An API that asks for keys; it has none on its first start."""
    yield running_guarded
    empty(running_guarded.service)
