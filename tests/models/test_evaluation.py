"""models/evaluation.py and models/report.py: the figures of a report are those of the images."""

import csv
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from models.evaluation import ArmResult, build_report, run_arm, score_images
from models.metrics import METRICS
from models.report import report_csv, report_markdown, report_png
from models.segmenter import Labeled
from models.training.segmenter import SegmenterPlan, SegmenterTraining


def result(arm: str, seed: int, dice: list[float], steps: int = 10) -> ArmResult:
    rest = {"precision": 0.5, "recall": 0.25, "cldice": 0.75, "hd95": 12.0}
    rows: list[dict[str, Any]] = [{"image": f"t{n}", **rest, "dice": value} for n, value in enumerate(dice)]
    return ArmResult(arm, seed, steps, 5, {"real": 3}, rows)


RESULTS = [
    result("real", 0, [0.40, 0.50, 0.60]),
    result("real", 1, [0.42, 0.50, 0.58]),
    result("top 5, real+synthetic", 0, [0.50, 0.60, 0.70]),
    result("top 5, real+synthetic", 1, [0.52, 0.60, 0.68]),
    result("oracle", 0, [0.60, 0.70, 0.80]),
    result("oracle", 1, [0.62, 0.70, 0.78]),
]


def test_each_arm_is_compared_with_real_and_with_the_oracle() -> None:
    report = build_report(RESULTS, {"protocol": "p"})
    real, synthetic, oracle = report["arms"]
    assert (report["seeds"], report["test_images"], report["protocol"]) == ([0, 1], 3, "p")
    assert real["against_real"] is None and real["gap_closed"] is None
    assert real["summary"]["dice"]["mean"] == pytest.approx(0.5)
    assert synthetic["against_real"]["dice"]["difference"] == pytest.approx(0.1)
    assert (synthetic["gap_closed"], oracle["gap_closed"]) == (0.5, 1.0)
    assert synthetic["seed_means"]["dice"] == pytest.approx([0.6, 0.6])


def test_where_the_oracle_is_not_surely_better_than_real_there_is_no_gap_to_close() -> None:
    oracle = [result("oracle", 0, [0.45, 0.55, 0.55]), result("oracle", 1, [0.40, 0.45, 0.65])]
    report = build_report([*RESULTS[:4], *oracle], {})
    assert report["arms"][2]["against_real"]["dice"]["difference"] > 0
    assert [arm["gap_closed"] for arm in report["arms"]] == [None, None, None]
    assert "gap closed" not in report_markdown(report)


def test_without_real_there_is_nothing_to_compare_with() -> None:
    report = build_report(RESULTS[2:4], {})
    assert report["reference"] is None and report["arms"][0]["against_real"] is None
    assert "real [95" not in report_markdown(report)


def test_an_unfinished_arm_is_no_result() -> None:
    with pytest.raises(ValueError, match=r"'oracle' has the seeds \[0\]"):
        build_report(RESULTS[:-1], {})


def test_the_table_has_the_papers_form() -> None:
    lines = report_markdown(build_report(RESULTS, {})).splitlines()
    assert lines[0].startswith("| training data | precision | recall | DSC | clDice | HD95 (px) | DSC − real")
    assert lines[3].startswith("| top 5, real+synthetic (3) | 0.500±0.000 | 0.250±0.000 | 0.600±0.090 |")
    assert "+0.100 [+0.100, +0.100]" in lines[3] and lines[3].endswith("| 50% |")


def test_the_interval_of_one_run_is_not_said_to_cover_others() -> None:
    several, one = (report_markdown(build_report(results, {})) for results in (RESULTS, RESULTS[::2]))
    assert "bootstrap over images and runs" in several
    assert "3 test images, 1 training run per arm (seeds 0)" in one
    assert "bootstrap over images alone" in one


def test_the_interval_of_one_image_is_not_said_to_cover_others() -> None:
    single = [replace(result, images=result.images[:1]) for result in RESULTS]
    several, one = (report_markdown(build_report(results, {})) for results in (RESULTS, single))
    words = "A single test image does not tell how much images differ"
    assert words in one and words not in several


def test_the_csv_has_a_line_per_arm_seed_and_image() -> None:
    rows = list(csv.DictReader(io.StringIO(report_csv(RESULTS))))
    assert len(rows) == 18
    assert rows[4] == {"arm": "real", "seed": "1", "image": "t1", **{k: str(RESULTS[1].images[1][k]) for k in METRICS}}


def test_no_name_in_the_csv_is_a_formula() -> None:
    named = replace(RESULTS[0], images=[{**RESULTS[0].images[0], "image": name} for name in ("=1+1", "a-b.png")])
    assert [row["image"] for row in csv.DictReader(io.StringIO(report_csv([named])))] == ["'=1+1", "a-b.png"]


def test_the_plot_is_a_png_and_the_same_each_time() -> None:
    first, again = (report_png(build_report(RESULTS, {})) for _ in range(2))
    assert first.startswith(b"\x89PNG") and first == again


def test_a_run_that_is_interrupted_gives_the_result_of_one_that_is_not() -> None:
    rng = np.random.default_rng(0)
    data = Labeled(rng.integers(0, 256, (4, 32, 64), np.uint8), rng.random((4, 32, 64)) > 0.5, tuple("abcd"))
    plan = SegmenterPlan("tiny", steps=3, batch=2)
    saved = []

    def stop(training: SegmenterTraining) -> None:
        saved.append(training.save())
        raise InterruptedError

    with pytest.raises(InterruptedError):
        run_arm("real", {"real": data}, plan, data, "cpu", between_steps=stop)
    continued = run_arm("real", {"real": data}, plan, data, "cpu", saved=saved[0])
    assert continued == run_arm("real", {"real": data}, plan, data, "cpu")
    assert continued.training_images == {"real": 4}


def test_an_arm_is_scored_in_its_best_state() -> None:
    random = np.random.default_rng(0)
    images, masks = random.integers(140, 220, (12, 32, 64), np.uint8), np.zeros((12, 32, 64), bool)
    for mask in masks:
        mask[(row := random.integers(6, 22)) : row + 5, 8:56] = True
    images[masks] //= 4
    data = Labeled(images, masks, tuple(map(str, range(12))))
    plan = SegmenterPlan("tiny", steps=30, batch=4, learning_rate=0.03, validations=30)
    trained: list[SegmenterTraining] = []
    found = run_arm("real", {"real": data}, plan, data, "cpu", between_steps=trained.append)
    best, last = (score_images(state, data, trained[0].device) for state in (trained[0].best(), trained[0]._segmenter))
    assert found.best_step < found.steps and best != last
    assert found.images == best
