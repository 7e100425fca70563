"""samples that could not be made are found by an index, however large the job."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

FAILED = sa.text("failure IS NOT NULL")


def upgrade() -> None:
    op.create_index("samples_failed", "samples", ["job_id", "position"], sqlite_where=FAILED, postgresql_where=FAILED)
