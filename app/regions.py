"""Crops to the region of interest: what the store keeps of them, and the verb by which a worker makes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.leases import hold
from app.records import Claim
from app.tables import Guide, PoolImage, Sample

CROP = "crop"  # a job's parameter `region`; else it is "none"


@dataclass(frozen=True)
class CroppedGuide:
    """A guide after its crop; the blobs of both 512x256 PNGs are written. `crop` is a `models.region.Box`."""

    position: int
    image_sha256: str
    mask_sha256: str
    crop: dict[str, Any]


def guides_cropped(session: Session, claim: Claim, cropped: Sequence[CroppedGuide]) -> None:
    """Guides that came at their own size are cropped and at 512x256 now; done twice it is the same."""
    job, _ = hold(session, claim)
    for one in cropped:
        guide = session.get_one(Guide, (job.id, one.position))
        guide.image_sha256, guide.mask_sha256, guide.crop = one.image_sha256, one.mask_sha256, one.crop


def box(width: int, height: int, crop: dict[str, Any] | None) -> dict[str, Any]:
    """Which part of an original of that size a 512x256 image shows."""
    whole = {"left": 0, "top": 0, "width": width, "height": height}
    return crop or {**whole, "frame_width": width, "frame_height": height, "found": None}


def pool_boxes(session: Session, job_id: str) -> dict[int, dict[str, Any]]:
    """The boxes of the pool images that a job's samples are made of, by their ids."""
    used = select(Sample.pool_image_id).where(Sample.job_id == job_id)
    query = select(PoolImage.id, PoolImage.width, PoolImage.height, PoolImage.crop).where(PoolImage.id.in_(used))
    return {image_id: box(width, height, crop) for image_id, width, height, crop in session.execute(query)}
