"""What is left of a backfill whose rows have been deleted: how many there were of each status."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("backfill", sa.Column("row_counts", postgresql.JSONB(), nullable=True))
    op.add_column("backfill", sa.Column("rows_deleted_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("backfill", "rows_deleted_at")
    op.drop_column("backfill", "row_counts")
