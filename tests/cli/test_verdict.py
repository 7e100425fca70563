"""The words say no more than the figures."""

from typing import Any

import pytest

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


@pytest.mark.parametrize(("images", "words"), [(1, "1 test image says nothing"), (5, "5 test images say nothing")])
def test_a_few_test_images_tell_nothing(images: int, words: str) -> None:
    assert verdict(report((0.05, 0.04, 0.06), images=images)).startswith(f"It cannot be told: {words}")


def test_one_labeled_image_and_one_test_image_are_not_many() -> None:
    told = report((0.05, 0.04, 0.06), images=1)
    told["arms"][0]["training_images"]["real"] = 1
    words = verdict(told)
    assert "Your 1 labeled image alone reaches a Dice of 0.500, with synthetic" in words and "; 1 test image, " in words


@pytest.mark.parametrize("dice", [(0.0, 0.0, 0.0), (0.5, 0.4, 0.6)])
def test_where_the_labeled_images_alone_taught_nothing_nothing_is_concluded(dice: tuple[float, float, float]) -> None:
    """As after the few steps that only show that everything is in place: some arm is always the first to learn."""
    told = report(dice)
    for arm, reached in zip(told["arms"], (0.0, dice[0]), strict=True):
        arm["summary"]["dice"]["mean"] = reached
    assert verdict(told).startswith("It cannot be told: from your labeled images alone no segmenter has learned")
