"""A worker in this process, with real stores and tiny real networks."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest

from app import pools
from app.settings import Settings
from models.phantoms import Phantom, phantoms
from tests.worker_service import begun, dataset, fill_pool, settings_for, submit, work_off
from worker.workplace import Workplace, open_workplace


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
def filled(
    tmp_path_factory: pytest.TempPathFactory,
    empty: Path,
    weights_dir: Path,
    broker_url: str,
    radiographs: Sequence[Phantom],
) -> Callable[[int], Path]:
    """`filled(count)`: a data folder whose pool p a worker filled with so many of the radiographs, the guides left out.

    Tests that need no more than a pool begin with a copy of it.
    """

    @cache
    def fill(count: int) -> Path:
        folder = tmp_path_factory.mktemp("filled")
        place = open_workplace(settings_for(begun(empty, folder), weights_dir, broker_url), "filler@test")
        fill_pool(place, radiographs[2 : 2 + count])
        place.decoder.close()
        place.database.dispose()
        return place.settings.data_dir

    return fill


@pytest.fixture(scope="session")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory,
    filled: Callable[[int], Path],
    weights_dir: Path,
    broker_url: str,
    radiographs: Sequence[Phantom],
) -> bytes:
    """The dataset of both guides and a pool of twelve, as one worker makes it that nothing happens to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    place = open_workplace(settings_for(begun(filled(12), folder), weights_dir, broker_url), "undisturbed@test")
    job_id = submit(place, radiographs[:2])
    work_off(place)
    data = dataset(place, job_id)
    place.database.dispose()
    return data


@pytest.fixture
def beginning(empty: Path) -> Path:
    """The data folder that the tests of a module begin with a copy of."""
    return empty


@pytest.fixture
def settings(tmp_path: Path, beginning: Path, weights_dir: Path, broker_url: str) -> Settings:
    return settings_for(begun(beginning, tmp_path), weights_dir, broker_url)


@pytest.fixture
def place(settings: Settings) -> Iterator[Workplace]:
    opened = open_workplace(settings, "one@test")
    yield opened
    opened.decoder.close()
    opened.database.dispose()


@pytest.fixture
def pool(place: Workplace) -> str:
    """The id of the pool that the test begins with."""
    with place.database.read() as session:
        return pools.find(session, "p").id


@pytest.fixture
def second_place(settings: Settings) -> Iterator[Workplace]:
    """Another worker of the same service."""
    opened = open_workplace(settings, "two@test")
    yield opened
    opened.decoder.close()
    opened.database.dispose()
