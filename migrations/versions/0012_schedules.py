"""Schedules and polls, and what polls have seen."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "schedule_trigger",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("description", sa.String(), nullable=True),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("spec", postgresql.JSONB(), nullable=False),
        sa.Column("overlap", sa.String(20), nullable=False),
        sa.Column("catch_up_seconds", sa.Float(), nullable=False),
        sa.Column("max_executions", sa.Integer(), nullable=True),
        sa.Column("remaining", sa.Integer(), nullable=True),
        switch("paused"),
        sa.Column("note", sa.String(), nullable=True),
        sa.Column("template_id", sa.Uuid(), nullable=True),
        sa.Column("trigger_key", sa.String(200), nullable=True),
        *(sa.Column(name, postgresql.JSONB(), nullable=True) for name in ("context", "execution_name")),
        *(sa.Column(name, postgresql.JSONB(), nullable=True) for name in ("poll", "cursor")),
        switch("primed"),
        sa.Column("last_run_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.String(), nullable=True),
        sa.Column("last_error_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        switch("synced"),
        sa.Column("sync_error", sa.String(), nullable=True),
        moment("created_at"),
        moment("updated_at"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
        sa.ForeignKeyConstraint(["template_id"], ["workflow_template.id"], ondelete="CASCADE"),
        sa.CheckConstraint("kind IN ('SCHEDULE', 'POLL')", name="kind_known"),
        sa.CheckConstraint(
            "overlap IN ('SKIP', 'BUFFER_ONE', 'BUFFER_ALL', 'CANCEL_OTHER', 'TERMINATE_OTHER', 'ALLOW_ALL')",
            name="overlap_known",
        ),
        sa.CheckConstraint("(template_id IS NULL) <> (trigger_key IS NULL)", name="one_target"),
        sa.CheckConstraint("(kind = 'POLL') = (poll IS NOT NULL)", name="source_of_poll"),
    )
    op.create_index("ix_schedule_trigger_template_id", "schedule_trigger", ["template_id"])
    op.create_table(
        "poll_item",
        sa.Column("schedule_id", sa.Uuid(), nullable=False),
        sa.Column("item", sa.String(500), nullable=False),
        moment("seen_at"),
        sa.PrimaryKeyConstraint("schedule_id", "item"),
        sa.ForeignKeyConstraint(["schedule_id"], ["schedule_trigger.id"], ondelete="CASCADE"),
    )
    op.create_index(
        "ix_trigger_event_by_clock",
        "trigger_event",
        ["dedupe_key"],
        postgresql_ops={"dedupe_key": "text_pattern_ops"},
        postgresql_where=sa.text("source IN ('schedule', 'poll')"),
    )


def downgrade() -> None:
    op.drop_index("ix_trigger_event_by_clock", "trigger_event")
    op.drop_table("poll_item")
    op.drop_table("schedule_trigger")


def switch(name: str) -> sa.Column:
    return sa.Column(name, sa.Boolean(), server_default=sa.text("false"), nullable=False)


def moment(name: str) -> sa.Column:
    return sa.Column(name, sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False)
