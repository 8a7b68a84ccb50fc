"""What becomes of events whose template cannot be started now."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

QUEUED = "status = 'PENDING' AND code IN ('TEMPLATE_PAUSED', 'RATE_LIMITED', 'CONCURRENCY_LIMITED')"


def upgrade() -> None:
    op.add_column(
        "workflow_template",
        sa.Column("when_paused", sa.String(20), server_default=sa.text("'REFUSE'"), nullable=False),
    )
    op.add_column("workflow_template", sa.Column("limits", postgresql.JSONB(), nullable=True))
    op.create_check_constraint("when_paused_known", "workflow_template", "when_paused IN ('REFUSE', 'QUEUE')")
    op.create_index(
        "ix_trigger_delivery_queued",
        "trigger_delivery",
        ["template_id", "event_id"],
        postgresql_where=sa.text(QUEUED),
    )


def downgrade() -> None:
    op.drop_index("ix_trigger_delivery_queued", "trigger_delivery")
    op.drop_column("workflow_template", "limits")
    op.drop_column("workflow_template", "when_paused")
