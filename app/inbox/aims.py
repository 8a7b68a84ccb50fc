"""What an event is for: the entity's link, the template it names, the subscriptions that match."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

import structlog

from app.db.event_tables import Subscription
from app.db.session import Connection
from app.db.statuses import DeliveryStatus, EventSource
from app.inbox.queries import Delivery, Event, find_links, find_subscriptions
from app.subscriptions.matching import ReadSubscription, read_subscription
from engine.errors import EngineError

log = structlog.get_logger(__name__)

LINK = "link"
TEMPLATE = "template"
SUBSCRIPTION = "subscription:"
# Whose entities' links decide; events of other sources may name an entity, and mean something else by it.
LINKED_SOURCES = frozenset({EventSource.SERVICE_REQUEST, EventSource.PRODUCT_PURCHASE, EventSource.BACKFILL})


@dataclass(frozen=True, slots=True)
class Listener:
    """A subscription and the trigger that it listens to."""

    trigger_key: str
    subscription: ReadSubscription


@dataclass(frozen=True, slots=True)
class Aim:
    """A target of an event, and the delivery that was written of it before."""

    event: Event
    target: str
    template_id: UUID | None
    subscription: ReadSubscription | None = None
    before: Delivery | None = None


async def find_aims(
    connection: Connection, events: Sequence[Event], earlier: dict[UUID, dict[str, Delivery]], *, early: bool
) -> list[Aim]:
    """The targets that are to be tried now, or `early`; `earlier` are the deliveries of each event by target."""
    # What was refused is tried with what the entity is linked to now: mending the link is how it is mended.
    asking = [event for event in events if not event.matched or LINK in earlier[event.id]]
    links = await find_links(connection, [_entity(event) for event in asking if _may_be_linked(event)])
    # Those of earlier deliveries are asked for too: what waits for its turn is tried as the subscription is now.
    keys = {event.trigger_key for event in events if event.template_id is None}
    listeners = list(_read(await find_subscriptions(connection, keys)))
    aims = []
    for event in events:
        for aim in _aims_of(event, links, listeners, earlier[event.id]):
            before = earlier[event.id].get(aim.target)
            if before is None or (before.status is DeliveryStatus.PENDING and (early or before.due)):
                aims.append(replace(aim, before=before))
    return aims


def _read(rows: Iterable[Subscription]) -> Iterable[Listener]:
    """The subscriptions that can be read: they are checked when they are saved, so one that cannot is a bug's."""
    for row in rows:
        try:
            yield Listener(row.trigger_key, read_subscription(row))
        except EngineError as error:
            log.error("subscription_unreadable", subscription_id=str(row.id), code=error.code)


def _aims_of(
    event: Event,
    links: dict[tuple[str, str], UUID],
    listeners: Sequence[Listener],
    earlier: dict[str, Delivery],
) -> Iterable[Aim]:
    found = {} if event.matched else {aim.target: aim for aim in _matching(event, links, listeners)}
    by_id = {each.subscription.id: each.subscription for each in listeners}
    for delivery in earlier.values():
        if delivery.target not in found:
            mine = None if delivery.subscription_id is None else by_id.get(delivery.subscription_id)
            linked = links.get(_entity(event)) if delivery.target == LINK else None
            found[delivery.target] = Aim(event, delivery.target, linked or delivery.template_id, mine)
    return found.values()


def _matching(event: Event, links: dict[tuple[str, str], UUID], listeners: Sequence[Listener]) -> Iterable[Aim]:
    if event.template_id is not None:
        yield Aim(event, TEMPLATE, event.template_id)
        return
    linked = links.get(_entity(event)) if _may_be_linked(event) else None
    if linked is not None:
        yield Aim(event, LINK, linked)
    for listener in listeners:
        one = listener.subscription
        if listener.trigger_key == event.trigger_key and one.matches(event.payload):
            yield Aim(event, f"{SUBSCRIPTION}{one.id}", one.template_id, one)


def _may_be_linked(event: Event) -> bool:
    return event.template_id is None and event.entity_id is not None and event.source in LINKED_SOURCES


def _entity(event: Event) -> tuple[str, str]:
    return event.entity_type or "", event.entity_id or ""
