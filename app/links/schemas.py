"""Links on the wire."""

from datetime import datetime
from uuid import UUID

from pydantic import Field

from app.db.statuses import EntityType
from app.wire import Given, Taken


class LinkPut(Taken):
    """The template (id or slug) that the entity is to start."""

    template_id: str = Field(min_length=1, max_length=100, description="a template's id or slug")


class LinkView(Given):
    """A link as users read it."""

    id: UUID
    entity_type: EntityType
    entity_id: str
    template_id: UUID
    template: str
    created_at: datetime
    updated_at: datetime
