"""What happens when something happened."""

from enum import StrEnum

from app.db.session import Database
from app.db.statuses import EntityType
from app.executions.queries import find_linked_target
from app.executions.service import Started, start_execution
from app.executions.starting import StartRequest
from app.settings import Settings
from app.temporal import Temporal
from app.triggers.schemas import TriggerRequest


class Source(StrEnum):
    """Where events come from; the first part of an idempotency key."""

    SERVICE_REQUEST = "service-request"
    PRODUCT_PURCHASE = "product-purchase"


ENTITY_TYPES = {
    Source.SERVICE_REQUEST: EntityType.SERVICE_CATALOG,
    Source.PRODUCT_PURCHASE: EntityType.PRODUCT,
}


async def take_event(
    database: Database, temporal: Temporal, settings: Settings, source: Source, request: TriggerRequest
) -> Started | None:
    """Starts the active version of the entity's template; None when the entity has no link.

    Raises what `accept` raises. An event that was taken before gets the execution it got then.
    """
    entity_type = ENTITY_TYPES[source]
    key = f"{source}:{request.event_id}"
    return await start_execution(
        database,
        temporal,
        settings,
        lambda connection: find_linked_target(connection, entity_type, request.entity_id, key),
        StartRequest(
            context=request.context,
            trigger={
                "source": source.value,
                "eventId": request.event_id,
                "entityType": entity_type.value,
                "entityId": request.entity_id,
            },
            name=request.name,
            key=key,
        ),
    )
