"""`pansynth train segmenter`: on a handful of small images."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.failure import Failure, Interrupted
from cli.main import app
from models.segmenter import build_segmenter
from models.training.segmenter import SegmenterTraining
from tests.cli.test_train import run, write_labeled


def segmenter(data: Path, out: Path, *more: str | Path) -> str:
    small = ["--steps", "3", "--batch", "2", "--device", "cpu"]
    return run("train", "segmenter", "--data", data, "--out", out, *small, *more)


def test_of_few_images_none_is_held_out_and_no_dice_is_told(tmp_path: Path) -> None:
    data = str(write_labeled(tmp_path / "labeled", 0, 9))
    options = ["--out", str(tmp_path / "out"), "--backbone", "tiny", "--steps", "2", "--batch", "2", "--device", "cpu"]
    done = CliRunner().invoke(app, ["train", "segmenter", "--data", data, *options], catch_exceptions=False)
    assert "segmenter loss" in done.stderr and "trained on all of so few images" in done.stdout
    assert "Dice" not in done.output
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert (manifest["validation"], manifest["best_step"]) == ({"images": 0}, 2)


def test_a_trained_segmenter_is_a_backbone_for_others(tmp_path: Path) -> None:
    data = write_labeled(tmp_path / "labeled", 0, 10)
    said = segmenter(data, tmp_path / "first", "--backbone", "tiny")
    manifest = json.loads((tmp_path / "first" / "manifest.json").read_text())
    assert manifest["validation"]["images"] == 2 and 0 <= manifest["validation"]["dice"] <= 1
    assert "config.json" in manifest["files"] and str(tmp_path / "first") in said
    assert build_segmenter(str(tmp_path / "first")).network.config.num_channels == 1
    segmenter(data, tmp_path / "second", "--backbone", tmp_path / "first")
    with pytest.raises(Failure, match="is there already"):
        segmenter(data, tmp_path / "first")


def test_of_a_dataset_the_samples_of_a_guide_are_held_out_together(tmp_path: Path) -> None:
    data = write_labeled(tmp_path / "dataset", 0, 28)
    names = sorted(path.name for path in (data / "images").iterdir())
    lines = [f"images/{name},guide-{number % 14}" for number, name in enumerate(names)]
    (data / "manifest.csv").write_text("\n".join(["image,guide_sha256", *lines]))
    segmenter(data, tmp_path / "out", "--backbone", "tiny")
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["validation"]["images"] == 2 * 2


def test_a_segmenters_manifest_is_not_lost_to_another_network(tmp_path: Path) -> None:
    data = write_labeled(tmp_path / "labeled", 0, 9)
    segmenter(data, tmp_path / "first", "--backbone", "tiny")
    with pytest.raises(Failure, match="first holds a segmenter, whose manifest would be lost"):
        run("train", "vae", "--data", data, "--out", tmp_path / "first", "--steps", "1", "--batch", "2")


def test_a_segmenter_that_was_interrupted_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_labeled(tmp_path / "labeled", 0, 10)
    whole = segmenter(data, tmp_path / "whole", "--backbone", "tiny")
    steps: list[int] = []
    advance = SegmenterTraining.advance

    def interrupted(training: SegmenterTraining) -> float:
        steps.append(training.step)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return advance(training)

    monkeypatch.setattr("models.training.checkpoint.SECONDS", 0.0)
    monkeypatch.setattr(SegmenterTraining, "advance", interrupted)
    with pytest.raises(Interrupted, match="the same command goes on"):
        segmenter(data, tmp_path / "stopped", "--backbone", "tiny")
    assert not (tmp_path / "stopped").exists()
    said = segmenter(data, tmp_path / "stopped", "--backbone", "tiny")
    assert steps == [0, 1, 2, 2]
    assert not list(tmp_path.rglob("*.checkpoint")), "the next run would go on with this one"
    assert said.splitlines()[0].split(":", 1)[1] == whole.splitlines()[0].split(":", 1)[1]


def test_a_segmenter_is_not_written_into_what_is_there(tmp_path: Path) -> None:
    data = write_labeled(tmp_path / "data", 0, 8)
    (tmp_path / "mine.new").mkdir()
    (tmp_path / "mine.new" / "thesis.tex").write_text("years of work")
    with pytest.raises(Failure, match=r"mine\.new is there already"):
        segmenter(data, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine.new").iterdir()] == ["thesis.tex"]


def test_a_segmenter_needs_images_and_masks(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="it needs the folders images/ and masks/"):
        segmenter(tmp_path, tmp_path / "out")
