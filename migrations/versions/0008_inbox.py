"""The inbox: events and what became of them; the trigger registry and the subscriptions to it."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

SOURCES = "service-request product-purchase manual webhook schedule row-change poll backfill"
CATEGORIES = "webhook database schedule email external manual"


def upgrade() -> None:
    create_definitions()
    create_subscriptions()
    create_events()
    create_deliveries()


def downgrade() -> None:
    for table in ("trigger_delivery", "trigger_event", "subscription", "trigger_definition"):
        op.drop_table(table)


def moment(name: str, *, now: bool = True) -> sa.Column:
    default = sa.text("now()") if now else None
    return sa.Column(name, sa.DateTime(timezone=True), server_default=default, nullable=not now)


def document(name: str, default: str | None = None, *, nullable: bool = True) -> sa.Column:
    server_default = None if default is None else sa.text(f"'{default}'")
    return sa.Column(name, postgresql.JSONB(), server_default=server_default, nullable=nullable)


def words(name: str, length: int | None = None, *, nullable: bool = False) -> sa.Column:
    return sa.Column(name, sa.String(length), nullable=nullable)


def number(name: str) -> sa.Column:
    return sa.Column(name, sa.Integer(), server_default=sa.text("1"), nullable=False)


def identity() -> list[sa.schema.SchemaItem]:
    return [sa.Column("id", sa.Uuid(), nullable=False), sa.PrimaryKeyConstraint("id")]


def refers_to(table: str, column: str, ondelete: str) -> list[sa.schema.SchemaItem]:
    return [
        sa.Column(column, sa.Uuid(), nullable=ondelete == "SET NULL"),
        sa.ForeignKeyConstraint([column], [f"{table}.id"], ondelete=ondelete),
    ]


def one_of(column: str, values: Sequence[str]) -> sa.CheckConstraint:
    allowed = ", ".join(f"'{value}'" for value in values)
    return sa.CheckConstraint(f"{column} IN ({allowed})", name=f"{column}_known")


def create_definitions() -> None:
    op.create_table(
        "trigger_definition",
        *identity(),
        words("key", 200),
        words("name", 200),
        words("description", nullable=True),
        words("category", 20),
        words("source", 30),
        document("properties", "[]", nullable=False),
        document("sample_payload"),
        document("variables", "[]", nullable=False),
        sa.Column("built_in", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        moment("created_at"),
        moment("updated_at"),
        sa.UniqueConstraint("key"),
        one_of("category", CATEGORIES.split()),
        one_of("source", SOURCES.split()),
    )


def create_subscriptions() -> None:
    op.create_table(
        "subscription",
        *identity(),
        *refers_to("workflow_template", "template_id", "CASCADE"),
        *refers_to("trigger_definition", "trigger_id", "RESTRICT"),
        words("trigger_key", 200),
        words("description", nullable=True),
        words("status", 20),
        words("mode", 20),
        document("filter"),
        document("properties", "{}", nullable=False),
        document("context"),
        document("name"),
        words("signal", 200, nullable=True),
        document("correlation_key"),
        moment("created_at"),
        moment("updated_at"),
        one_of("status", ["ACTIVE", "INACTIVE"]),
        one_of("mode", ["START", "RESUME", "START_OR_RESUME"]),
    )
    op.create_index(
        "ix_subscription_active", "subscription", ["trigger_key"], postgresql_where=sa.text("status = 'ACTIVE'")
    )
    op.create_index("ix_subscription_template_id", "subscription", ["template_id"])
    op.create_index("ix_subscription_trigger_id", "subscription", ["trigger_id"])


def create_events() -> None:
    op.create_table(
        "trigger_event",
        *identity(),
        words("source", 30),
        words("trigger_key", 200),
        words("dedupe_key", 500),
        words("request_hash", 64),
        words("summary", 400),
        document("payload", nullable=False),
        document("headers"),
        words("entity_type", 30, nullable=True),
        words("entity_id", 200, nullable=True),
        *refers_to("workflow_template", "template_id", "SET NULL"),
        words("status", 20),
        moment("due_at"),
        moment("matched_at", now=False),
        number("times"),
        moment("received_at"),
        moment("last_received_at"),
        sa.UniqueConstraint("source", "dedupe_key"),
        one_of("source", SOURCES.split()),
        one_of("status", ["PENDING", "HANDLED", "UNMATCHED"]),
    )
    op.create_index("ix_trigger_event_due", "trigger_event", ["due_at"], postgresql_where=sa.text("status = 'PENDING'"))
    op.create_index("ix_trigger_event_entity", "trigger_event", ["entity_type", "entity_id"])
    op.create_index("ix_trigger_event_trigger_key_id", "trigger_event", ["trigger_key", "id"])


def create_deliveries() -> None:
    op.create_table(
        "trigger_delivery",
        *identity(),
        *refers_to("trigger_event", "event_id", "CASCADE"),
        words("target", 100),
        words("kind", 20),
        *refers_to("workflow_template", "template_id", "SET NULL"),
        *refers_to("subscription", "subscription_id", "SET NULL"),
        *refers_to("workflow_execution", "execution_id", "SET NULL"),
        words("correlation_key", 400, nullable=True),
        words("status", 20),
        words("code", 200, nullable=True),
        words("message", nullable=True),
        number("attempts"),
        moment("due_at"),
        moment("created_at"),
        moment("updated_at"),
        sa.UniqueConstraint("event_id", "target"),
        one_of("kind", ["START", "SIGNAL"]),
        one_of("status", ["PENDING", "STARTED", "SIGNALLED", "REFUSED"]),
    )
    op.create_index("ix_trigger_delivery_execution_id", "trigger_delivery", ["execution_id"])
    op.create_index(
        "ix_trigger_delivery_correlation",
        "trigger_delivery",
        ["template_id", "correlation_key"],
        postgresql_where=sa.text("correlation_key IS NOT NULL"),
    )
    op.create_index(
        "ix_trigger_delivery_subscription",
        "trigger_delivery",
        ["subscription_id", "created_at"],
        postgresql_where=sa.text("subscription_id IS NOT NULL"),
    )
