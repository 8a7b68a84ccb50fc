"""Endpoints of webhooks, and how often each did what with what came in."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "webhook_endpoint",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("description", sa.String(), nullable=True),
        sa.Column("path", sa.String(500), nullable=False),
        sa.Column("shape", sa.String(500), nullable=False),
        sa.Column("segments", sa.Integer(), nullable=False),
        sa.Column("wild", sa.Boolean(), nullable=False),
        sa.Column("open_ended", sa.Boolean(), nullable=False),
        sa.Column("methods", postgresql.JSONB(), nullable=False),
        sa.Column("required_headers", postgresql.JSONB(), nullable=False),
        sa.Column("max_bytes", sa.Integer(), nullable=False),
        sa.Column("response_mode", sa.String(20), nullable=False),
        sa.Column("response", postgresql.JSONB(), nullable=False),
        sa.Column("scheme", sa.String(20), nullable=False),
        sa.Column("verification", postgresql.JSONB(), nullable=False),
        sa.Column("secret", sa.String(), nullable=True),
        sa.Column("previous_secret", sa.String(), nullable=True),
        sa.Column("previous_secret_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("trigger_key", sa.String(200), nullable=False),
        sa.Column("template_id", sa.Uuid(), nullable=True),
        sa.Column("dedupe", postgresql.JSONB(), nullable=True),
        sa.Column("rate_limit", postgresql.JSONB(), nullable=True),
        sa.Column("allowance", sa.DateTime(timezone=True), nullable=True),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("shape"),
        sa.ForeignKeyConstraint(["template_id"], ["workflow_template.id"], ondelete="CASCADE"),
        sa.CheckConstraint(
            "scheme IN ('NONE', 'STANDARD', 'GITHUB', 'STRIPE', 'SLACK', 'HMAC', 'TOKEN')", name="scheme_known"
        ),
        sa.CheckConstraint("response_mode IN ('ASYNC', 'SYNC', 'CUSTOM')", name="response_mode_known"),
    )
    op.create_index("ix_webhook_endpoint_wild", "webhook_endpoint", ["segments"], postgresql_where=sa.text("wild"))
    op.create_index("ix_webhook_endpoint_template_id", "webhook_endpoint", ["template_id"])
    op.create_index("ix_webhook_endpoint_trigger_key", "webhook_endpoint", ["trigger_key"])
    op.create_table(
        "webhook_tally",
        sa.Column("endpoint_id", sa.Uuid(), nullable=False),
        sa.Column("result", sa.String(100), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("endpoint_id", "result"),
        sa.ForeignKeyConstraint(["endpoint_id"], ["webhook_endpoint.id"], ondelete="CASCADE"),
    )


def downgrade() -> None:
    op.drop_table("webhook_tally")
    op.drop_table("webhook_endpoint")
