"""The life of an evaluation: the verbs that `app.jobs` lacks. Every arm is trained with every seed, then reported."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.access.tenants import visible
from app.admission import new_job
from app.errors import CroppedGuides, LeakingTestImage, NotFinished
from app.jobs import end_job, step_done
from app.leases import add_steps, count_done, hold, lock
from app.records import Claim, NewGuide
from app.regions import CROP
from app.tables import EvaluationImage, Guide, Job, Report, Sample

FORMATS = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "md": "text/markdown; charset=utf-8",
    "png": "image/png",
}
Kind = Literal["real", "synthetic", "real+synthetic"]
REAL: Final = "real"
SYNTHETIC: Final = "synthetic"
BOTH: Final = "real+synthetic"
KINDS: tuple[Kind, ...] = (REAL, SYNTHETIC, BOTH)
ARM = "arm-6"  # what a step is called; workers of earlier versions, which hold out other images, leave it


@dataclass(frozen=True)
class Arm:
    """What one segmenter is trained on: `name` is shown, `synthesis` a job or None."""

    name: str
    kind: Kind
    synthesis: str | None


def arms_of(kinds: Sequence[str], syntheses: Mapping[str, Mapping[str, Any]]) -> list[Arm]:
    """The arms of an evaluation: `real` once, the others once for each synthesis (job id -> parameters)."""
    arms = [Arm(REAL, REAL, None)] if REAL in kinds else []
    labels = _labels(syntheses)
    for job_id in syntheses:
        for kind in (SYNTHETIC, BOTH):
            if kind in kinds:
                arms.append(Arm(f"{labels[job_id]}, {kind}", kind, job_id))
    return arms


def _labels(syntheses: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """`top 5 paper`, and the start of the job's id where two would be called the same."""
    labels = {}
    for job_id, given in syntheses.items():
        odd = [given["method"]] if given["method"] != "diffusion" else []
        odd += ["random selection"] if given["selection"] != "ssim" else []
        labels[job_id] = " ".join([f"top {given['top_k']}", given["preset"], *odd])
    names = list(labels.values())
    return {key: f"{name} {key[:8]}" if names.count(name) > 1 else name for key, name in labels.items()}


def submit_evaluation(
    session: Session,
    job_id: str,
    *,
    real: Sequence[NewGuide],
    test: Sequence[NewGuide],
    parameters: Mapping[str, Any],
) -> Job:
    """Take in an evaluation whose images' blobs are written. Raises NotFinished, CroppedGuides, LeakingTestImage."""
    syntheses = parameters["synthesis"]
    for synthesis in sorted(syntheses):  # one order: no deadlock
        lock(session, synthesis)
    made = {job.id: job.parameters for job in finished(session, syntheses)}
    _check_leaks(session, real, test, syntheses)
    arms = arms_of(parameters["arms"], made)
    total = len(arms) * parameters["seeds"]
    stated = {**parameters, "arms": [vars(arm) for arm in arms]}
    job = new_job(session, job_id, "evaluation", stated, total)
    session.add_all(Guide(job_id=job_id, position=n, **vars(image)) for n, image in enumerate(real))
    session.add_all(
        EvaluationImage(job_id=job_id, position=n, name=t.name, image_sha256=t.image_sha256, mask_sha256=t.mask_sha256)
        for n, t in enumerate(test)
    )
    add_steps(session, job_id, ARM, 0, total, 1)
    return job


def finished(session: Session, syntheses: Sequence[str]) -> list[Job]:
    """The jobs of these ids. Raises NotFinished, CroppedGuides, which name all that cannot be evaluated."""
    named = session.scalars(select(Job).where(Job.id.in_(syntheses), visible(session, Job)))
    found = {job.id: job for job in named}
    unfinished = [
        f"{synthesis!r} is not a finished synthesis: "
        + ("there is none" if job is None else f"it is of kind {job.kind}, and {job.status}")
        for synthesis in syntheses
        if (job := found.get(synthesis)) is None or job.kind != "synthesis" or job.status != "succeeded"
    ]
    if unfinished:
        raise NotFinished(f"{'; '.join(unfinished)}; name jobs of GET /jobs?kind=synthesis&status=succeeded")
    if cropped := [synthesis for synthesis in syntheses if found[synthesis].parameters.get("region") == CROP]:
        raise CroppedGuides(
            f"the guides of synthesis {', '.join(cropped)} are cropped, and an evaluation's real and test images are "
            "whole frames; name one made with region none"
        )
    return [found[synthesis] for synthesis in syntheses]


def _check_leaks(
    session: Session, real: Sequence[NewGuide], test: Sequence[NewGuide], syntheses: Sequence[str]
) -> None:
    """A test image among the training images, the guides or the backgrounds would make every figure worthless."""
    tested = [image.image_sha256 for image in test]
    used = {image.image_sha256: f"the real image {image.name!r}" for image in real}
    for guide in session.scalars(select(Guide).where(Guide.job_id.in_(syntheses), Guide.image_sha256.in_(tested))):
        used[guide.image_sha256] = f"the guide {guide.name!r} of job {guide.job_id}"
    samples = select(Sample.pool_image_sha256, Sample.pool_image_name).distinct()
    samples = samples.where(Sample.job_id.in_(syntheses), Sample.pool_image_sha256.in_(tested))
    for sha256, name in session.execute(samples):
        used[sha256] = f"the pool image {name!r} of a synthesis"
    leaking = [(image.name, used[image.image_sha256]) for image in test if image.image_sha256 in used]
    if leaking:
        all_of_them = ", ".join(f"{name!r} has the same pixels as {same}" for name, same in leaking)
        raise LeakingTestImage(f"{all_of_them}; test on images used nowhere else")


def arm_done(session: Session, claim: Claim) -> int:
    """An arm's figures lie in blob `keys.arm(job, position)`; the report follows the last. -> steps made."""
    job, step = hold(session, claim)
    count_done(session, job)
    return step_done(session, job, step)


def reported(session: Session, claim: Claim, sha256s: Mapping[str, str]) -> None:
    """The report lies in blobs `keys.report(job, format)`, one for each of FORMATS: the job has succeeded."""
    job, _ = hold(session, claim)
    session.add_all(Report(job_id=job.id, format=form, sha256=sha256) for form, sha256 in sha256s.items())
    end_job(session, job, "succeeded")
