"""samples are found by their blobs, so that tidying takes no longer a blob however large the jobs are."""

from alembic import op

revision = "0011"
down_revision = "0010"

INDEXES = {"samples_by_image": "image_sha256", "samples_by_mask": "mask_sha256"}


def upgrade() -> None:
    for name, column in INDEXES.items():
        op.create_index(name, "samples", [column])
