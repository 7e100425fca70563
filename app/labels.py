"""A sample's label: its own mask where its guide was moved, else its guide's."""

from typing import NamedTuple

from app import keys
from app.tables import Guide, Sample


class Label(NamedTuple):
    """The blob of a mask, and the sha256 of its bytes."""

    key: str
    sha256: str


def label(sample: Sample, guide: Guide) -> Label:
    """Of a sample that is made, and the guide that it is made of."""
    if sample.mask_sha256 is not None:
        return Label(keys.sample(sample.job_id, sample.mask_sha256), sample.mask_sha256)
    return guide_label(guide)


def guide_label(guide: Guide) -> Label:
    return Label(keys.guide(guide.job_id, guide.mask_sha256), guide.mask_sha256)
