"""when a job last got on, from which follows how long it will take."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("progressed_at", sa.DateTime(timezone=True), nullable=True))
