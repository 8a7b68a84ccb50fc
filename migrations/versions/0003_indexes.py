"""What the reconciler and the list by runtime status look for has an index."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_workflow_execution_cancel_unconfirmed",
        "workflow_execution",
        ["id"],
        postgresql_where=sa.text("status_reason = 'CANCEL_UNCONFIRMED'"),
    )
    op.create_index("ix_workflow_execution_closed_as", "workflow_execution", ["closed_as", "id"])


def downgrade() -> None:
    op.drop_index("ix_workflow_execution_closed_as", table_name="workflow_execution")
    op.drop_index("ix_workflow_execution_cancel_unconfirmed", table_name="workflow_execution")
