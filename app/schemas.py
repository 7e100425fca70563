"""The JSON bodies that the service takes and gives."""

import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator
from sqlalchemy.orm import Session

from app.access.tenants import NAME, NAME_IN_WORDS
from app.queries import REASONS, eta_seconds, failed_samples, import_outcome
from app.tables import Delivery, Guide, Job, Pool, PoolImage, Sample
from app.trust import quality_summary

Kind = Literal["synthesis", "pool_import", "evaluation"]
Status = Literal["queued", "running", "cancelling", "succeeded", "failed", "cancelled"]


REASONS_IN_LIST = 10  # of each job: a list of 1000 must not name a million files
IN_LIST = f"in a list of jobs the first {REASONS_IN_LIST}"


class FieldErrorBody(BaseModel):
    field: str
    detail: str = Field(description="the value and the remedy")


class ProblemBody(BaseModel):
    """RFC 9457, as application/problem+json."""

    type: str = Field(description="urn:pansynth:problem:..., for programs: it stays the same")
    title: str
    status: int
    detail: str
    errors: list[FieldErrorBody] = Field([], description="where fields are wrong: every one of them")


class PoolRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = Field(
        description=NAME_IN_WORDS,
        json_schema_extra={"pattern": f"^{NAME}$"},
    )

    @field_validator("name")
    @classmethod
    def well_formed(cls, name: str) -> str:
        if not re.fullmatch(NAME, name):
            raise ValueError(f"should be {NAME_IN_WORDS}")
        return name


class PoolBody(BaseModel):
    name: str
    image_count: int
    created_at: datetime
    links: dict[str, str]

    @classmethod
    def of(cls, pool: Pool, image_count: int) -> "PoolBody":
        here = f"/pools/{pool.name}"
        links = {"self": here, "images": f"{here}/images"}
        return cls(name=pool.name, image_count=image_count, created_at=pool.created_at, links=links)


class PoolImageBody(BaseModel):
    id: int
    name: str
    width: int = Field(description="of the file that was sent; the image as it is used is 512x256")
    height: int = Field(description="of the file that was sent")
    sha256: str = Field(description="of the PNG at links.self, as in its ETag")
    crop: dict[str, Any] | None = Field(
        description="which part of the file it shows: left, top, width, height, in pixels of frame_width x "
        "frame_height; found: whether there was a jaw. null: all of it"
    )
    links: dict[str, str]

    @classmethod
    def of(cls, image: PoolImage, pool_name: str) -> "PoolImageBody":
        return cls(
            id=image.id,
            name=image.name,
            width=image.width,
            height=image.height,
            sha256=image.sha256,
            crop=image.crop,
            links={"self": f"/pools/{pool_name}/images/{image.id}"},
        )


class Progress(BaseModel):
    done: int
    total: int


class Rejected(BaseModel):
    name: str
    detail: str


class WebhookBody(BaseModel):
    url: str
    status: str = Field(
        json_schema_extra={"enum": ["pending", "delivered", "given_up"]}, description="pending also until the job ends"
    )
    attempts: int
    last_error: str | None

    @classmethod
    def of(cls, session: Session, job: Job) -> "WebhookBody | None":
        """How far the job's webhook is; None for a job that asked for none."""
        if job.webhook is None or (delivery := session.get(Delivery, job.id)) is None:  # deleted a moment ago
            return None
        return cls(url=job.webhook, status=delivery.status, attempts=delivery.attempts, last_error=delivery.last_error)


class FailedSample(BaseModel):
    index: int
    detail: str


class JobBody(BaseModel):
    id: str
    kind: str = Field(json_schema_extra={"enum": [*get_args(Kind)]})
    status: str = Field(json_schema_extra={"enum": [*get_args(Status)]}, description="the last three are for good")
    stage: str | None = Field(
        description="while it runs: planning, sampling, packaging; of an evaluation training, reporting"
    )
    progress: Progress = Field(description="of samples, files or training runs")
    eta_seconds: float | None = Field(
        description="by its pace so far, as it was when `progress` last grew; null: no pace yet, or ended"
    )
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    parameters: dict[str, Any] = Field(
        description=f"as sent, the preset's filled in; `guides`: the names of their files, {IN_LIST}"
    )
    error: ProblemBody | None = Field(description="why it failed; its `status` is 422 where what was sent is at fault")
    links: dict[str, str] = Field(description="self, cancel, events, and what its kind makes")
    webhook: WebhookBody | None = None
    quality_summary: dict[str, int] | None = Field(
        None, description="of a synthesis: samples made = kept + dropped + redrawn"
    )
    stored: int | None = Field(None, description="of an import: images that the pool did not have")
    duplicates: int | None = Field(None, description="of an import: images that the pool had already")
    rejected: list[Rejected] | None = Field(
        None, description=f"the first {REASONS}, {IN_LIST}; all are progress.done - stored - duplicates"
    )
    failed_samples: list[FailedSample] | None = Field(
        None, description=f"those that could not be made, the first {REASONS}, {IN_LIST}; the dataset lacks them"
    )

    @classmethod
    def of(cls, session: Session, job: Job, reasons: int = REASONS) -> "JobBody":
        """The job as clients see it; also what became of an import's files, and which samples failed.

        reasons: of how many files or samples it says what went wrong, and how many guides it names.
        """
        eta = eta_seconds(job)
        parameters = {name: given[:reasons] if name == "guides" else given for name, given in job.parameters.items()}
        outcome: dict[str, Any] = {}
        if job.kind == "pool_import":
            outcome = asdict(import_outcome(session, job, reasons))
        elif job.kind == "synthesis":
            outcome = {"failed_samples": failed_samples(session, job, reasons)}
        return cls(
            id=job.id,
            kind=job.kind,
            status=job.status,
            stage=job.stage,
            progress=Progress(done=job.done, total=job.total),
            eta_seconds=None if eta is None else round(eta, 1),
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
            parameters=parameters,
            error=None if job.error is None else ProblemBody(**job.error),
            links=job_links(job),
            webhook=WebhookBody.of(session, job),
            quality_summary=quality_summary(job) if job.kind == "synthesis" else None,
            **outcome,
        )


def job_links(job: Job) -> dict[str, str]:
    here = f"/jobs/{job.id}"
    links = {"self": here, "cancel": f"{here}/cancel", "events": f"{here}/events"}
    if job.kind == "synthesis":
        return links | {"samples": f"{here}/samples", "dataset": f"{here}/dataset"}
    if job.kind == "evaluation":
        return links | {"report": f"{here}/report"} | {k: f"{here}/report.{k}" for k in ("csv", "md", "png")}
    return links


class QualityBody(BaseModel):
    """How a sample came out. A figure that was not measured is left out; one that cannot be told is null."""

    model_config = ConfigDict(extra="allow")
    canal_contrast: float | None = Field(
        None, description="gray levels by which the canal is darker than the bone around it; below 0: it is brighter"
    )
    guide_canal_contrast: float | None = Field(None, description="the same in its guide")
    canal_retention: float | None = Field(
        None, description="the first over the second: is the label still seen? null: the guide has less than 2 levels"
    )
    canal_correlation: float | None = Field(
        None, description="correlation of the fine detail under the mask with the guide's"
    )
    alignment: float | None = Field(
        None, description="with align: how well the moved guide fits there, at most 1; null: it could not be moved"
    )
    background_ssim: float | None = Field(None, description="SSIM with the pool image outside the blended band")
    seam: float | None = Field(
        None, description="the step in gray across the band's border, relative to the pool image's: above 1 it shows"
    )
    training_distance: float | None = Field(
        None,
        description="in latent space to the nearest training image: 0 is a copy, 1 as far as different patients are "
        "from one another; null: the weights do not know their training images",
    )


class SampleBody(BaseModel):
    index: int
    guide: str = Field(description="its file's name")
    pool_image: str = Field(description="its file's name")
    rank: int = Field(
        description="of the pool image for this guide, 1 the most similar; with selection=random the order of the draw"
    )
    ssim: float = Field(description="of the guide's and the pool image's latents")
    seed: int = Field(description="up to 2**63 - 1, more than a double holds")
    quality: QualityBody | None
    links: dict[str, str]

    @classmethod
    def of(cls, sample: Sample, guide: Guide) -> "SampleBody":
        here = f"/jobs/{sample.job_id}/samples/{sample.position}"
        return cls(
            index=sample.position,
            guide=guide.name,
            pool_image=sample.pool_image_name,
            rank=sample.rank,
            ssim=sample.ssim,
            seed=sample.seed,
            quality=None if sample.quality is None else QualityBody(**sample.quality),
            links={name: f"{here}/{name}" for name in ("image", "mask", "pool_image")},
        )


class ModelBody(BaseModel):
    name: str
    sha256: str
    created: str | None
    latent_channels: int | None
    bytes: int
    loaded: bool = Field(description="whether a live worker holds it in memory")
    card: str


class PoolList(BaseModel):
    items: Sequence[PoolBody]
    next: str | None


class PoolImageList(BaseModel):
    items: Sequence[PoolImageBody]
    next: str | None


class JobList(BaseModel):
    items: Sequence[JobBody]
    next: str | None


class SampleList(BaseModel):
    items: Sequence[SampleBody]
    next: str | None


class ModelList(BaseModel):
    items: Sequence[ModelBody]
    next: str | None
