"""cli/verdict.py and cli/evaluate.py: the words say no more than the figures."""

from pathlib import Path
from typing import Any

import pytest

from cli.evaluate import labeled_pairs, split
from cli.failure import Failure
from cli.verdict import verdict


def report(*differences: tuple[float, float, float], images: int = 40, seeds: int = 3) -> dict[str, Any]:
    """A report whose arms differ from real by (difference, low, high)."""
    real = {"name": "real", "training_images": {"real": 12}, "summary": {"dice": {"mean": 0.5}}, "against_real": None}
    arms: list[dict[str, Any]] = [real]
    for number, (difference, low, high) in enumerate(differences):
        dice = {"difference": difference, "low": low, "high": high, "p": 0.004}
        arms.append(
            {
                "name": f"top {number} paper, real+synthetic",
                "training_images": {"real": 12, "synthetic": 60},
                "summary": {"dice": {"mean": 0.5 + difference}},
                "against_real": {"dice": dice},
            }
        )
    return {"reference": "real", "test_images": images, "seeds": list(range(seeds)), "arms": arms}


@pytest.mark.parametrize(
    ("figures", "answer"),
    [
        ((0.05, 0.01, 0.09), "Yes: synthetic data help here, most with top 0 paper."),
        ((-0.05, -0.09, -0.01), "No: synthetic data harm here"),
        ((0.002, -0.01, 0.012), "No: synthetic data add nothing here"),
        ((0.05, -0.01, 0.11), "It cannot be told"),
    ],
)
def test_the_answer_follows_the_interval(figures: tuple[float, float, float], answer: str) -> None:
    assert verdict(report(figures)).startswith(answer)


def test_the_figures_stand_beside_the_answer() -> None:
    words = verdict(report((0.05, 0.01, 0.09)))
    assert "Your 12 labeled images alone reach a Dice of 0.500, with synthetic ones 0.550: +0.050" in words
    assert "+0.010 to +0.090, p = 0.004; 40 test images, 3 training runs each" in words
    assert "best of" not in words and "little to judge by" not in words


def test_the_best_of_several_is_told_as_such() -> None:
    words = verdict(report((0.01, -0.02, 0.04), (0.05, 0.01, 0.09)))
    assert "most with top 1 paper" in words and "best of 2 settings, chosen on these test images" in words


@pytest.mark.parametrize("few", [{"images": 5}, {"seeds": 1}])
def test_too_little_to_judge_by_is_said(few: dict[str, int]) -> None:
    assert "little to judge by" in verdict(report((0.05, 0.01, 0.09), **few))


def test_one_test_image_tells_nothing() -> None:
    assert verdict(report((0.05, 0.05, 0.05), images=1, seeds=1)).startswith("It cannot be told")


def pairs(count: int) -> list[tuple[Path, Path]]:
    return [(Path(f"images/{n}.png"), Path(f"masks/{n}.png")) for n in range(count)]


def test_a_split_loses_and_doubles_nothing_and_is_the_same_again() -> None:
    real, test = split(pairs(9), None, seed=3)
    assert (len(real), len(test)) == (4, 5)
    assert sorted(real + test) == pairs(9)
    assert split(pairs(9)[::-1], None, seed=3) == (real, test)
    assert split(pairs(9), None, seed=4) != (real, test)


@pytest.mark.parametrize(("count", "guides"), [(1, None), (4, 4), (0, None)])
def test_what_cannot_be_split_is_refused(count: int, guides: int | None) -> None:
    with pytest.raises(Failure, match="cannot be split"):
        split(pairs(count), guides, seed=0)


def test_every_image_needs_its_mask(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="needs the folders"):
        labeled_pairs(tmp_path)
    for name in ("images/a.jpg", "images/b.png", "masks/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(Failure, match=r"b\.png has no mask"):
        labeled_pairs(tmp_path)
    (tmp_path / "masks" / "b.png").touch()
    assert labeled_pairs(tmp_path) == [
        (tmp_path / "images" / "a.jpg", tmp_path / "masks" / "a.png"),
        (tmp_path / "images" / "b.png", tmp_path / "masks" / "b.png"),
    ]


def make_labeled(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    return folder


def test_the_mask_of_the_very_name_goes_before_one_of_another_ending(tmp_path: Path) -> None:
    names = ("x.jpg", "x.png")
    folder = make_labeled(tmp_path, *(f"{part}/{name}" for part in ("images", "masks") for name in names))
    assert [(image.name, mask.name) for image, mask in labeled_pairs(folder)] == [(name, name) for name in names]


def test_an_image_that_could_have_either_of_two_masks_is_refused(tmp_path: Path) -> None:
    folder = make_labeled(tmp_path, "images/x.dcm", "masks/x.jpg", "masks/x.png")
    with pytest.raises(Failure, match=r"the mask of x\.dcm may be x\.jpg or x\.png"):
        labeled_pairs(folder)


def test_what_file_managers_leave_in_a_folder_is_passed_over(tmp_path: Path) -> None:
    clutter = [f"{part}/{name}" for part in ("images", "masks") for name in (".DS_Store", "Thumbs.db", "x.txt")]
    folder = make_labeled(tmp_path, "images/x.jpg", "masks/x.png", *clutter)
    assert [(image.name, mask.name) for image, mask in labeled_pairs(folder)] == [("x.jpg", "x.png")]
