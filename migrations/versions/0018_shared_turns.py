"""What is due is found by trigger, so that each gets its share of the dispatcher."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

PENDING = sa.text("status = 'PENDING'")


def upgrade() -> None:
    op.drop_index("ix_trigger_event_due", "trigger_event")
    op.create_index("ix_trigger_event_due", "trigger_event", ["trigger_key", "due_at", "id"], postgresql_where=PENDING)


def downgrade() -> None:
    op.drop_index("ix_trigger_event_due", "trigger_event")
    op.create_index("ix_trigger_event_due", "trigger_event", ["due_at"], postgresql_where=PENDING)
