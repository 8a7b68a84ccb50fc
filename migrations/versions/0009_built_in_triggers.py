"""The triggers that Millrace brings."""

import uuid
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

OF_A_START = [
    {"path": "context", "type": "object", "description": "what the sender said of it"},
    {"path": "name", "type": "string", "description": "the name that the sender gave, or nothing"},
]


def field(name: str, display_name: str, kind: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "displayName": display_name, "type": kind, **more}


METHODS = [{"name": word, "value": word} for word in ("GET", "POST", "PUT", "PATCH", "DELETE")]

ENTRIES: list[dict[str, Any]] = [
    {
        "key": "service_request_created",
        "name": "Service request created",
        "description": "A service request was created; the linked template is started by the link itself.",
        "category": "external",
        "source": "service-request",
        "sample_payload": {"context": {"company": "Example Ltd", "country": "GB"}, "name": "Incorporation"},
        "variables": OF_A_START,
    },
    {
        "key": "product_bought",
        "name": "Product bought",
        "description": "A product was bought; the linked template is started by the link itself.",
        "category": "external",
        "source": "product-purchase",
        "sample_payload": {"context": {"customer": "c-1", "amount": 120}, "name": "Order 42"},
        "variables": OF_A_START,
    },
    {
        "key": "webhook_generic",
        "name": "Webhook",
        "description": "Somebody called a webhook.",
        "category": "webhook",
        "source": "webhook",
        "properties": [
            field("methods", "Methods", "multiOptions", options=METHODS, hint="All, unless some are chosen."),
            field("path", "Path", "string", placeholder="/orders/*", validation=[{"type": "maxLength", "max": 500}]),
        ],
        "sample_payload": {
            "method": "POST",
            "path": "/orders",
            "params": {},
            "query": {},
            "headers": {"content-type": "application/json"},
            "body": {"id": 42, "status": "paid"},
        },
        "variables": [
            {"path": "method", "type": "string", "description": "of the request"},
            {"path": "path", "type": "string", "description": "of the request"},
            {"path": "query", "type": "object", "description": "the parameters after the question mark"},
            {"path": "headers", "type": "object", "description": "without secrets"},
            {"path": "body", "type": "any", "description": "what was sent"},
        ],
    },
    {
        "key": "schedule_cron",
        "name": "Schedule",
        "description": "A schedule has come to one of its times.",
        "category": "schedule",
        "source": "schedule",
        "sample_payload": {
            "scheduleId": "01900000-0000-7000-8000-000000000000",
            "cronExpression": "0 9 * * MON",
            "triggerTime": "2026-01-05T09:00:00+00:00",
            "timezone": "UTC",
        },
        "variables": [
            {"path": "scheduleId", "type": "string", "description": "which schedule"},
            {"path": "cronExpression", "type": "string", "description": "its times"},
            {"path": "triggerTime", "type": "dateTime", "description": "the time that has come"},
            {"path": "timezone", "type": "string", "description": "in which its times are meant"},
        ],
    },
    {
        "key": "manual",
        "name": "By hand",
        "description": "Somebody asked for it.",
        "category": "manual",
        "source": "manual",
        "sample_payload": {"reason": "a test"},
        "variables": [{"path": "reason", "type": "string", "description": "why"}],
    },
]


def upgrade() -> None:
    table = sa.table(
        "trigger_definition",
        sa.column("id", sa.Uuid()),
        *(sa.column(name, sa.String()) for name in ("key", "name", "description", "category", "source")),
        *(sa.column(name, postgresql.JSONB()) for name in ("properties", "sample_payload", "variables")),
        sa.column("built_in", sa.Boolean()),
    )
    rows = [{"properties": [], **entry, "id": uuid.uuid4(), "built_in": True} for entry in ENTRIES]
    op.bulk_insert(table, rows)


def downgrade() -> None:
    op.execute("DELETE FROM subscription USING trigger_definition d WHERE d.id = trigger_id AND d.built_in")
    op.execute("DELETE FROM trigger_definition WHERE built_in")
