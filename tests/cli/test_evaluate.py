"""`pansynth evaluate` from a folder to an answer: the real API, a real worker, tiny networks."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.settings import Settings
from cli.failure import Failure
from cli.main import app
from cli.out import filled
from cli.phantoms import write_phantoms
from models.phantoms import LOOKS
from tests.serving import serving
from tests.tiny import make_tiny_weights
from tests.working import worker

NOWHERE = "http://127.0.0.1:1"


def test_a_labeled_folder_and_a_pool_give_an_answer_in_words(tmp_path: Path, broker_url: str) -> None:
    make_tiny_weights(tmp_path / "weights" / "default")
    write_phantoms(tmp_path / "labeled", 4, 902, LOOKS, lambda *_: None)
    write_phantoms(tmp_path / "unlabeled", 2, 903, LOOKS, lambda *_: None)
    settings = Settings(
        data_dir=tmp_path / "data", broker_url=broker_url, weights_dir=tmp_path / "weights", device="cpu"
    )
    with serving(settings) as served, worker(settings):
        url = str(served.client.base_url)
        run(["pool", "import", "default", str(tmp_path / "unlabeled" / "images"), "--url", url])
        options = ["--top-k", "1", "--preset", "paper", "--steps", "2", "--seeds", "1", "--backbone", "tiny"]
        out = tmp_path / "out"
        said = run(["evaluate", "--labeled", str(tmp_path / "labeled"), "--out", str(out), "--url", url, *options])
        run(["pool", "import", "default", str(tmp_path / "labeled" / "images"), "--url", url])
        with pytest.raises(Failure, match=r"^test image .* is in pool default, too, as .* \(2 such\)"):
            run(["evaluate", "--labeled", str(tmp_path / "labeled"), "--out", str(out / "again"), "--url", url])
    assert "top 1 paper, succeeded 2/2" in said
    assert "Your 2 labeled images alone reach a Dice of" in said
    assert "That is little to judge by" in said
    assert sorted(path.name for path in out.iterdir()) == ["report.csv", "report.json", "report.md", "report.png"]
    arms = json.loads((out / "report.json").read_text())["arms"]
    assert [arm["name"] for arm in arms] == ["real", "top 1 paper, real+synthetic"]


@pytest.fixture
def labeled(tmp_path: Path) -> Path:
    for part in ("images", "masks"):
        (tmp_path / "labeled" / part).mkdir(parents=True)
        for number in range(4):
            (tmp_path / "labeled" / part / f"{number}.png").touch()
    return tmp_path / "labeled"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--backbone", "b9"], "--backbone: should be 'tiny', .* got 'b9'"),
        (["--seeds", "50"], "--seeds: should be less than or equal to 20; got 50"),
        (["--steps", "300000"], "--steps: should be less than or equal to 200000; got 300000"),
        (["--preset", "paper", "--preset", "harmonise"], "--preset: should be .* got 'harmonise'"),
        (["--top-k", "5", "--top-k", "0"], "--top-k: should be .* got 0"),
        (["--top-k", "1"] * 11, "22 settings, --preset times --top-k; at most 20"),
    ],
)
def test_what_would_be_refused_after_the_syntheses_is_refused_before(
    labeled: Path, tmp_path: Path, options: list[str], words: str
) -> None:
    with pytest.raises(Failure, match=f"^{words}"):
        run(["evaluate", "--labeled", str(labeled), "--out", str(tmp_path / "out"), "--url", NOWHERE, *options])


def test_bad_masks_are_named_before_the_syntheses_on_both_sides(tmp_path: Path) -> None:
    write_phantoms(tmp_path / "labeled", 2, 902, LOOKS, lambda *_: None)
    for mask in (tmp_path / "labeled" / "masks").iterdir():
        mask.write_bytes((tmp_path / "labeled" / "images" / mask.name).read_bytes())
    with pytest.raises(Failure, match=r"(?s)902-000000.png or its mask: the mask holds.*902-000001.png or its mask:"):
        run(["evaluate", "--labeled", str(tmp_path / "labeled"), "--out", str(tmp_path / "out"), "--url", NOWHERE])


def test_a_copy_among_those_to_test_on_is_named_before_the_syntheses(tmp_path: Path) -> None:
    write_phantoms(tmp_path / "labeled", 1, 902, LOOKS, lambda *_: None)
    for part in ("images", "masks"):
        (only,) = (tmp_path / "labeled" / part).iterdir()
        only.with_stem("copy").write_bytes(only.read_bytes())
    with pytest.raises(Failure, match=r"^test image .* \(the same pixels as .*\) to train on"):
        run(["evaluate", "--labeled", str(tmp_path / "labeled"), "--out", str(tmp_path / "out"), "--url", NOWHERE])


def test_more_images_than_a_job_takes_are_refused_before_anything_is_sent(labeled: Path, tmp_path: Path) -> None:
    for part in ("images", "masks"):
        for number in range(4, 1003):
            (labeled / part / f"{number}.png").touch()
    with pytest.raises(Failure, match=r"^1002 labeled images to test on, at most 1000"):
        run(["evaluate", "--labeled", str(labeled), "--out", str(tmp_path / "out"), "--url", NOWHERE, "--guides", "1"])


def test_a_half_filled_folder_is_nobodys_report(tmp_path: Path) -> None:
    out = tmp_path / "report"
    with pytest.raises(KeyboardInterrupt), filled(out) as folder:
        (folder / "report.json").touch()
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
    with filled(out) as folder:
        (folder / "report.json").touch()
    assert [path.name for path in out.iterdir()] == ["report.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def run(arguments: list[str]) -> str:
    done = CliRunner().invoke(app, arguments)
    if done.exception is not None:
        raise done.exception
    return done.output
