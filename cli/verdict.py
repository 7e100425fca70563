"""An evaluation's report in words: do synthetic data help, by how much, and how sure is that?"""

from typing import Any

BOTH = "real+synthetic"
LEAST_IMAGES = 6  # with fewer, no difference reaches p < 0.05 in a Wilcoxon signed-rank test, however large it is
LEAST_DICE = 0.01  # of the real images alone: below it the comparison tells no more than which arm learns sooner


def verdict(report: dict[str, Any]) -> str:
    """What a report says of Dice: the best arm with synthetic data against `real`, in sentences.

    "Help" and "harm" are said only where the 95 % interval leaves out zero and there are at least LEAST_IMAGES.
    """
    real = next(arm for arm in report["arms"] if arm["name"] == report["reference"])
    others = [arm for arm in report["arms"] if arm["name"].endswith(BOTH)]
    best = max(others, key=lambda arm: arm["against_real"]["dice"]["difference"])
    dice = best["against_real"]["dice"]
    images, runs = report["test_images"], len(report["seeds"])
    alone, together = real["summary"]["dice"]["mean"], best["summary"]["dice"]["mean"]
    count = real["training_images"]["real"]
    lines = [
        _answer(best["name"], dice, images, alone),
        f"Your {count} labeled {'image alone reaches' if count == 1 else 'images alone reach'} a Dice of {alone:.3f}, "
        f"with synthetic ones {together:.3f}: "
        f"{dice['difference']:+.3f} (95 % interval {dice['low']:+.3f} to {dice['high']:+.3f}{_p(dice['p'])}; "
        f"{images} test image{'s' * (images != 1)}, {runs} training run{'s' * (runs != 1)} each).",
    ]
    if len(others) > 1:
        lines.append(
            f"It is the best of {len(others)} settings, chosen on these test images, so expect a little less on others."
        )
    if runs < 3 or images < 20:
        lines.append("That is little to judge by: take at least 3 runs (--seeds) and 20 test images.")
    return "\n".join(lines)


def _answer(name: str, dice: dict[str, Any], images: int, alone: float) -> str:
    setting = name.removesuffix(f", {BOTH}")
    if alone < LEAST_DICE:
        return (
            "It cannot be told: from your labeled images alone no segmenter has learned to find the anatomy; "
            "give it more --steps."
        )
    if images < LEAST_IMAGES:
        return f"It cannot be told: {images} test image{' says' if images == 1 else 's say'} nothing sure of others."
    if dice["low"] > 0:
        return f"Yes: synthetic data help here, most with {setting}."
    if dice["high"] < 0:
        return f"No: synthetic data harm here, even with {setting}, which is the best of what was tried."
    if max(abs(dice["low"]), abs(dice["high"])) < 0.02:
        return f"No: synthetic data add nothing here; with {setting} the difference is less than 0.02 either way."
    return f"It cannot be told: with {setting}, the best of what was tried, zero lies within the interval."


def _p(value: float | None) -> str:
    return "" if value is None else f", p = {value:.2g}"
