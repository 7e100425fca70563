"""A report as people read it: CSV per image, a Markdown table in the paper's form, and a plot."""

import csv
import io
from collections.abc import Sequence
from typing import Any

from models.evaluation import ArmResult
from models.metrics import METRICS

HEADINGS = {
    "precision": "precision",
    "recall": "recall",
    "dice": "DSC",
    "cldice": "clDice",
    "hd95": "HD95 (px)",
}


def report_csv(results: Sequence[ArmResult]) -> str:
    """One line per arm, seed and test image."""
    out = io.StringIO()
    writer = csv.DictWriter(out, ["arm", "seed", "image", *METRICS], lineterminator="\n")
    writer.writeheader()
    for result in results:
        for row in result.images:
            writer.writerow({"arm": result.arm, "seed": result.seed, **row, "image": name_cell(row["image"])})
    return out.getvalue()


def name_cell(name: str) -> str:
    """A file's name as a cell of a CSV: with an apostrophe where a spreadsheet would run it as a formula."""
    return f"'{name}" if name.startswith(("=", "+", "-", "@")) else name


def report_markdown(report: dict[str, Any]) -> str:
    """The paper's table, mean ± sd over test images, and each arm's difference to `real` with its interval."""
    heads = ["training data", *HEADINGS.values()]
    has_real = report["reference"] is not None
    has_gap = any(arm["gap_closed"] is not None for arm in report["arms"])
    heads += ["DSC − real [95 % interval]", "p"] if has_real else []
    heads += ["gap closed"] if has_gap else []
    lines = [_line(heads), "|" + "---|" * len(heads)]
    for arm in report["arms"]:
        cells = [f"{arm['name']} ({sum(arm['training_images'].values())})"]
        cells += [_mean_sd(arm["summary"][name], digits=1 if name == "hd95" else 3) for name in HEADINGS]
        cells += _against(arm) if has_real else []
        if has_gap:
            cells.append("" if arm["gap_closed"] is None else f"{arm['gap_closed']:.0%}")
        lines.append(_line(cells))
    return "\n".join([*lines, "", _notes(report)]) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _mean_sd(summary: dict[str, Any], digits: int) -> str:
    return f"{summary['mean']:.{digits}f}±{summary['sd']:.{digits}f}"


def _against(arm: dict[str, Any]) -> list[str]:
    if arm["against_real"] is None:
        return ["", ""]
    dice = arm["against_real"]["dice"]
    p = "" if dice["p"] is None else f"{dice['p']:.2g}"
    return [f"{dice['difference']:+.3f} [{dice['low']:+.3f}, {dice['high']:+.3f}]", p]


def _notes(report: dict[str, Any]) -> str:
    seeds = report["seeds"]
    steps = sorted({arm["steps"] for arm in report["arms"]})
    images = report["test_images"]
    notes = [
        f"{images} test image{'s' * (images != 1)}, {len(seeds)} training run{'s' * (len(seeds) != 1)} per arm (seeds "
        f"{', '.join(map(str, seeds))}), optimiser steps: {', '.join(map(str, steps))}. In brackets: training images. "
        "± is the standard deviation over test images, averaged over runs.",
    ]
    if report["reference"]:
        over = "images and runs" if len(seeds) > 1 else "images alone, since one run does not tell how much runs differ"
        notes.append(
            f"Differences are paired by test image; the interval is a bootstrap over {over}, p a two-sided "
            "Wilcoxon signed-rank test over images, which does not know how much runs differ and is not corrected for "
            "the number of arms."
        )
        if images == 1:
            notes.append(
                "A single test image does not tell how much images differ: no interval here says anything of others, "
                "however narrow it is."
            )
    return "\n\n".join([*notes, report["empty_masks"]])


def report_png(report: dict[str, Any]) -> bytes:
    """Left: every arm's mean Dice, a dot per run. Right: its difference to `real` with the 95 % interval."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    arms = report["arms"]
    figure = Figure(figsize=(11, 1.4 + 0.42 * len(arms)), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    places = range(len(arms))
    for place, arm in zip(places, arms, strict=True):
        means = arm["seed_means"]["dice"]
        left.plot(means, [place] * len(means), "o", color="0.7", markersize=4)
        left.plot(arm["summary"]["dice"]["mean"], place, "D", color="C0", markersize=6)
        if arm["against_real"] is not None:
            dice = arm["against_real"]["dice"]
            right.plot([dice["low"], dice["high"]], [place, place], "-", color="C0", linewidth=2)
            right.plot(dice["difference"], place, "D", color="C0", markersize=6)
    left.set_yticks(list(places), [arm["name"] for arm in arms])
    left.invert_yaxis()
    left.set_xlabel("Dice, mean over test images (gray: each run)")
    right.axvline(0, color="0.5", linewidth=1)
    right.set_xlabel("Dice − real, 95 % interval")
    for axes in (left, right):
        axes.grid(axis="x", alpha=0.3)
        axes.locator_params(axis="x", nbins=6)  # more run into one another where arms are near
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110, metadata={"Software": None})
    return out.getvalue()
