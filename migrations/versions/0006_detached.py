"""Which children their parents do not wait for, so that they may outlive them."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    detached = sa.Column("detached", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    op.add_column("workflow_execution", detached)


def downgrade() -> None:
    op.drop_column("workflow_execution", "detached")
