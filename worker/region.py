"""Crops to the region of interest, from the original resolution."""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from app import jobs, keys, queries
from app.records import CroppedGuide
from app.regions import CROP
from app.tables import Guide, Job
from models import pixels
from models.region import Box, crop_box, find_region
from worker.lease import Lease
from worker.workplace import Workplace


def find_box(place: Workplace, image: NDArray[np.float32], anatomy: NDArray[np.bool_] | None = None) -> Box:
    """The crop of an original (H, W) in [0, 1]; it holds all of `anatomy`."""
    height, width = image.shape
    return crop_box(find_region(place.networks.region_finder(), image), (height, width), anatomy)


def crop_guides(place: Workplace, lease: Lease, job: Job, guides: Sequence[Guide]) -> Sequence[Guide]:
    """The guides as the synthesis takes them: those that still are at their own size are cropped first."""
    if job.parameters.get("region") != CROP:
        return guides
    waiting = [guide for guide in guides if guide.crop is None]
    cropped = []
    for guide in waiting:
        lease.check()
        cropped.append(_crop(place, job, guide))
    with place.database.write() as session:
        jobs.guides_cropped(session, lease.claim, cropped)
    with place.database.read() as session:
        return queries.guides(session, job.id)[lease.claim.first : lease.claim.last]


def _crop(place: Workplace, job: Job, guide: Guide) -> CroppedGuide:
    """Write the cropped guide's blobs."""
    image = pixels.full_image_from_png(_original(place, job, guide.image_sha256))
    mask = pixels.full_mask_from_png(_original(place, job, guide.mask_sha256))
    box = find_box(place, image, mask)
    pngs = (
        pixels.image_png(pixels.resize_image(box.cut(image))),
        pixels.mask_png(pixels.resize_mask(box.cut(mask))),
    )
    image_sha256, mask_sha256 = (pixels.sha256(png) for png in pngs)
    for sha256, png in zip((image_sha256, mask_sha256), pngs, strict=True):
        place.blobs.put(keys.guide(job.id, sha256), png)
    return CroppedGuide(guide.position, image_sha256, mask_sha256, asdict(box))


def _original(place: Workplace, job: Job, sha256: str) -> bytes:
    """Raises BlobDamaged: a label of other bytes would be false."""
    return place.blobs.get(keys.original(job.id, sha256), sha256)
