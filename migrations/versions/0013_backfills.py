"""Backfills: executions for many past events, and what became of each row."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

STATUSES = "LOADING RUNNING PAUSED COMPLETED CANCELLED FAILED"
ROW_STATUSES = "PENDING STARTED REPEATED REFUSED INVALID"
ENTITY_TYPES = "SERVICE_CATALOG PRODUCT"


def one_of(column: str, values: str) -> sa.CheckConstraint:
    allowed = ", ".join(f"'{value}'" for value in values.split())
    return sa.CheckConstraint(f"{column} IN ({allowed})", name=f"{column}_known")


def moment(name: str, *, now: bool = True) -> sa.Column:
    return sa.Column(
        name, sa.DateTime(timezone=True), server_default=sa.text("now()") if now else None, nullable=not now
    )


def words(name: str, length: int | None = None, *, nullable: bool = True) -> sa.Column:
    return sa.Column(name, sa.String(length), nullable=nullable)


def flag(name: str) -> sa.Column:
    return sa.Column(name, sa.Boolean(), server_default=sa.text("false"), nullable=False)


def refers_to(table: str, column: str, ondelete: str) -> list[sa.schema.SchemaItem]:
    return [
        sa.Column(column, sa.Uuid(), nullable=ondelete == "SET NULL"),
        sa.ForeignKeyConstraint([column], [f"{table}.id"], ondelete=ondelete),
    ]


def upgrade() -> None:
    op.create_table(
        "backfill",
        sa.Column("id", sa.Uuid(), nullable=False),
        words("name", 200, nullable=False),
        *refers_to("workflow_template", "template_id", "SET NULL"),
        words("entity_type", 30),
        sa.Column("rate", sa.Float(), nullable=True),
        sa.Column("concurrency", sa.Integer(), nullable=True),
        sa.Column("source", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        words("status", 20, nullable=False),
        words("status_reason"),
        words("created_by", 200),
        moment("created_at"),
        moment("updated_at"),
        moment("started_at", now=False),
        moment("ended_at", now=False),
        sa.PrimaryKeyConstraint("id"),
        one_of("status", STATUSES),
        one_of("entity_type", ENTITY_TYPES),
    )
    op.create_table(
        "backfill_row",
        *refers_to("backfill", "backfill_id", "CASCADE"),
        sa.Column("number", sa.Integer(), nullable=False),
        words("event_id", 400),
        words("entity_id", 200),
        words("name", 200),
        sa.Column("context", postgresql.JSONB(), nullable=True),
        sa.Column("raw", postgresql.JSONB(), nullable=True),
        words("status", 20, nullable=False),
        words("code", 200),
        words("message"),
        *refers_to("trigger_event", "trigger_event_id", "SET NULL"),
        flag("repeated"),
        flag("open"),
        *refers_to("workflow_execution", "execution_id", "SET NULL"),
        moment("updated_at"),
        sa.PrimaryKeyConstraint("backfill_id", "number"),
        sa.UniqueConstraint("backfill_id", "event_id"),
        one_of("status", ROW_STATUSES),
    )
    op.create_index("ix_backfill_row_status", "backfill_row", ["backfill_id", "status", "number"])
    op.create_index("ix_backfill_row_open", "backfill_row", ["backfill_id"], postgresql_where=sa.text("open"))
    op.create_index("ix_backfill_row_trigger_event_id", "backfill_row", ["trigger_event_id"])
    op.create_index("ix_backfill_row_execution_id", "backfill_row", ["execution_id"])


def downgrade() -> None:
    op.drop_table("backfill_row")
    op.drop_table("backfill")
