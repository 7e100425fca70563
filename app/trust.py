"""What a sample must reach to be in the dataset, and what becomes of one that does not: verbs beside `app.jobs`'."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from app.leases import count_done, hold
from app.records import Claim
from app.tables import Job, Sample

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
    low = {name: quality.get(figure) for name, figure in LOWEST.items() if name in parameters}
    high = {name: quality.get(figure) for name, figure in HIGHEST.items() if name in parameters}
    words = [
        f"{LOWEST[name]} {value:.4g} is below {name} {parameters[name]:g}"
        for name, value in low.items()
        if value is not None and value < parameters[name]
    ]
    if "min_alignment" in parameters and quality.get("alignment") is None:
        words.append(f"the guide could not be moved, and min_alignment is {parameters['min_alignment']:g}")
    return words + [
        f"{HIGHEST[name]} {value:.4g} is above {name} {parameters[name]:g}"
        for name, value in high.items()
        if value is not None and value > parameters[name]
    ]


def redraw_sample(session: Session, claim: Claim, *, position: int) -> Sample | None:
    """The next of a failed sample's spare pool images takes its place; None where there is none left.

    The spares are chosen when the job is planned, for each sample its own: so who makes which sample when does not
    change the dataset.
    """
    job, step = hold(session, claim)
    sample = session.get_one(Sample, (job.id, position))
    if not sample.spares:
        return None
    for name, value in sample.spares[0].items():
        setattr(sample, name, value)
    sample.spares = sample.spares[1:]
    sample.redraws += 1
    job.redrawn += 1
    job.version += 1
    step.attempts = 0
    return sample


def drop_sample(session: Session, claim: Claim, *, position: int, detail: str, quality: Mapping[str, Any]) -> None:
    """A sample is left out of the dataset, `detail` says why: count it as done. Done twice it counts once."""
    job, step = hold(session, claim)
    sample = session.get_one(Sample, (job.id, position))
    if sample.dropped is None:
        job.dropped += 1
        count_done(session, job)
    sample.dropped, sample.quality = detail, dict(quality)
    step.attempts = 0


def quality_summary(job: Job) -> dict[str, int]:
    """How many samples a synthesis has made so far, and what became of them: made = kept + dropped + redrawn."""
    kept = job.done - job.failed - job.dropped
    return {"made": kept + job.dropped + job.redrawn, "kept": kept, "dropped": job.dropped, "redrawn": job.redrawn}
