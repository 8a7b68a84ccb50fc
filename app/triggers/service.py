"""What happens when something happened."""

from app.db.session import Database
from app.db.statuses import EntityType, EventSource
from app.executions.queries import find_linked_target
from app.executions.starting import StartRequest
from app.inbox.aims import LINK
from app.inbox.settling import trigger_of
from app.inbox.storing import Incoming
from app.inbox.taking import Ask, Taken, take
from app.settings import Settings
from app.temporal import Temporal
from app.triggers.schemas import TriggerRequest

# What each source tells of: the trigger's key, the kind of entity, and what people call it.
KINDS = {
    EventSource.SERVICE_REQUEST: ("service_request_created", EntityType.SERVICE_CATALOG, "service request"),
    EventSource.PRODUCT_PURCHASE: ("product_bought", EntityType.PRODUCT, "purchase"),
}


async def take_event(
    database: Database, temporal: Temporal, settings: Settings, source: EventSource, request: TriggerRequest
) -> Taken:
    """Stores the event and starts the active version of the entity's template.

    Raises what `take` raises. An event that was taken before gets the execution it got then.
    """
    trigger_key, entity_type, called = KINDS[source]
    event = Incoming(
        source=source,
        trigger_key=trigger_key,
        dedupe_key=request.event_id,
        summary=f"{called} {request.event_id} · {entity_type} {request.entity_id}",
        payload=request.model_dump(mode="json", by_alias=True, exclude_unset=True),
        entity_type=entity_type.value,
        entity_id=request.entity_id,
    )
    key = f"{source}:{request.event_id}"
    asked = StartRequest(request.context, trigger_of(event), request.name, key)
    ask = Ask(
        event,
        asked,
        find=lambda connection: find_linked_target(connection, entity_type, request.entity_id, key),
        target=LINK,
    )
    taken = await take(database, temporal, settings, ask)
    assert taken is not None
    return taken
