"""`pansynth pool import` and `pansynth synthesize` against a running service."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.children import pansynth
from cli.dataset import verify
from cli.failure import Failure
from cli.main import app
from tests.system.running import PATIENT, Radiographs, Restarted, Running

pytestmark = PATIENT


@pytest.fixture(scope="module")
def service(restarted: Restarted, radiographs: Radiographs) -> Iterator[Running]:
    """A service whose default pool holds the pool's images and the guides, whose masks beside them it refused."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PANSYNTH_API_KEY", restarted.service.key)
        folder = str(radiographs.pool[0].parent)
        done = command("pool", "import", "default", folder, "--url", restarted.service.url)
        assert done.returncode == 0, done.stderr
        yield restarted.service


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(pansynth(*words), capture_output=True, text=True, timeout=120)


def synthesis(service: Running, radiographs: Radiographs, *options: str) -> list[str]:
    guide = ["--image", str(radiographs.guides[0]), "--mask", str(radiographs.masks[0])]
    return ["synthesize", *guide, "--url", service.url, *options]


def test_bad_files_are_listed_and_good_ones_go_in(service: Running, radiographs: Radiographs, tmp_path: Path) -> None:
    bad = tmp_path / "broken.png"
    bad.write_bytes(radiographs.pool[0].read_bytes()[:500])
    done = command("pool", "import", "other", str(bad), str(radiographs.pool[1]), "--url", service.url)
    assert done.returncode == 0, done.stderr
    assert "pool other: 1 image stored, 0 there already, 1 rejected" in done.stdout
    assert "  broken.png: " in done.stdout
    again = command("pool", "import", "other", str(radiographs.pool[1]), "--url", service.url, "--json")
    assert json.loads(again.stdout) == {
        "pool": "other",
        "stored": 0,
        "duplicates": 1,
        "rejected_count": 0,
        "rejected": [],
    }


def test_synthesize_downloads_a_whole_dataset_of_a_folder_of_guides(
    service: Running, radiographs: Radiographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PANSYNTH_URL", service.url)
    labeled, out = tmp_path / "labeled", tmp_path / "dataset.zip"
    for part, paths in (("images", radiographs.guides), ("masks", radiographs.masks)):
        (labeled / part).mkdir(parents=True)
        for number, path in enumerate(paths):
            shutil.copy(path, labeled / part / f"{number}.png")
    options = ["--steps", "3", "--reblend", "--preset", "harmonize", "--json", "--out", str(out)]
    done = command("synthesize", "--labeled", str(labeled), "--top-k", "1", "--min-alignment", "0.01", *options)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["samples"] == verify(out) == 2
    parameters = said["job"]["parameters"]
    assert (parameters["steps"], parameters["reblend"], parameters["align"]) == (3, True, True)
    assert (parameters["min_alignment"], parameters["on_fail"]) == (0.01, "drop")
    with service.client() as client:
        samples = client.get(said["job"]["links"]["samples"]).json()["items"]
    assert [sample["guide"] for sample in samples] == ["0.png", "1.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset.zip", "labeled"]


def refused(*words: str) -> str:
    """Why a command, given in this process, ends."""
    with pytest.raises(Failure) as failure:
        CliRunner().invoke(app, words, catch_exceptions=False)
    return str(failure.value)


def test_a_dataset_that_is_there_is_not_written_over(
    service: Running, radiographs: Radiographs, tmp_path: Path
) -> None:
    out = tmp_path / "dataset.zip"
    out.write_text("mine")
    assert "is there already" in refused(*synthesis(service, radiographs, "--out", str(out)))
    assert out.read_text() == "mine"


def test_what_the_service_refuses_is_said_in_its_words(
    service: Running, radiographs: Radiographs, tmp_path: Path
) -> None:
    options = ["--pool", "nowhere", "--out", str(tmp_path / "dataset.zip")]
    words = refused(*synthesis(service, radiographs, *options))
    assert words.startswith("POST /synthesize: ") and "nowhere" in words
    assert not list(tmp_path.iterdir())


def test_where_no_service_is_the_command_says_so(radiographs: Radiographs) -> None:
    words = refused("pool", "import", "default", str(radiographs.pool[0]), "--url", "http://127.0.0.1:1")
    assert "is `pansynth up` running?" in words


def test_a_service_of_ours_is_reached_whatever_the_proxy(
    service: Running, monkeypatch: pytest.MonkeyPatch, radiographs: Radiographs
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    done = command("pool", "import", "default", str(radiographs.pool[0]), "--url", service.url)
    assert done.returncode == 0, done.stderr
    monkeypatch.delenv("HTTP_PROXY")
    with service.client() as client:
        assert client.get("/pools/default").json()["image_count"] == 14
