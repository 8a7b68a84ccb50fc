"""The audit on the wire."""

from datetime import datetime
from typing import Any
from uuid import UUID

from app.db.tables import AuditEvent
from app.wire import Given


class AuditEventView(Given):
    """Who did what to what. `result` is PENDING while it is being done, or when nobody could say how it ended.

    `request`, `before` and `after` above 16 KiB are `{omitted, bytes, sha256}`.
    """

    id: UUID
    at: datetime
    actor: str | None
    action: str
    entity_kind: str
    entity_id: str | None
    execution_id: UUID | None
    request: dict[str, Any] | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    result: str
    reason: str | None


def audit_view(event: AuditEvent) -> AuditEventView:
    """An event as it is shown."""
    return AuditEventView(**event.model_dump(exclude={"idempotency_key"}))
