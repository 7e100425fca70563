"""`pansynth job`: a real service's jobs from the command line."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.settings import Settings
from cli.failure import Failure
from cli.main import app
from tests.cli.test_dataset import write
from tests.serving import Served, fill_pool, finish, serving, submit, write_weights


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, broker_url: str) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("service")
    write_weights(folder / "weights")
    with serving(Settings(data_dir=folder / "data", broker_url=broker_url, weights_dir=folder / "weights")) as served:
        fill_pool(served.service, "clinic", 2)
        yield served


def job(served: Served, *arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["job", *map(str, arguments), "--url", str(served.client.base_url)])


def test_jobs_are_listed_shown_cancelled_and_deleted(served: Served) -> None:
    made = [submit(served.client, "clinic")["id"] for _ in range(2)]
    assert job(served, "cancel", made[1]).stdout == f"job {made[1]} is cancelled\n"
    assert [item["id"] for item in json.loads(job(served, "list", "--json").stdout)] == made[::-1]
    newest, oldest = job(served, "list").stdout.splitlines()
    assert newest.startswith(f"{made[1]}  cancelled ") and newest.endswith("  synthesis")
    assert oldest.split()[1:3] == ["queued", "0/2"]
    assert json.loads(job(served, "show", made[0]).stdout)["parameters"]["pool"] == "clinic"
    refused = job(served, "delete", made[0])
    assert isinstance(refused.exception, Failure) and "cancel it and wait" in str(refused.exception)
    assert job(served, "delete", made[1]).stdout == f"job {made[1]} is removed\n"
    gone = job(served, "show", made[1])
    assert isinstance(gone.exception, Failure) and f"there is no job '{made[1]}'" in str(gone.exception)
    job(served, "cancel", made[0])


def test_a_dataset_is_fetched_by_its_job(served: Served, tmp_path: Path) -> None:
    made = submit(served.client, "clinic")["id"]
    early = job(served, "download", made, "--out", tmp_path / "d.zip")
    assert isinstance(early.exception, Failure) and not list(tmp_path.iterdir())
    finish(served.service, "clinic", 2, write(tmp_path / "made.zip").read_bytes())
    done = job(served, "download", made, "--out", tmp_path / "d.zip")
    assert f"1 sample in {tmp_path / 'd.zip'}" in done.stdout
    assert (tmp_path / "d.zip").read_bytes() == (tmp_path / "made.zip").read_bytes()
    again = job(served, "download", made, "--out", tmp_path / "d.zip")
    assert isinstance(again.exception, Failure) and "is there already" in str(again.exception)
    nowhere = job(served, "download", made, "--out", tmp_path / "new" / "d.zip")
    assert isinstance(nowhere.exception, Failure)
    assert str(nowhere.exception).endswith(f"the folder {tmp_path / 'new'} is not there; make it first")
