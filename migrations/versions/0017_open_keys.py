"""Of the deeds under one idempotency key that are done to the same, one is being done at a time."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

OPEN_KEYS = "result = 'PENDING' AND idempotency_key IS NOT NULL"


def upgrade() -> None:
    # What was left by processes that died, perhaps several times under one key.
    op.execute(f"UPDATE audit_event SET result = 'UNKNOWN' WHERE {OPEN_KEYS}")
    op.create_index(
        "uq_audit_event_open_key",
        "audit_event",
        ["entity_kind", "entity_id", "idempotency_key"],
        unique=True,
        postgresql_where=sa.text(OPEN_KEYS),
    )


def downgrade() -> None:
    op.drop_index("uq_audit_event_open_key", "audit_event")
