"""The idempotency keys of what was done, so that a repetition gets the first answer."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("audit_event", sa.Column("idempotency_key", sa.String(), nullable=True))
    op.create_index(
        "ix_audit_event_key",
        "audit_event",
        ["execution_id", "idempotency_key"],
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_audit_event_key", "audit_event")
    op.drop_column("audit_event", "idempotency_key")
