"""Events on their way through the inbox, for tests."""

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import select
from sqlmodel import col

from app.db.event_tables import Subscription, TriggerDefinition, TriggerDelivery, TriggerEvent
from app.db.session import Database
from app.db.statuses import EventSource
from app.db.tables import WorkflowExecution
from app.inbox.storing import Incoming, Stored, store
from tests.app.scenes import Json


def incoming_event(trigger_key: str = "orders_db_change", **fields: Any) -> Incoming:
    """A change of a row, as it comes in."""
    fields = {"dedupe_key": uuid4().hex, "summary": "orders · UPDATE · 42", "payload": {"after": {"id": 42}}} | fields
    return Incoming(source=EventSource.ROW_CHANGE, trigger_key=trigger_key, **fields)


async def store_events(database: Database, *incoming: Incoming, held: bool = False) -> list[Stored]:
    """Stores events; `held` from the dispatcher for as long as a test lasts."""
    async with database.driver() as connection, connection.transaction():
        return await store(connection, incoming, held=timedelta(minutes=1) if held else timedelta(0))


async def read_event(database: Database, event_id: UUID) -> TriggerEvent:
    """An event's row."""
    async with database.transaction() as session:
        event = await session.get(TriggerEvent, event_id)
    assert event is not None
    return event


async def read_deliveries(database: Database, event_id: UUID) -> list[TriggerDelivery]:
    """What became of an event."""
    async with database.transaction() as session:
        statement = select(TriggerDelivery).where(col(TriggerDelivery.event_id) == event_id)
        return [*(await session.execute(statement.order_by(col(TriggerDelivery.id)))).scalars()]


async def read_execution(database: Database, execution_id: UUID | None) -> WorkflowExecution:
    """An execution's row."""
    async with database.transaction() as session:
        row = await session.get(WorkflowExecution, execution_id)
    assert row is not None
    return row


async def subscribe(database: Database, template: Json, trigger_key: str, **fields: Any) -> Subscription:
    """Subscribes the template to a trigger, which is made if need be."""
    async with database.transaction() as session:
        statement = select(TriggerDefinition).where(col(TriggerDefinition.key) == trigger_key)
        trigger = (await session.execute(statement)).scalar_one_or_none()
        if trigger is None:
            trigger = TriggerDefinition(key=trigger_key, name=trigger_key, category="database", source="row-change")
            session.add(trigger)
            await session.flush()
        subscription = Subscription(
            template_id=UUID(template["id"]), trigger_id=trigger.id, trigger_key=trigger_key, **fields
        )
        session.add(subscription)
    return subscription
