"""Trying a trigger: what its subscriptions would make of an event, or an event in earnest."""

from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from app.audit.repeating import fingerprint
from app.audit.service import Deed, audited_once
from app.canonical import digest
from app.db.session import Database
from app.db.statuses import EventSource, SubscriptionStatus
from app.db.tables import TemplateStatus, new_id
from app.errors import Conflict, about_event
from app.executions.control import Caller
from app.inbox.storing import Incoming, store
from app.registry.trigger_schemas import TestedSubscription, TriggerTest
from app.registry.triggers import get_trigger
from app.subscriptions.explaining import explained
from app.subscriptions.matching import read_subscription
from app.subscriptions.queries import SubscriptionFilter, list_subscriptions
from app.subscriptions.warning import find_taken, warnings
from app.webhooks.credentials import without_credentials
from app.webhooks.queries import list_endpoints_of

EVENT_OF_KEY = "SELECT id FROM trigger_event WHERE source = $1 AND dedupe_key = $2"


async def try_trigger(database: Database, key: str, request: TriggerTest) -> list[TestedSubscription]:
    """What each subscription would make of an event; nothing happens. Raises TRIGGER_NOT_FOUND."""
    async with database.transaction() as session:
        payload = await _payload(session, key, request)
        rows = await list_subscriptions(session, SubscriptionFilter(trigger_key=key), before=None, limit=None)
        taken = await find_taken(session, rows)
    tested = []
    for row, template in rows:
        view = explained(read_subscription(row), payload, warnings((row, template), taken))
        is_heard = row.status == SubscriptionStatus.ACTIVE and template.status == TemplateStatus.ACTIVE
        tested.append(
            TestedSubscription(
                **view.model_dump(),
                subscription_id=row.id,
                template=template.slug,
                status=row.status,
                delivers=view.holds and is_heard and view.problem is None,
            )
        )
    return tested


async def fire_trigger(database: Database, key: str, request: TriggerTest, caller: Caller) -> UUID:
    """An event of the source MANUAL in the inbox; its id there. A repetition with the caller's key is the same event,
    whatever has become of the trigger and its sample.

    Raises TRIGGER_NOT_FOUND, IDEMPOTENCY_CONFLICT.
    """
    dedupe_key = f"test:{digest([key, caller.key]) if caller.key else new_id()}"
    # What proves who sent a request is not kept, and which parts of it do may be configured otherwise meanwhile.
    asked = await fingerprint(request.model_dump(mode="json", exclude_unset=True), caller.key)
    deed = Deed(
        "FIRE_TRIGGER", "TRIGGER", key, caller.actor, request=asked, key=caller.update_id(f"FIRE_TRIGGER {key}")
    )
    with about_event(await _find_event(database, dedupe_key, caller)):
        async with audited_once(database, deed) as done:
            if done is not None and done.after is not None:
                return UUID(done.after["eventRecordId"])
            async with database.transaction() as session:
                payload = await _payload(session, key, request)
            if caller.key is None:
                deed.request = {"payload": payload}
            event_id = await _store(database, key, dedupe_key, payload, caller)
            deed.after = {"eventRecordId": str(event_id)}
    return event_id


async def _find_event(database: Database, dedupe_key: str, caller: Caller) -> UUID | None:
    """The event that was made under the caller's key."""
    if caller.key is None:
        return None
    async with database.driver() as connection:
        found: UUID | None = await connection.fetchval(EVENT_OF_KEY, EventSource.MANUAL, dedupe_key)
    return found


async def _store(database: Database, key: str, dedupe_key: str, payload: Any, caller: Caller) -> UUID:
    event = Incoming(
        source=EventSource.MANUAL,
        trigger_key=key,
        dedupe_key=dedupe_key,
        summary=f"test of {key} by {caller.actor or 'somebody'}",
        payload=payload,
    )
    async with database.driver() as connection, connection.transaction():
        stored = (await store(connection, [event]))[0]
        if stored.conflicting:
            with about_event(stored.id):
                raise Conflict("IDEMPOTENCY_CONFLICT", "The key was used for another request.")
    return stored.id


async def _payload(session: AsyncSession, key: str, request: TriggerTest) -> Any:
    """What the event brings: of a webhook's trigger without what proves who sent it, as if it had come in."""
    trigger = await get_trigger(session, key)
    payload = request.payload if "payload" in request.model_fields_set else trigger.sample_payload
    if trigger.source != EventSource.WEBHOOK:
        return payload
    return without_credentials(payload, await list_endpoints_of(session, key))
