"""keys, what they use and do, and whom pools and jobs belong to."""

import sqlalchemy as sa
from alembic import op

BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
NAMED = {"uq": "%(table_name)s_%(column_0_name)s_key", "pk": "%(table_name)s_pkey"}  # as PostgreSQL names them

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    with op.batch_alter_table("pools", naming_convention=NAMED) as pools:
        pools.add_column(tenant())
        pools.drop_constraint("pools_name_key", type_="unique")
        pools.create_unique_constraint("pools_tenant_name_key", ["tenant", "name"])

    op.add_column("jobs", tenant())
    op.add_column("jobs", sa.Column("api_key", sa.String(length=12), nullable=False, server_default=""))
    op.drop_index("jobs_by_age", "jobs")
    op.create_index("jobs_by_age", "jobs", ["tenant", "created_at", "id"])

    with op.batch_alter_table("idempotency_keys", naming_convention=NAMED) as keys:
        keys.add_column(tenant())
        keys.drop_constraint("idempotency_keys_pkey", type_="primary")
        keys.create_primary_key("idempotency_keys_pkey", ["tenant", "key"])

    op.create_table(
        "api_keys",
        sa.Column("prefix", sa.String(length=12), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("max_queued_jobs", sa.Integer(), nullable=True),
        sa.Column("max_bytes_per_day", sa.BigInteger(), nullable=True),
        sa.Column("max_samples_per_day", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("prefix"),
    )
    op.create_table(
        "key_usage",
        sa.Column("prefix", sa.String(length=12), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("samples", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["prefix"], ["api_keys.prefix"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("prefix", "day"),
    )
    op.create_table(
        "audit",
        sa.Column("id", BigId, autoincrement=True, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("api_key", sa.String(length=12), nullable=False),
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.Column("action", sa.String(length=255), nullable=False),
        sa.Column("object", sa.String(length=255), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_audit_at", "audit", ["at"])


def tenant() -> sa.Column[str]:
    return sa.Column("tenant", sa.String(length=63), nullable=False, server_default="default")
