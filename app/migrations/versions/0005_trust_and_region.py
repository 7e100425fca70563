"""samples that failed their thresholds, and crops to the region of interest."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

JSON = sa.JSON(none_as_null=True)


def upgrade() -> None:
    op.add_column("samples", sa.Column("spares", JSON, nullable=True))
    op.add_column("samples", sa.Column("redraws", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("samples", sa.Column("dropped", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("dropped", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("redrawn", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("guides", sa.Column("crop", JSON, nullable=True))
    op.add_column("pool_images", sa.Column("crop", JSON, nullable=True))
