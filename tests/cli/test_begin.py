"""A command given twice: the real API tells whether the second goes on with the job of the first."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app import jobs, pools
from app.records import NewImage
from app.settings import Settings
from app.tables import PoolImage
from cli.client import File, begin
from tests.serving import Served, claim, empty, fill_pool, finish, guide_files, serving, write_weights

FIELDS = {"pool": "clinic", "top_k": 2, "model": "default"}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, broker_url: str) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    (folder / "weights").mkdir()
    settings = Settings(data_dir=folder / "data", broker_url=broker_url, weights_dir=folder / "weights")
    with serving(settings) as served:
        yield served


@pytest.fixture
def served(running: Served) -> Iterator[Served]:
    """With a pool, and weights that were trained once."""
    write_weights(weights_dir(running))
    fill_pool(running.service, "clinic", 2)
    yield running
    empty(running.service)
    shutil.rmtree(weights_dir(running) / "default")


def weights_dir(served: Served) -> Path:
    folder = served.service.settings.weights_dir
    assert folder is not None
    return folder


@pytest.fixture
def files(tmp_path: Path) -> list[File]:
    files = []
    for field, (name, data, _) in guide_files():
        (tmp_path / name).write_bytes(data)
        files.append((field, name, tmp_path / name))
    return files


def begun(served: Served, files: list[File], **fields: object) -> str:
    job: str = begin(served.client, "/synthesize", files, {**FIELDS, **fields})["id"]
    return job


def test_the_same_command_goes_on_with_the_job(served: Served, files: list[File]) -> None:
    assert begun(served, files) == begun(served, files)
    assert len(served.client.get("/jobs").json()["items"]) == 1


def test_a_job_that_has_succeeded_is_there_for_the_same_command(served: Served, files: list[File]) -> None:
    first = begun(served, files)
    finish(served.service, "clinic", 2, b"a dataset")
    assert begun(served, files) == first


def cancel(served: Served, _: list[File]) -> None:
    job = served.client.get("/jobs").json()["items"][0]
    served.client.post(job["links"]["cancel"]).raise_for_status()


def fail(served: Served, _: list[File]) -> None:
    indexing = claim(served.service)
    with served.service.database.write() as session:
        jobs.fail(session, indexing, "the weights are gone")


def lack_a_sample(served: Served, _: list[File]) -> None:
    finish(served.service, "clinic", 2, b"a dataset", failed=1)


def grow_the_pool(served: Served, _: list[File]) -> None:
    with served.service.database.write() as session:
        home = pools.find(session, "clinic").id
        image = NewImage("new.png", 600, 300, "1" * 64)
        session.add(PoolImage(pool_id=home, created_at=datetime.now(UTC), **asdict(image)))


def train_anew(served: Served, _: list[File]) -> None:
    shutil.rmtree(weights_dir(served) / "default")
    write_weights(weights_dir(served), networks=("vae", "denoiser", "another"))


def change_the_guide(_: Served, files: list[File]) -> None:
    files[0][2].write_bytes(guide_files(2)[2][1][1])
    files[1][2].write_bytes(guide_files(2)[3][1][1])


@pytest.mark.parametrize("change", [cancel, fail, lack_a_sample, grow_the_pool, train_anew, change_the_guide])
def test_a_job_that_would_not_give_what_is_asked_for_is_not_gone_on_with(
    served: Served, files: list[File], change: Callable[[Served, list[File]], None]
) -> None:
    first = begun(served, files)
    change(served, files)
    second = begun(served, files)
    assert second != first
    assert begun(served, files) == second


def test_other_fields_are_another_job(served: Served, files: list[File]) -> None:
    assert begun(served, files) != begun(served, files, seed=1)
