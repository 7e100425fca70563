"""jobs remember their last turn, so that they take turns where there is but one worker."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

INDEXES = {
    "jobs_by_turn": ["turn"],
    "jobs_by_turn_of_tenant": ["tenant", "turn"],
    "jobs_by_turn_of_key": ["tenant", "api_key", "turn"],
}


def upgrade() -> None:
    op.add_column("jobs", sa.Column("turn", sa.BigInteger(), server_default="0", nullable=False))
    for name, columns in INDEXES.items():
        op.create_index(name, "jobs", columns)
