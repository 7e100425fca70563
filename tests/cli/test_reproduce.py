"""`pansynth reproduce table1`: the whole protocol on a handful of phantoms."""

import json
import locale
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cli.failure import Failure
from cli.main import app
from cli.phantoms import write_phantoms
from cli.reproduce import _arms, _size
from models.labeled_sets import TEST_SET, phantom_sets
from models.phantoms import LOOKS, PLAIN
from tests.tiny import make_tiny_weights

PUBLISHED = 1_000_000  # the seed of the published runs' phantoms, made from the default
TINY = ["--size", "smoke", "--steps", "2", "--device", "cpu", "--test", "3", "--pool", "3"]


pytestmark = pytest.mark.usefixtures("quick_alignment")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_weights(tmp_path_factory.mktemp("weights") / "tiny")


def run(out: Path, weights: Path, *more: str) -> str:
    done = CliRunner().invoke(app, ["reproduce", "table1", "--out", str(out), "--weights", str(weights), *TINY, *more])
    if done.exception is not None:
        raise done.exception
    return done.stdout


def test_the_papers_size_is_that_of_the_paper_and_each_row_is_made_as_its_name_says() -> None:
    protocol = _size("paper")
    assert (protocol.guides, protocol.pool, protocol.test, protocol.top_ks) == (210, 1550, 1890, (5, 10, 20, 50))
    assert (protocol.plan.backbone, protocol.plan.steps) == ("b0", 20_000)
    ways = {arm.way for arm in _arms(protocol, oracle=True) if arm.way is not None}
    assert {way.name: (way.recipe and way.recipe.method, way.selection, way.align) for way in ways} == {
        "synthetic": ("diffusion", "ssim", False),
        "paste": ("paste", "ssim", False),
        "blend": ("blend", "ssim", False),
        "random selection": ("diffusion", "random", False),
        "harmonize": ("diffusion", "ssim", True),
        "aligned mask alone": (None, "ssim", True),
    }


def test_a_smoke_run_writes_every_row_and_a_second_one_only_what_is_missing(tmp_path: Path, weights: Path) -> None:
    out = tmp_path / "run"
    said = run(out, weights)
    report = json.loads((out / "report.json").read_text())
    assert report["protocol"]["phantom_seed"] == PUBLISHED
    assert [arm["name"] for arm in report["arms"]] == [
        "real",
        "top 1, synthetic",
        "top 1, real+synthetic",
        "top 2, synthetic",
        "top 2, real+synthetic",
        "top 2, real+paste",
        "top 2, real+blend",
        "top 2, real+random selection",
        "top 2, real+harmonize",
        "top 2, real+aligned mask alone",
        "oracle",
    ]
    counts = {arm["name"]: sum(arm["training_images"].values()) for arm in report["arms"]}
    assert (counts["real"], counts["top 2, synthetic"], counts["top 2, real+paste"], counts["oracle"]) == (2, 4, 6, 5)
    assert (out / "report.md").read_text() in said
    assert (out / "report.png").read_bytes().startswith(b"\x89PNG")
    assert len((out / "report.csv").read_text().splitlines()) == 1 + 11 * 3

    missing = out / "arms" / "oracle.seed0.json"
    before = missing.read_text()
    missing.unlink()
    started = time.time()
    users = locale.setlocale(locale.LC_CTYPE)
    locale.setlocale(locale.LC_CTYPE, "C")  # of another encoding than the report's
    try:
        run(out, weights)
    finally:
        locale.setlocale(locale.LC_CTYPE, users)
    assert missing.read_text() == before
    assert all(path.stat().st_mtime < started for path in (out / "arms").iterdir() if path != missing)

    with pytest.raises(Failure, match="other sizes, data or weights"):
        run(out, weights, "--control-top-k", "1")
    with pytest.raises(Failure, match="other sizes, data or weights"):
        run(out, weights, "--test", "4")
    assert not list((out / "phantoms").glob("*-4-*")), "they would be drawn for nothing"


def test_rows_and_seeds_may_be_added_to_a_run_and_a_neighbouring_run_shares_no_phantom(
    tmp_path: Path, weights: Path
) -> None:
    sizes = ["--guides", "1", "--top-k", "1", "--control-top-k", "1", "--steps", "1", "--seed", "250001"]
    run(tmp_path, weights, *sizes, "--row=real+paste")
    first = {path: path.stat().st_mtime_ns for path in (tmp_path / "arms").iterdir()}
    run(tmp_path, weights, *sizes, "--row=oracle", "--seeds=2")
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["seeds"], [arm["name"] for arm in report["arms"]]) == ([0, 1], ["real", "oracle"])
    run(tmp_path, weights, *sizes, "--row=real+paste", "--row=oracle")
    report = json.loads((tmp_path / "report.json").read_text())
    assert [arm["name"] for arm in report["arms"]] == ["real", "top 1, real+paste", "oracle"]
    assert {path: path.stat().st_mtime_ns for path in first} == first
    assert report["protocol"]["phantom_seed"] - PUBLISHED > TEST_SET  # the next after the default


def test_aligned_arms_are_trained_on_moved_masks_and_the_control_on_the_pool_images_themselves(
    tmp_path: Path, weights: Path
) -> None:
    out = tmp_path / "run"
    rows = [f"--row=real+{name}" for name in ("harmonize", "aligned mask alone", "paste")]
    run(out, weights, "--guides", "1", "--top-k", "1", "--control-top-k", "2", "--steps", "1", *rows)
    names = [arm["name"] for arm in json.loads((out / "report.json").read_text())["arms"]]
    assert names == ["real", "top 2, real+paste", "top 2, real+harmonize", "top 2, real+aligned mask alone"]
    kept = {}
    for name in ("harmonize", "aligned-mask-alone", "paste"):
        with np.load(out / "synthetic" / name / "0000.npz") as file:
            kept[name] = file["images"], file["masks"]
    assert (kept["harmonize"][1] == kept["aligned-mask-alone"][1]).all()
    assert (kept["harmonize"][1][0] != kept["harmonize"][1][1]).any()
    assert (kept["paste"][1][0] == kept["paste"][1][1]).all()
    pool = phantom_sets(1_000_000, (1, 3, 1), (PLAIN,), LOOKS, lambda *_: None).pool
    digests = {image.tobytes() for image in pool.images}
    assert all(image.tobytes() in digests for image in kept["aligned-mask-alone"][0])
    assert all(image.tobytes() not in digests for image in kept["harmonize"][0])


def test_names_that_are_no_text_are_names(tmp_path: Path, weights: Path) -> None:
    """As old zip files leave them: bytes that are not UTF-8."""
    for kind, count, seed in (("labeled", 3, 904), ("pool", 2, 905)):
        for pair in write_phantoms(tmp_path / kind, count, seed, LOOKS, lambda *_: None):
            for path in pair:
                path.rename(path.with_name(os.fsdecode(b"M\xfcller ") + path.name))
    folders = ["--labeled", str(tmp_path / "labeled"), "--unlabeled", str(tmp_path / "pool")]
    given = ["--guides", "1", "--top-k", "1", "--control-top-k", "1", "--steps", "1", "--row", "real+paste"]
    run(tmp_path / "run", weights, *folders, *given)
    assert r"M\udcfcller phantom-904-" in (tmp_path / "run" / "report.csv").read_text(encoding="utf-8")


def test_it_runs_on_a_users_folders_and_knows_an_oracle_only_where_there_is_truth(
    tmp_path: Path, weights: Path
) -> None:
    write_phantoms(tmp_path / "labeled", 3, 904, LOOKS, lambda *_: None)
    write_phantoms(tmp_path / "pool", 2, 905, LOOKS, lambda *_: None)
    folders = ["--labeled", str(tmp_path / "labeled"), "--unlabeled", str(tmp_path / "pool" / "images")]
    run(tmp_path / "run", weights, *folders, "--guides", "1", "--top-k", "1", "--control-top-k", "1", "--steps", "1")
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    names = [arm["name"] for arm in report["arms"]]
    assert "top 1, real+paste" in names and "oracle" not in names
    assert (report["test_images"], report["protocol"]["pool"]) == (2, 2)
    with pytest.raises(Failure, match="--row oracle: the pool has no masks; put masks/ beside images/ in --unlabeled"):
        run(tmp_path / "more", weights, *folders, "--row", "oracle", "--top-k", "1", "--control-top-k", "1")


def test_guides_and_test_images_may_come_from_folders_of_their_own(tmp_path: Path, weights: Path) -> None:
    folders = []
    for option, count, seed in (("labeled", 3, 904), ("unlabeled", 2, 905), ("test-set", 4, 906)):
        write_phantoms(tmp_path / option, count, seed, LOOKS, lambda *_: None)
        folders += [f"--{option}", str(tmp_path / option)]
    sizes = ["--guides", "2", "--top-k", "1", "--control-top-k", "1", "--steps", "1"]
    run(tmp_path / "run", weights, *folders, *sizes, "--row", "oracle")
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert (report["test_images"], report["protocol"]["guides"], report["protocol"]["pool"]) == (4, 2, 2)
    assert report["arms"][-1]["name"] == "oracle"


def test_a_pool_image_that_is_there_twice_is_told_and_taken_once(tmp_path: Path, weights: Path) -> None:
    write_phantoms(tmp_path / "labeled", 3, 904, LOOKS, lambda *_: None)
    write_phantoms(tmp_path / "pool", 2, 905, LOOKS, lambda *_: None)
    images = tmp_path / "pool" / "images"
    shutil.copy(next(images.iterdir()), images / "again.png")
    given = ["--labeled", str(tmp_path / "labeled"), "--unlabeled", str(images), "--guides", "1", "--top-k", "2"]
    said = run(tmp_path / "run", weights, *given, "--control-top-k", "2", "--steps", "1", "--row", "real+paste")
    assert "1 of 3 pool images have the pixels of another, or are a guide or a copy of one, and are left out" in said
    assert json.loads((tmp_path / "run" / "report.json").read_text())["protocol"]["pool"] == 2
    with pytest.raises(Failure, match="top k is 3, the pool has 2 images"):
        run(tmp_path / "more", weights, *given, "--control-top-k", "3")


def test_a_comparison_in_several_processes_is_refused(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with pytest.raises(Failure, match="works in one process; start it without torchrun"):
        run(tmp_path / "run", weights)
    assert not (tmp_path / "run").exists()


def test_a_test_image_from_the_pool_is_refused(tmp_path: Path, weights: Path) -> None:
    write_phantoms(tmp_path / "labeled", 3, 904, LOOKS, lambda *_: None)
    folders = ["--labeled", str(tmp_path / "labeled"), "--unlabeled", str(tmp_path / "labeled")]
    with pytest.raises(Failure, match="the same pixels as"):
        run(tmp_path / "run", weights, *folders, "--top-k", "1", "--control-top-k", "1")
    assert not (tmp_path / "run").exists()


def test_wrong_options_are_refused_before_anything_is_made(tmp_path: Path, weights: Path) -> None:
    for options, words in (
        (["--top-k", "4"], "top k is 4, the pool has 3"),
        (["--size", "huge"], "choose from smoke, small, paper"),
        (["--guide-looks", "blue"], "unknown look 'blue'"),
        (["--budget", "hours"], "budget .hours.; choose steps or epochs"),
        (["--device", "abacus"], "give auto, cpu, cuda or cuda:N"),
        (["--backbone", "b9"], "'b9' is neither"),
        (["--labeled", "x"], "go together"),
        (["--test-set", "x"], "go together"),
        (["--row", "harmony"], "no such row; choose from real, synthetic, real"),
    ):
        with pytest.raises(Failure, match=words):
            run(tmp_path / "run", weights, *options)
    assert not (tmp_path / "run").exists()
