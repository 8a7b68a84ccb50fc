"""Keeping events: every one is stored, once for each key of its source, before it is acknowledged.

What stores events commits them together with its own place (a log position, a cursor), so that neither can be ahead
of the other. The dispatcher delivers them afterwards.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from asyncpg import Record

from app.canonical import canonical_json, digest
from app.db.session import Connection
from app.db.statuses import EventSource, EventStatus
from app.db.tables import new_id
from app.untrusted import made_storable

LONGEST_SUMMARY = 400
# Whoever listens on it looks for events at once; without it they are found with the next look.
CHANNEL = "millrace_inbox"

# What comes again is tried again where nothing wanted it, or where it was refused and says the same.
STORE = """
    WITH incoming AS (
        SELECT * FROM jsonb_to_recordset($1::text::jsonb) AS incoming
            (id uuid, source text, trigger_key text, dedupe_key text, request_hash text, summary text,
             payload jsonb, headers jsonb, entity_type text, entity_id text, template_id uuid)
    ), stored AS (
        INSERT INTO trigger_event AS event
            (id, source, trigger_key, dedupe_key, request_hash, summary, payload, headers, entity_type, entity_id,
             template_id, status, due_at)
        SELECT id, source, trigger_key, dedupe_key, request_hash, summary, coalesce(payload, 'null'), headers,
            entity_type, entity_id, template_id, 'PENDING', now() + $2
        FROM incoming
        ORDER BY source, dedupe_key
        ON CONFLICT (source, dedupe_key) DO UPDATE
            SET times = event.times + 1, last_received_at = now(), due_at = excluded.due_at,
                matched_at = CASE event.status WHEN 'UNMATCHED' THEN NULL ELSE event.matched_at END,
                status = CASE WHEN event.status = 'UNMATCHED' OR event.request_hash = excluded.request_hash AND EXISTS (
                    SELECT FROM trigger_delivery WHERE event_id = event.id AND status = 'REFUSED'
                ) THEN 'PENDING' ELSE event.status END
        RETURNING id, source, dedupe_key, request_hash, status
    ), tried_again AS (
        -- What has refused it has not taken it: who gets it is found anew.
        UPDATE trigger_delivery AS delivery
        SET status = 'PENDING', due_at = now() + $2, updated_at = now(), execution_id = NULL, wait_id = NULL
        FROM stored JOIN incoming USING (source, dedupe_key, request_hash)
        WHERE delivery.event_id = stored.id AND delivery.status = 'REFUSED'
    )
    SELECT * FROM stored
"""
NOTIFY = f"SELECT pg_notify('{CHANNEL}', '')"


@dataclass(frozen=True, slots=True)
class Incoming:
    """Something that happened, on its way in.

    `dedupe_key` is unique in the source and at most 500 characters long. `payload` is any JSON value; with a
    `template_id`, or an entity that is linked, it is `{context, name?, version?, …}`. `headers` have no secrets.
    """

    source: EventSource
    trigger_key: str
    dedupe_key: str
    summary: str
    payload: Any
    headers: dict[str, Any] | None = None
    entity_type: str | None = None
    entity_id: str | None = None
    template_id: UUID | None = None
    id: UUID = field(default_factory=new_id)


@dataclass(frozen=True, slots=True)
class Stored:
    """An event in the inbox. `repeated`: it was there before; `conflicting`: with another content, which stays."""

    id: UUID
    status: EventStatus
    repeated: bool
    conflicting: bool


async def store(
    connection: Connection, incoming: Sequence[Incoming], *, held: timedelta = timedelta(0)
) -> list[Stored]:
    """Stores events, PENDING, in the caller's transaction if there is one; one answer for each, in order.

    Two of one call with the same key are one, and the first counts; characters that PostgreSQL cannot hold are
    replaced. The dispatcher hears of it with the commit; who means to `deliver` them at once has them `held` from it
    for as long as that may take. One that came before is tried again: where it matched nothing, and, unless it says
    something else now, where it was refused.
    """
    if not incoming:
        return []
    rows = [event_row(one) for one in incoming]
    first: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        first.setdefault(_key(row), row)
    found = {_key(record): record for record in await connection.fetch(STORE, canonical_json([*first.values()]), held)}
    if not held:
        await connection.execute(NOTIFY)
    return [_stored(row, found[_key(row)]) for row in rows]


def event_row(one: Incoming) -> dict[str, Any]:
    """The columns of an event, ids as text; `request_hash` tells a repetition from another event with its key."""
    row: dict[str, Any] = made_storable(
        {
            "id": str(one.id),
            "source": one.source.value,
            "trigger_key": one.trigger_key,
            "dedupe_key": one.dedupe_key,
            "summary": one.summary[:LONGEST_SUMMARY],
            "payload": one.payload,
            "headers": one.headers,
            "entity_type": one.entity_type,
            "entity_id": one.entity_id,
            "template_id": None if one.template_id is None else str(one.template_id),
        }
    )
    row["request_hash"] = digest([row[name] for name in ("trigger_key", "entity_type", "entity_id", "payload")])
    return row


def _key(row: Mapping[str, Any] | Record) -> tuple[str, str]:
    return row["source"], row["dedupe_key"]


def _stored(row: Mapping[str, Any], found: Record) -> Stored:
    repeated = str(found["id"]) != row["id"]
    conflicting = repeated and found["request_hash"] != row["request_hash"]
    return Stored(found["id"], EventStatus(found["status"]), repeated, conflicting)
