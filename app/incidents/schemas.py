"""Incidents on the wire."""

from datetime import datetime
from uuid import UUID

from app.db.statuses import Resolution
from app.incidents.queries import IncidentRow
from app.wire import Given


class IncidentView(Given):
    """A step that failed for good and is parked; `resolution` is null while it waits for an operator."""

    id: UUID
    execution_id: UUID
    root_id: UUID
    template: str
    step_id: str
    visit: int
    item: int | None
    code: str
    message: str
    opened_at: datetime
    resolved_at: datetime | None
    resolution: Resolution | None
    actor: str | None


def incident_view(row: IncidentRow) -> IncidentView:
    """An incident as it is shown."""
    fields = row.incident.model_dump(exclude={"key"})
    return IncidentView(**fields, template=row.template, root_id=row.root_id)
