"""What the verbs of jobs are told, and the claim they give a worker."""

from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True)
class NewGuide:
    """A guide whose image and mask are written: as `keys.guide`, or as `keys.original` where a worker is to crop it."""

    name: str
    width: int  # as uploaded
    height: int
    image_sha256: str
    mask_sha256: str


@dataclass(frozen=True)
class CroppedGuide:
    """A guide after its crop; the blobs of both 512x256 PNGs are written. `crop` is a `models.region.Box`."""

    position: int
    image_sha256: str
    mask_sha256: str
    crop: dict[str, Any]


@dataclass(frozen=True)
class NewSample:
    """A sample to make, as a plan step decides."""

    position: int
    guide: int
    pool_image_id: int
    pool_image_name: str
    pool_image_sha256: str
    rank: int
    ssim: float
    seed: int
    spares: list[dict[str, Any]] | None = None  # the fields from `pool_image_id` on, see `jobs.redraw_sample`


@dataclass(frozen=True)
class MadeSample:
    """A sample whose blobs are written. mask_sha256: None where its label is its guide's mask."""

    position: int
    image_sha256: str
    quality: dict[str, Any]
    mask_sha256: str | None = None


@dataclass(frozen=True)
class NewImage:
    """A pool image read from an upload; its blob is written."""

    name: str
    width: int  # as uploaded
    height: int
    sha256: str
    crop: dict[str, Any] | None = None  # a `models.region.Box`, where a crop was asked for


@dataclass(frozen=True)
class NewLatent:
    """Where the latent of a pool image lies; its shard's blob is written."""

    sha256: str  # the image's
    model_sha256: str
    shard: str
    row: int
    low: float
    high: float


class Outcome(NamedTuple):
    """What became of an upload: an image to store, or the reason why not."""

    position: int
    image: NewImage | None
    detail: str | None = None


@dataclass(frozen=True)
class Claim:
    """A leased step: what its worker needs to know, and the proof that the step is its own."""

    step_id: int
    lease: str
    job_id: str
    kind: str
    first: int
    last: int
    attempt: int  # 1 is the first
