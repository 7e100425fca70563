"""A worker in this process, with real stores and tiny real networks."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from app import pools
from app.settings import Settings
from models.phantoms import Phantom, phantoms
from tests.worker_service import GoingOn, begun, dataset, fill_pool, settings_for, submit, work_off, workplace
from worker.workplace import Workplace


@pytest.fixture(scope="session")
def radiographs() -> list[Phantom]:
    """Two guides, and after them what the pools are made of."""
    return list(phantoms(seed=900, count=14))


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory, sqlite_schema: Path) -> Path:
    """The data folder of a service before anything was done."""
    folder = tmp_path_factory.mktemp("empty")
    shutil.copy(sqlite_schema, folder / "pansynth.sqlite")
    return folder


@pytest.fixture(scope="session")
def going_on(tmp_path_factory: pytest.TempPathFactory, weights_dir: Path, broker_url: str) -> GoingOn:
    """`with going_on(beginning) as place`: what many tests need is done once, in a copy of a data folder.

    They begin with a copy of what it leaves in `place.settings.data_dir`.
    """

    @contextmanager
    def opened(beginning: Path) -> Iterator[Workplace]:
        data_dir = begun(beginning, tmp_path_factory.mktemp("begun"))
        with workplace(settings_for(data_dir, weights_dir, broker_url), "earlier@test") as place:
            yield place

    return opened


@pytest.fixture(scope="session")
def filled(going_on: GoingOn, empty: Path, radiographs: Sequence[Phantom]) -> Callable[[int], Path]:
    """`filled(count)`: a data folder whose pool p a worker filled with so many of the radiographs, the guides left out.

    Tests that need no more than a pool begin with a copy of it.
    """

    @cache
    def fill(count: int) -> Path:
        with going_on(empty) as place:
            fill_pool(place, radiographs[2 : 2 + count])
        return place.settings.data_dir

    return fill


@pytest.fixture(scope="session")
def undisturbed(
    going_on: GoingOn,
    filled: Callable[[int], Path],
    radiographs: Sequence[Phantom],
) -> bytes:
    """The dataset of both guides and a pool of twelve, as one worker makes it that nothing happens to."""
    with going_on(filled(12)) as place:
        job_id = submit(place, radiographs[:2])
        work_off(place)
        return dataset(place, job_id)


@pytest.fixture
def beginning(empty: Path) -> Path:
    """The data folder that the tests of a module begin with a copy of."""
    return empty


@pytest.fixture
def settings(tmp_path: Path, beginning: Path, weights_dir: Path, broker_url: str) -> Settings:
    return settings_for(begun(beginning, tmp_path), weights_dir, broker_url)


@pytest.fixture
def place(settings: Settings) -> Iterator[Workplace]:
    with workplace(settings) as opened:
        yield opened


@pytest.fixture
def pool(place: Workplace) -> str:
    """The id of the pool that the test begins with."""
    with place.database.read() as session:
        return pools.find(session, "p").id


@pytest.fixture
def second_place(settings: Settings) -> Iterator[Workplace]:
    """Another worker of the same service."""
    with workplace(settings, "two@test") as opened:
        yield opened
