"""What a sample must reach to be in the dataset, and how many do."""

from collections.abc import Mapping
from typing import Any

from app.tables import Job

REDRAWS = 3  # other pool images that may take a failed one's place
LOWEST = {
    "min_canal_retention": "canal_retention",
    "min_alignment": "alignment",
    "min_background_ssim": "background_ssim",
    "min_training_distance": "training_distance",
}
HIGHEST = {"max_seam": "seam"}
THRESHOLDS = (*LOWEST, *HIGHEST)


def shortcomings(parameters: Mapping[str, Any], quality: Mapping[str, float | None]) -> list[str]:
    """The thresholds among a job's parameters that a sample fails, in words.

    A figure that cannot be told (None) fails nothing, but for `alignment`: there the guide could not be moved.
    """
    words = [
        f"{figure} {value:.4g} is below {name} {parameters[name]:g}"
        for name, figure in LOWEST.items()
        if name in parameters and (value := quality.get(figure)) is not None and value < parameters[name]
    ]
    if "min_alignment" in parameters and quality.get("alignment") is None:
        words.append(f"the guide could not be moved, and min_alignment is {parameters['min_alignment']:g}")
    return words + [
        f"{figure} {value:.4g} is above {name} {parameters[name]:g}"
        for name, figure in HIGHEST.items()
        if name in parameters and (value := quality.get(figure)) is not None and value > parameters[name]
    ]


def quality_summary(job: Job) -> dict[str, int]:
    """How many samples a synthesis has made so far, and what became of them: made = kept + dropped + redrawn."""
    kept = job.done - job.failed - job.dropped
    return {"made": kept + job.dropped + job.redrawn, "kept": kept, "dropped": job.dropped, "redrawn": job.redrawn}
