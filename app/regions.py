"""Crops to the region of interest: which part of its original an image of the store shows."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.tables import PoolImage, Sample

CROP = "crop"  # a job's parameter `region`; else it is "none"


def box(width: int, height: int, crop: dict[str, Any] | None) -> dict[str, Any]:
    """Which part of an original of that size a 512x256 image shows."""
    whole = {"left": 0, "top": 0, "width": width, "height": height}
    return crop or {**whole, "frame_width": width, "frame_height": height, "found": None}


def pool_boxes(session: Session, samples: Iterable[Sample]) -> dict[int, dict[str, Any]]:
    """The boxes of the pool images that some samples are made of, by their ids."""
    used = {sample.pool_image_id for sample in samples}
    query = select(PoolImage.id, PoolImage.width, PoolImage.height, PoolImage.crop).where(PoolImage.id.in_(used))
    return {image_id: box(width, height, crop) for image_id, width, height, crop in session.execute(query)}
