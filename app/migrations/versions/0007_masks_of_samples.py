"""a sample's own mask, where its guide was moved."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("samples", sa.Column("mask_sha256", sa.String(length=64), nullable=True))
