"""Questions about events and deliveries."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from asyncpg import Record
from sqlalchemy import ColumnElement, delete, func, inspect, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import defer
from sqlmodel import col

from app.db.event_tables import Subscription, TriggerDelivery, TriggerEvent
from app.db.session import Connection
from app.db.statuses import DeliveryKind, DeliveryStatus, EventSource, EventStatus
from app.db.tables import WorkflowTemplate

EVENT = """
    SELECT id, source, trigger_key, dedupe_key, request_hash, summary, payload::text AS payload, entity_type, entity_id,
        template_id, matched_at, due_at
    FROM trigger_event
"""
# Each trigger whose events are due gets the same share of a batch, so that a flood of one keeps no other waiting. What
# is ordered by the time, too, is found in the index of what is PENDING, whatever PostgreSQL thinks of the table.
DUE = f"""
    WITH RECURSIVE first AS (
        (SELECT trigger_key, due_at FROM trigger_event WHERE status = 'PENDING' ORDER BY trigger_key, due_at LIMIT 1)
        UNION ALL
        SELECT following.trigger_key, following.due_at FROM first CROSS JOIN LATERAL (
            SELECT event.trigger_key, event.due_at FROM trigger_event AS event
            WHERE event.status = 'PENDING' AND event.trigger_key > first.trigger_key
            ORDER BY event.trigger_key, event.due_at LIMIT 1
        ) AS following
    ), due AS (
        SELECT trigger_key, count(*) OVER () AS triggers FROM first WHERE due_at <= now()
    )
    SELECT event.* FROM due CROSS JOIN LATERAL (
        {EVENT} WHERE status = 'PENDING' AND trigger_key = due.trigger_key AND due_at <= now()
        ORDER BY due_at, id LIMIT greatest($1 / due.triggers, 1) FOR UPDATE SKIP LOCKED
    ) AS event
    ORDER BY event.due_at, event.id LIMIT $1
"""
PENDING = f"{EVENT} WHERE status = 'PENDING' AND id = ANY($1) ORDER BY id FOR UPDATE"
BY_KEY = f"{EVENT} WHERE source = $1 AND dedupe_key = $2 FOR UPDATE"
DELIVERIES = """
    SELECT id, event_id, target, kind, template_id, subscription_id, execution_id, wait_id, correlation_key,
        status, code, message, attempts, due_at <= now() AS due, now() - created_at AS waited
    FROM trigger_delivery
    WHERE event_id = ANY($1)
    ORDER BY created_at, id
"""
LINKED = """
    SELECT link.entity_type, link.entity_id, link.template_id
    FROM workflow_template_link AS link
    JOIN unnest($1::text[], $2::text[]) AS wanted (entity_type, entity_id)
        ON link.entity_type = wanted.entity_type AND link.entity_id = wanted.entity_id
"""
LISTENING = "SELECT * FROM subscription WHERE status = 'ACTIVE' AND trigger_key = ANY($1) ORDER BY id"
# The open executions that were started under a correlation key, the oldest first.
CORRELATED = """
    SELECT execution.id
    FROM trigger_delivery AS delivery
    JOIN workflow_execution AS execution ON execution.id = delivery.execution_id
    WHERE delivery.template_id = $1 AND delivery.correlation_key = $2 AND delivery.kind = 'START'
        AND execution.status IN ('CREATED', 'STARTED')
    ORDER BY execution.id
"""


@dataclass(frozen=True, slots=True)
class Event:
    """An event as it is delivered. `matched`: its targets were found before."""

    id: UUID
    source: EventSource
    trigger_key: str
    dedupe_key: str
    request_hash: str
    summary: str
    payload: Any
    entity_type: str | None
    entity_id: str | None
    template_id: UUID | None
    matched: bool


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of an event at a target."""

    id: UUID
    event_id: UUID
    target: str
    kind: DeliveryKind
    template_id: UUID | None
    subscription_id: UUID | None
    execution_id: UUID | None
    wait_id: UUID | None
    correlation_key: str | None
    status: DeliveryStatus
    code: str | None
    message: str | None
    attempts: int
    due: bool
    waited: timedelta


@dataclass(frozen=True, slots=True)
class EventFilter:
    """What a list of events is narrowed to; `refused` are those that a target has refused, or only the others."""

    source: EventSource | None = None
    trigger_key: str | None = None
    status: EventStatus | None = None
    entity_type: str | None = None
    entity_id: str | None = None
    execution_id: UUID | None = None
    refused: bool | None = None
    received_after: datetime | None = None
    received_before: datetime | None = None


async def lock_due(connection: Connection, limit: int) -> list[Event]:
    """Events that are due, locked, of each trigger as many; those that somebody else has locked are passed over."""
    return [_event(row) for row in await connection.fetch(DUE, limit)]


async def lock_pending(connection: Connection, event_ids: Sequence[UUID]) -> list[Event]:
    """Those of the events that are PENDING, locked."""
    return [_event(row) for row in await connection.fetch(PENDING, event_ids)]


async def lock_by_key(connection: Connection, source: EventSource, dedupe_key: str) -> Event | None:
    """The event of a source with a key, locked."""
    row = await connection.fetchrow(BY_KEY, source.value, dedupe_key)
    return None if row is None else _event(row)


async def find_deliveries(connection: Connection, event_ids: Sequence[UUID]) -> list[Delivery]:
    """What became of events so far, the oldest first."""
    return [_delivery(row) for row in await connection.fetch(DELIVERIES, event_ids)]


async def find_subscriptions(connection: Connection, trigger_keys: Collection[str]) -> list[Subscription]:
    """What listens to triggers, the oldest first."""
    rows = await connection.fetch(LISTENING, list(trigger_keys)) if trigger_keys else []
    return [Subscription(**row) for row in rows]


async def find_links(connection: Connection, entities: Sequence[tuple[str, str]]) -> dict[tuple[str, str], UUID]:
    """The templates that entities (type, id) are linked to."""
    types, ids = [each[0] for each in entities], [each[1] for each in entities]
    return {(row[0], row[1]): row[2] for row in await connection.fetch(LINKED, types, ids)} if entities else {}


async def find_correlated(connection: Connection, template_id: UUID, correlation_key: str) -> list[UUID]:
    """The open executions of a template that were started under a correlation key."""
    return [row[0] for row in await connection.fetch(CORRELATED, template_id, correlation_key)]


async def list_deliveries(
    session: AsyncSession, event_ids: Sequence[UUID]
) -> Sequence[tuple[TriggerDelivery, str | None]]:
    """What became of events, each with the slug of the template, the oldest first."""
    statement = (
        select(TriggerDelivery, col(WorkflowTemplate.slug))
        .outerjoin(WorkflowTemplate, col(WorkflowTemplate.id) == TriggerDelivery.template_id)
        .where(col(TriggerDelivery.event_id).in_(event_ids))
        .order_by(col(TriggerDelivery.created_at), col(TriggerDelivery.id))
    )
    return [(row[0], row[1]) for row in await session.execute(statement)]


async def list_events(
    session: AsyncSession, wanted: EventFilter, *, below: UUID | None, limit: int
) -> Sequence[TriggerEvent]:
    """Events without payload and headers, the newest first, from below an id."""
    payload, headers = inspect(TriggerEvent).attrs.payload, inspect(TriggerEvent).attrs.headers
    short = [defer(each.class_attribute, raiseload=True) for each in (payload, headers)]
    statement = select(TriggerEvent).options(*short).where(*_conditions(wanted))
    if below is not None:
        statement = statement.where(col(TriggerEvent.id) < below)
    found = await session.execute(statement.order_by(col(TriggerEvent.id).desc()).limit(limit))
    return found.scalars().all()


async def count_old_events(session: AsyncSession, before: datetime) -> int:
    """How many events a purge would delete."""
    return int(
        (await session.execute(select(func.count()).select_from(TriggerEvent).where(*_old(before)))).scalar_one()
    )


async def delete_old_events(session: AsyncSession, before: datetime) -> int:
    """Deletes events that are settled and were not received since; how many. What they started stays."""
    deleted = await session.execute(delete(TriggerEvent).where(*_old(before)).returning(col(TriggerEvent.id)))
    return len(deleted.all())


def _old(before: datetime) -> list[ColumnElement[bool]]:
    return [col(TriggerEvent.last_received_at) < before, col(TriggerEvent.status) != EventStatus.PENDING]


def _conditions(wanted: EventFilter) -> list[ColumnElement[bool]]:
    equal: list[tuple[Any, Any]] = [
        (col(TriggerEvent.source), wanted.source),
        (col(TriggerEvent.trigger_key), wanted.trigger_key),
        (col(TriggerEvent.status), wanted.status),
        (col(TriggerEvent.entity_type), wanted.entity_type),
        (col(TriggerEvent.entity_id), wanted.entity_id),
    ]
    conditions = [column == value for column, value in equal if value is not None]
    if wanted.received_after is not None:
        conditions.append(col(TriggerEvent.received_at) > wanted.received_after)
    if wanted.received_before is not None:
        conditions.append(col(TriggerEvent.received_at) < wanted.received_before)
    delivered = select(col(TriggerDelivery.event_id))
    if wanted.execution_id is not None:
        mine = delivered.where(col(TriggerDelivery.execution_id) == wanted.execution_id)
        conditions.append(col(TriggerEvent.id).in_(mine))
    if wanted.refused is not None:
        refused = col(TriggerEvent.id).in_(delivered.where(col(TriggerDelivery.status) == DeliveryStatus.REFUSED))
        conditions.append(refused if wanted.refused else ~refused)
    return conditions


def _event(row: Record) -> Event:
    fields = dict(row)
    del fields["due_at"]
    matched = fields.pop("matched_at") is not None
    fields |= {"source": EventSource(row["source"]), "payload": json.loads(row["payload"])}
    return Event(**fields, matched=matched)


def _delivery(row: Record) -> Delivery:
    fields = dict(row) | {"kind": DeliveryKind(row["kind"]), "status": DeliveryStatus(row["status"])}
    return Delivery(**fields)
