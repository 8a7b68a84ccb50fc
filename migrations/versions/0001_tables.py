"""The tables of the spine: templates, versions, links, executions, and the catalogue of actions."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TEMPLATE_STATUS = "status IN ('DRAFT', 'ACTIVE', 'PAUSED', 'ARCHIVED')"
VERSION_STATUS = "status IN ('DRAFT', 'PUBLISHED', 'DEPRECATED')"
ENTITY_TYPE = "entity_type IN ('SERVICE_CATALOG', 'PRODUCT')"
RECORD_STATUS = "status IN ('CREATED', 'STARTED', 'FAILED_TO_START', 'COMPLETED')"
CLOSED_AS = "closed_as IN ('COMPLETED', 'FAILED', 'CANCELLED', 'TERMINATED', 'TIMED_OUT')"
CLOSED_WHOLE = "num_nulls(closed_as, ended_at) = CASE status WHEN 'COMPLETED' THEN 0 ELSE 2 END"


def upgrade() -> None:
    create_templates()
    create_links()
    create_executions()
    create_actions()


def downgrade() -> None:
    op.drop_table("action")
    op.drop_table("workflow_execution")
    op.drop_table("workflow_template_link")
    op.drop_constraint("fk_workflow_template_active_version", "workflow_template", type_="foreignkey")
    op.drop_table("workflow_template_version")
    op.drop_table("workflow_template")


def timestamps() -> list[sa.Column]:
    return [
        sa.Column(name, sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False)
        for name in ("created_at", "updated_at")
    ]


def create_templates() -> None:
    op.create_table(
        "workflow_template",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("slug", sa.String(100), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("description", sa.String(), nullable=True),
        sa.Column("segment", sa.String(50), nullable=True),
        sa.Column("category", sa.String(100), nullable=True),
        sa.Column("tags", postgresql.ARRAY(sa.String()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("pinned", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("is_gallery", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("active_version_id", sa.Uuid(), nullable=True),
        *timestamps(),
        sa.CheckConstraint(TEMPLATE_STATUS, name="status_known"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("active_version_id"),
        sa.UniqueConstraint("slug"),
    )
    op.create_table(
        "workflow_template_version",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("template_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.String(50), nullable=False),
        sa.Column("version_note", sa.String(), nullable=True),
        sa.Column("definition", postgresql.JSONB(), nullable=False),
        sa.Column("definition_hash", sa.String(64), nullable=False),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=True),
        *timestamps(),
        sa.CheckConstraint(VERSION_STATUS, name="status_known"),
        sa.ForeignKeyConstraint(["template_id"], ["workflow_template.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("template_id", "id"),
        sa.UniqueConstraint("template_id", "version"),
    )
    op.create_foreign_key(
        "fk_workflow_template_active_version",
        "workflow_template",
        "workflow_template_version",
        ["id", "active_version_id"],
        ["template_id", "id"],
    )


def create_links() -> None:
    op.create_table(
        "workflow_template_link",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("template_id", sa.Uuid(), nullable=False),
        sa.Column("entity_type", sa.String(30), nullable=False),
        sa.Column("entity_id", sa.String(200), nullable=False),
        *timestamps(),
        sa.CheckConstraint(ENTITY_TYPE, name="entity_type_known"),
        sa.ForeignKeyConstraint(["template_id"], ["workflow_template.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("entity_type", "entity_id"),
    )
    op.create_index(None, "workflow_template_link", ["template_id"])


def create_executions() -> None:
    op.create_table(
        "workflow_execution",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(500), nullable=False),
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column("template_id", sa.Uuid(), nullable=False),
        sa.Column("parent_id", sa.Uuid(), nullable=True),
        sa.Column("root_id", sa.Uuid(), nullable=False),
        sa.Column("context", postgresql.JSONB(), nullable=False),
        sa.Column("trigger", postgresql.JSONB(), nullable=True),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("status_reason", sa.String(), nullable=True),
        sa.Column("idempotency_key", sa.String(500), nullable=True),
        sa.Column("request_hash", sa.String(64), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("closed_as", sa.String(20), nullable=True),
        *timestamps(),
        sa.CheckConstraint(RECORD_STATUS, name="status_known"),
        sa.CheckConstraint(CLOSED_AS, name="closed_as_known"),
        sa.CheckConstraint(CLOSED_WHOLE, name="closed_whole"),
        sa.CheckConstraint("parent_id IS NOT NULL OR root_id = id", name="root_of_itself"),
        sa.ForeignKeyConstraint(["parent_id"], ["workflow_execution.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["root_id"], ["workflow_execution.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["template_id"], ["workflow_template.id"], ondelete="RESTRICT"),
        sa.ForeignKeyConstraint(["version_id"], ["workflow_template_version.id"], ondelete="RESTRICT"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("template_id", "idempotency_key"),
    )
    index_executions()


def index_executions() -> None:
    table = "workflow_execution"
    for columns in (["parent_id"], ["root_id"], ["version_id"], ["created_at", "id"]):
        op.create_index(None, table, columns)
    op.create_index(None, table, ["template_id", "created_at", "id"])
    entity = [sa.text("(trigger->>'entityType')"), sa.text("(trigger->>'entityId')")]
    op.create_index("ix_workflow_execution_entity", table, entity)
    op.create_index(
        "ix_workflow_execution_left_created",
        table,
        ["created_at"],
        postgresql_where=sa.text("status = 'CREATED' AND parent_id IS NULL"),
    )
    op.create_index(
        "ix_workflow_execution_open",
        table,
        ["id"],
        postgresql_where=sa.text("status IN ('CREATED', 'STARTED')"),
    )


def create_actions() -> None:
    op.create_table(
        "action",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("version", sa.String(50), nullable=False),
        sa.Column("description", sa.String(), nullable=True),
        sa.Column("parameters_schema", postgresql.JSONB(), nullable=False),
        sa.Column("output_schema", postgresql.JSONB(), nullable=True),
        sa.Column("policies", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        *timestamps(),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("key"),
    )
