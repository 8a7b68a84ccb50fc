"""The tables of users whose row changes are events."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "change_source",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        words("key", 200),
        sa.Column("trigger_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(["trigger_id"], ["trigger_definition.id"], ondelete="RESTRICT"),
        words("connection", 40),
        words("table_schema", 63),
        words("table_name", 63),
        words("method", 20),
        sa.Column("operations", postgresql.JSONB(), nullable=False),
        names("monitored_columns"),
        words("status_column", 63, nullable=True),
        sa.Column("filter", postgresql.JSONB(), nullable=True),
        words("entity_type", 30, nullable=True),
        words("entity_column", 63, nullable=True),
        names("key_columns"),
        words("before_image", 20),
        words("identity_before", 200, nullable=True),
        words("slot", 63, nullable=True),
        words("publication", 63, nullable=True),
        words("checkpoint", 20, nullable=True),
        words("status", 20),
        words("code", 200, nullable=True),
        words("message", nullable=True),
        sa.Column("lag_bytes", sa.BigInteger(), nullable=True),
        number("changes_seen"),
        number("events_stored"),
        sa.Column("last_change_at", sa.DateTime(timezone=True), nullable=True),
        moment("created_at"),
        moment("updated_at"),
        sa.UniqueConstraint("key"),
        sa.UniqueConstraint("connection", "table_schema", "table_name"),
        one_of("method", ["REPLICATION", "OUTBOX", "POSTED"]),
        one_of("status", ["ACTIVE", "PAUSED", "FAILED"]),
        one_of("before_image", ["FULL", "KEY"]),
    )
    op.create_index("ix_change_source_trigger_id", "change_source", ["trigger_id"])


def downgrade() -> None:
    op.drop_table("change_source")


def words(name: str, length: int | None = None, *, nullable: bool = False) -> sa.Column:
    return sa.Column(name, sa.String(length), nullable=nullable)


def names(name: str) -> sa.Column:
    return sa.Column(name, postgresql.JSONB(), server_default=sa.text("'[]'"), nullable=False)


def number(name: str) -> sa.Column:
    return sa.Column(name, sa.BigInteger(), server_default=sa.text("0"), nullable=False)


def moment(name: str) -> sa.Column:
    return sa.Column(name, sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False)


def one_of(column: str, values: Sequence[str]) -> sa.CheckConstraint:
    allowed = ", ".join(f"'{value}'" for value in values)
    return sa.CheckConstraint(f"{column} IN ({allowed})", name=f"{column}_known")
