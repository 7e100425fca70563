"""what could not be made, and how an import went, without counting rows."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

REJECTED = sa.text("outcome = 'rejected'")


def upgrade() -> None:
    # Workers of the version before insert no such columns: the server's defaults let both versions run.
    op.add_column("samples", sa.Column("failure", sa.Text(), nullable=True))
    for name in ("stored", "failed"):
        op.add_column("jobs", sa.Column(name, sa.Integer(), nullable=False, server_default="0"))
    op.create_index(
        "uploads_rejected", "uploads", ["job_id", "position"], sqlite_where=REJECTED, postgresql_where=REJECTED
    )
    for column, outcome in (("stored", "stored"), ("failed", "rejected")):
        counted = f"SELECT count(*) FROM uploads WHERE uploads.job_id = jobs.id AND outcome = '{outcome}'"
        op.execute(f"UPDATE jobs SET {column} = ({counted}) WHERE kind = 'pool_import'")
