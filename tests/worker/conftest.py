"""A worker in this process, with real stores and tiny real networks."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app import database
from app.settings import Settings
from models.phantoms import Phantom, phantoms
from tests.tiny import make_tiny_weights
from worker.workplace import Workplace, open_workplace


@pytest.fixture(scope="session")
def weights_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    make_tiny_weights(folder / "default")
    return folder


@pytest.fixture(scope="session")
def radiographs() -> list[Phantom]:
    """Two guides, and after them what the pools are made of."""
    return list(phantoms(seed=900, count=14))


@pytest.fixture
def settings(tmp_path: Path, weights_dir: Path, broker_url: str) -> Settings:
    made = Settings(
        data_dir=tmp_path / "data",
        weights_dir=weights_dir,
        broker_url=broker_url,
        device="cpu",
        lease_seconds=9,
    )
    database.migrate(made.database())
    return made


@pytest.fixture
def place(settings: Settings) -> Iterator[Workplace]:
    opened = open_workplace(settings, "one@test")
    yield opened
    opened.decoder.close()
    opened.database.dispose()


@pytest.fixture
def second_place(settings: Settings) -> Iterator[Workplace]:
    """Another worker of the same service."""
    opened = open_workplace(settings, "two@test")
    yield opened
    opened.decoder.close()
    opened.database.dispose()
