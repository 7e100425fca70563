"""`pansynth pool import`: files of all kinds into a pool of a real service."""

import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from app import pools
from app.settings import Settings
from cli.failure import Failure
from cli.main import app
from cli.pool import _make_pool, _outcome, import_files
from tests.bad_files import encode, gradient
from tests.serving import Served, serving
from tests.tiny import make_tiny_weights
from tests.working import worker


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, broker_url: str) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("service")
    make_tiny_weights(folder / "weights" / "default")
    settings = Settings(data_dir=folder / "data", broker_url=broker_url, weights_dir=folder / "weights", device="cpu")
    with serving(settings) as served, worker(settings):
        yield served


def import_(served: Served, *arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["pool", "import", *map(str, arguments), "--url", str(served.client.base_url)])


def image(number: int) -> bytes:
    return encode(gradient(64, 128 + number).astype("uint8"))


def test_names_that_are_no_text_hinder_no_import(served: Served, tmp_path: Path) -> None:
    names = (b"caf\xe9.png", b"bell\x07.png", b"line\nbreak.png", b"\xc2\x9b2J.png", "größe.png".encode())
    for number, name in enumerate(names):
        (tmp_path / os.fsdecode(name)).write_bytes(image(number))
    done = import_(served, "odd", tmp_path)
    assert "pool odd: 5 images stored, 0 there already, 0 rejected" in done.stdout
    stored = {item["name"] for item in served.client.get("/pools/odd/images").json()["items"]}
    assert {"caf\ufffd.png", "bell\ufffd.png", "line\ufffdbreak.png", "\ufffd2J.png", "größe.png"} == stored


def test_images_are_cropped_if_that_is_asked_for(served: Served, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(image(40))
    for region in ("none", "crop"):
        import_(served, region, tmp_path, "--region", region)
        job = served.client.get("/jobs").json()["items"][0]
        assert (job["parameters"]["pool"], job["parameters"]["region"]) == (region, region)


def test_files_of_one_name_are_told_apart_by_their_folders(served: Served, tmp_path: Path) -> None:
    for number, patient in enumerate(("A 1", "B 2")):
        (tmp_path / patient).mkdir()
        (tmp_path / patient / "opg.png").write_bytes(image(50 + number))
        (tmp_path / patient / "broken.png").write_bytes(image(50)[:99])
    done = import_(served, "patients", tmp_path)
    assert "\n  A 1/broken.png: " in done.stdout and "\n  B 2/broken.png: " in done.stdout
    stored = served.client.get("/pools/patients/images").json()["items"]
    assert [item["name"] for item in stored] == ["A 1/opg.png", "B 2/opg.png"]


def test_of_a_labeled_folder_the_masks_stay_out(served: Served, tmp_path: Path) -> None:
    for number, part in enumerate(("images", "masks")):
        (tmp_path / part).mkdir()
        (tmp_path / part / "a.png").write_bytes(image(20 + number))
    import_(served, "labeled", tmp_path)
    stored = served.client.get("/pools/labeled/images").json()["items"]
    assert len(stored) == 1


def test_all_sets_of_a_split_are_no_pool(served: Served, tmp_path: Path) -> None:
    for name in ("pool", "test"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(image(30))
    (tmp_path / "split.json").write_text("{}")
    done = import_(served, "tested", tmp_path)
    assert isinstance(done.exception, Failure) and f"give {tmp_path / 'pool'}" in str(done.exception)
    assert "pool tested: 1 image stored" in import_(served, "tested", tmp_path / "pool").stdout


def test_what_was_stored_before_a_failure_is_told(served: Served, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(image(9))
    (tmp_path / "b.zip").write_bytes(b"no zip")
    done = import_(served, "half", tmp_path / "a.png", tmp_path / "b.zip")
    assert isinstance(done.exception, Failure) and "is not a zip file, or was cut short" in str(done.exception)
    assert "pool half: 1 image stored, 0 there already, 0 rejected" in done.stdout


def test_an_archive_is_shown_by_its_files(served: Served, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number in range(3):
            archive.writestr(f"{number}.png", image(20 + number))
        archive.writestr("broken.png", image(30)[:99])
    (tmp_path / "b.png").write_bytes(image(31))
    shown: list[tuple[int, int]] = []
    files = [("archive", "a.zip", tmp_path / "a.zip"), ("images", "b.png", tmp_path / "b.png")]
    outcome = import_files(served.client, "zipped", files, lambda done, total: shown.append((done, total)))
    assert (4, 5) in shown and shown[-1] == (5, 5)
    assert (outcome["stored"], outcome["rejected_count"]) == (4, 1)
    assert [bad["name"] for bad in outcome["rejected"]] == ["broken.png"]


def test_the_rejected_files_that_a_job_does_not_name_are_counted() -> None:
    rejected = [{"name": f"{number}.png", "detail": "is broken"} for number in range(1000)]
    job = {"stored": 2, "duplicates": 1, "rejected": rejected, "progress": {"done": 1503, "total": 1503}}
    assert _outcome([job, job])["rejected_count"] == 3000


def test_a_pool_is_there_whoever_made_it(served: Served) -> None:
    for _ in range(2):
        _make_pool(served.client, "twice")
    assert served.client.get("/pools/twice").json()["image_count"] == 0


@pytest.mark.parametrize("name", ["a\nb", "Pool", "a/b", "", "?"])
def test_a_name_that_no_pool_can_have_is_refused_with_words(served: Served, tmp_path: Path, name: str) -> None:
    (tmp_path / "a.png").write_bytes(image(0))
    done = import_(served, name, tmp_path)
    assert isinstance(done.exception, Failure) and "should be 1 to 63 of a-z 0-9 _ -" in str(done.exception)


def test_a_service_that_goes_away_before_the_pool_is_made_is_told_in_words() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused", request=request)

    with (
        httpx.Client(base_url="http://pans:8000", transport=httpx.MockTransport(refuse)) as client,
        pytest.raises(Failure, match="no answer from http://pans:8000"),
    ):
        _make_pool(client, "p")


def test_the_outcome_as_json_counts_what_it_names(served: Served, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(image(40))
    said = json.loads(import_(served, "said", tmp_path, "--json").stdout)
    assert said == {"pool": "said", "stored": 1, "duplicates": 0, "rejected_count": 0, "rejected": []}


def test_an_import_of_bad_files_alone_fails_and_one_of_files_that_are_there_already_does_not(
    served: Served, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(image(41))
    assert [import_(served, "bad", tmp_path).exit_code for _ in range(2)] == [0, 0]
    (tmp_path / "a.png").write_bytes(image(41)[:99])
    done = import_(served, "bad", tmp_path)
    assert done.exit_code == 1
    assert "0 images stored, 0 there already, 1 rejected" in done.stdout and "a.png: " in done.stdout


def test_pools_are_listed_and_deleted(served: Served, tmp_path: Path) -> None:
    def pool(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["pool", *arguments, "--url", str(served.client.base_url)])

    (tmp_path / "a.png").write_bytes(image(60))
    import_(served, "passing", tmp_path / "a.png")
    with served.service.database.write() as session:
        for number in range(1000):  # with the first, more than a page holds
            pools.create(session, f"many-{number}")
    listed = {item["name"]: item["image_count"] for item in json.loads(pool("list", "--json").stdout)}
    assert listed["passing"] == 1 and {f"many-{number}" for number in range(1000)} < set(listed)
    assert "1  passing\n" in pool("list").stdout
    assert pool("delete", "passing").stdout == "pool passing is removed\n"
    again = pool("delete", "passing")
    assert isinstance(again.exception, Failure) and "passing" in str(again.exception)
    assert served.client.get("/pools/passing").status_code == 404
