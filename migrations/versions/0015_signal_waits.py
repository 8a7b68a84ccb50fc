"""Executions that wait for a signal under a correlation key can be found by it."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "signal_wait",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("execution_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.String(500), nullable=False),
        sa.Column("signal", sa.String(200), nullable=False),
        sa.Column("correlation_key", sa.String(400), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["execution_id"], ["workflow_execution.id"], name="fk_signal_wait_execution_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_signal_wait"),
        sa.UniqueConstraint("execution_id", "key", name="uq_signal_wait_execution_id_key"),
    )
    op.create_index(
        "ix_signal_wait_open",
        "signal_wait",
        ["signal", "correlation_key", "opened_at"],
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.add_column("trigger_delivery", sa.Column("wait_id", sa.Uuid(), nullable=True))
    op.create_index(
        "ix_trigger_delivery_wait_id", "trigger_delivery", ["wait_id"], postgresql_where=sa.text("wait_id IS NOT NULL")
    )


def downgrade() -> None:
    op.drop_index("ix_trigger_delivery_wait_id", "trigger_delivery")
    op.drop_column("trigger_delivery", "wait_id")
    op.drop_table("signal_wait")
