"""What steering leaves behind: human tasks, incidents, dead letters, the lineage of runs, and the audit."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TASK_STATUS = "status IN ('OPEN', 'CLAIMED', 'COMPLETED', 'CANCELLED', 'EXPIRED')"
RESOLUTION = "resolution IN ('RETRIED', 'COMPLETED', 'FAILED', 'WITHDRAWN')"
RESOLVED_WHOLE = "(resolution IS NULL) = (resolved_at IS NULL)"
LINEAGE_KIND = "kind IN ('RETRY', 'RESUME', 'MIGRATE', 'REPLAY')"
LINEAGE_STATUS = "status IN ('PENDING', 'DONE', 'REFUSED')"


def upgrade() -> None:
    create_human_tasks()
    create_incidents()
    create_dead_letters()
    create_lineage()
    create_audit()


def downgrade() -> None:
    for table in ("audit_event", "execution_lineage", "dead_letter", "incident", "human_task"):
        op.drop_table(table)


def moment(name: str, *, nullable: bool = True, now: bool = False) -> sa.Column:
    default = sa.text("now()") if now else None
    return sa.Column(name, sa.DateTime(timezone=True), server_default=default, nullable=nullable)


def document(name: str) -> sa.Column:
    return sa.Column(name, postgresql.JSONB(), nullable=True)


def of_execution() -> list[sa.schema.SchemaItem]:
    return [
        sa.Column("execution_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(["execution_id"], ["workflow_execution.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    ]


def of_step() -> list[sa.Column]:
    return [
        sa.Column("key", sa.String(500), nullable=False),
        sa.Column("step_id", sa.String(200), nullable=False),
        sa.Column("visit", sa.Integer(), nullable=False),
        sa.Column("item", sa.Integer(), nullable=True),
    ]


def create_human_tasks() -> None:
    op.create_table(
        "human_task",
        sa.Column("id", sa.Uuid(), nullable=False),
        *of_execution(),
        *of_step(),
        sa.Column("name", sa.String(), nullable=True),
        sa.Column("type", sa.String(50), nullable=True),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("assignee", sa.String(), nullable=True),
        sa.Column("candidate_groups", postgresql.ARRAY(sa.String()), server_default=sa.text("'{}'"), nullable=False),
        moment("due_at"),
        document("form"),
        document("outcome"),
        moment("opened_at", nullable=False),
        moment("closed_at"),
        moment("recorded_at", nullable=False),
        sa.Column("claimed_by", sa.String(), nullable=True),
        document("draft"),
        moment("created_at", nullable=False, now=True),
        moment("updated_at", nullable=False, now=True),
        sa.CheckConstraint(TASK_STATUS, name="status_known"),
        sa.UniqueConstraint("execution_id", "key"),
    )
    still_open = sa.text("status IN ('OPEN', 'CLAIMED')")
    op.create_index("ix_human_task_open", "human_task", ["execution_id"], postgresql_where=still_open)


def create_incidents() -> None:
    op.create_table(
        "incident",
        sa.Column("id", sa.Uuid(), nullable=False),
        *of_execution(),
        *of_step(),
        sa.Column("code", sa.String(200), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        moment("opened_at", nullable=False),
        moment("resolved_at"),
        sa.Column("resolution", sa.String(20), nullable=True),
        sa.Column("actor", sa.String(), nullable=True),
        sa.CheckConstraint(RESOLUTION, name="resolution_known"),
        sa.CheckConstraint(RESOLVED_WHOLE, name="resolved_whole"),
        sa.UniqueConstraint("execution_id", "key", "opened_at"),
    )
    op.create_index("ix_incident_open", "incident", ["id"], postgresql_where=sa.text("resolved_at IS NULL"))


def create_dead_letters() -> None:
    op.create_table(
        "dead_letter",
        sa.Column("id", sa.Uuid(), nullable=False),
        *of_execution(),
        sa.Column("step_id", sa.String(200), nullable=True),
        sa.Column("code", sa.String(200), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("failed_execution_id", sa.Uuid(), nullable=True),
        sa.Column("state", sa.JSON(), nullable=False),
        moment("created_at", nullable=False, now=True),
        moment("retried_at"),
        sa.UniqueConstraint("execution_id"),
    )
    op.create_index("ix_dead_letter_created_at_id", "dead_letter", ["created_at", "id"])


def create_lineage() -> None:
    op.create_table(
        "execution_lineage",
        sa.Column("id", sa.Uuid(), nullable=False),
        *of_execution(),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("status", sa.String(20), nullable=False),
        moment("at", nullable=False, now=True),
        sa.Column("actor", sa.String(), nullable=True),
        sa.Column("note", sa.String(), nullable=True),
        sa.Column("previous_run_id", sa.String(100), nullable=True),
        sa.Column("run_id", sa.String(100), nullable=True),
        sa.Column("source_id", sa.Uuid(), nullable=True),
        sa.Column("step_id", sa.String(200), nullable=True),
        sa.Column("visit", sa.Integer(), nullable=True),
        sa.Column("item", sa.Integer(), nullable=True),
        sa.Column("from_version_id", sa.Uuid(), nullable=True),
        sa.Column("to_version_id", sa.Uuid(), nullable=True),
        document("mapping"),
        sa.Column("closed_as", sa.String(20), nullable=True),
        moment("ended_at"),
        sa.Column("status_reason", sa.String(), nullable=True),
        sa.Column("idempotency_key", sa.String(500), nullable=True),
        sa.Column("state", sa.JSON(), nullable=True),
        sa.CheckConstraint(LINEAGE_KIND, name="kind_known"),
        sa.CheckConstraint(LINEAGE_STATUS, name="status_known"),
        sa.UniqueConstraint("execution_id", "idempotency_key"),
    )
    pending = sa.text("status = 'PENDING'")
    op.create_index("ix_execution_lineage_pending", "execution_lineage", ["id"], postgresql_where=pending)


def create_audit() -> None:
    table = "audit_event"
    op.create_table(
        table,
        sa.Column("id", sa.Uuid(), nullable=False),
        moment("at", nullable=False, now=True),
        sa.Column("actor", sa.String(), nullable=True),
        sa.Column("action", sa.String(60), nullable=False),
        sa.Column("entity_kind", sa.String(40), nullable=False),
        sa.Column("entity_id", sa.String(200), nullable=True),
        sa.Column("execution_id", sa.Uuid(), nullable=True),
        document("request"),
        document("before"),
        document("after"),
        sa.Column("result", sa.String(100), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    for columns in (["execution_id", "id"], ["actor", "id"], ["action", "id"], ["at"]):
        op.create_index(None, table, columns)
