"""What is made of a source's answer: events and the cursor, in one transaction, so that no item is lost or twice."""

import json
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from app.canonical import canonical_json, digest
from app.db.schedule_tables import ScheduleTrigger
from app.db.session import Connection, Database
from app.db.statuses import EventSource
from app.errors import Invalid
from app.inbox.storing import Incoming, store
from app.schedules.schemas import Poll
from app.schedules.ticks import started_with, value_of
from app.tick_contracts import TickStored

# The trigger key of events that name their template themselves.
DIRECT = "poll"
# Longer ids are kept as their hash: a dedupe key has room for 500 characters, and the poll's own id is in it.
LONGEST_ID = 400

REMEMBER = """
    INSERT INTO poll_item AS known (schedule_id, item) SELECT $1, unnest($2::text[])
    ON CONFLICT (schedule_id, item) DO UPDATE SET seen_at = now() WHERE known.seen_at < now() - interval '1 day'
    RETURNING item, xmax = 0 AS new
"""
# What a source has not shown for so long is not expected back.
FORGET = "DELETE FROM poll_item WHERE schedule_id = $1 AND seen_at < now() - interval '30 days'"
LOCK = "SELECT poll::text, cursor::text, primed FROM schedule_trigger WHERE id = $1 FOR NO KEY UPDATE"
MOVE = """
    UPDATE schedule_trigger SET cursor = $2::text::jsonb, primed = true, last_run_at = now(), last_error = NULL,
        failures = 0 WHERE id = $1
"""


@dataclass(frozen=True, slots=True)
class Taken:
    """A read answer: items by the id that tells them apart, and the next cursor."""

    items: dict[str, Any]
    cursor: Any


def read_answer(poll: Poll, response: Any, cursor: Any, most: int) -> Taken:
    """Picks the items out of an answer, with their ids, and the next cursor: the old one where there is none.

    Raises `EngineError` for an expression that fails, `Invalid` POLL_ITEMS_INVALID, POLL_ID_INVALID, POLL_TOO_MANY.
    """
    found = response
    if poll.items is not None:
        found = value_of(_expression(poll.items), {"response": response, "cursor": cursor})
    items = [] if found is None else found if isinstance(found, list) else [found]
    if len(items) > most:
        raise Invalid("POLL_TOO_MANY", f"More than {most} items in one answer.")
    by_id: dict[str, Any] = {}
    for item in items:
        if not isinstance(item, dict):
            raise Invalid("POLL_ITEMS_INVALID", "An item is an object; `items` gave something else.")
        by_id.setdefault(_id_of(poll, item), item)
    following = None
    if poll.cursor is not None:
        seen = {"response": response, "items": items, "cursor": cursor}
        following = value_of(_expression(poll.cursor), seen)
    return Taken(by_id, cursor if following is None else following)


async def take(database: Database, row: ScheduleTrigger, poll: Poll, taken: Taken) -> TickStored:
    """Stores an event for each item that is new, and the cursor. `row` is the poll as it was when it was asked.

    One that was changed, reset or asked by somebody else meanwhile takes nothing of this answer.
    Raises `EngineError` when the context for an item cannot be worked out: then nothing is stored.
    """
    async with database.driver() as connection, connection.transaction():
        now = await connection.fetchrow(LOCK, row.id)
        if now is None:
            return TickStored()
        if json.loads(now["poll"]) != row.poll or _loaded(now["cursor"]) != row.cursor or now["primed"] != row.primed:
            return TickStored(error="POLL_OVERTAKEN: the poll has been changed meanwhile")
        new = await _remembered(connection, row.id, taken)
        if not row.primed and poll.begin == "NOW":
            new = []
        await store(connection, [_event(row, item_id, taken.items[item_id]) for item_id in new])
        await connection.execute(FORGET, row.id)
        await connection.execute(MOVE, row.id, None if taken.cursor is None else canonical_json(taken.cursor))
    return TickStored(events=len(new))


async def _remembered(connection: Connection, poll_id: UUID, taken: Taken) -> list[str]:
    """The ids that were not known before, in the order of the answer."""
    if not taken.items:
        return []
    found = await connection.fetch(REMEMBER, poll_id, list(taken.items))
    new = {row["item"] for row in found if row["new"]}
    return [item_id for item_id in taken.items if item_id in new]


def _event(row: ScheduleTrigger, item_id: str, item: dict[str, Any]) -> Incoming:
    payload = {"pollId": str(row.id), "pollName": row.name, "itemId": item_id, "item": item}
    return Incoming(
        source=EventSource.POLL,
        trigger_key=row.trigger_key or DIRECT,
        dedupe_key=f"{row.id}:{item_id}",
        summary=f"poll {row.name} · {item_id}",
        payload=started_with(row, payload, item),
        template_id=row.template_id,
    )


def _id_of(poll: Poll, item: dict[str, Any]) -> str:
    found = value_of(_expression(poll.id), {"item": item})
    if isinstance(found, bool) or not isinstance(found, str | int | float) or found == "":
        raise Invalid("POLL_ID_INVALID", "An item has no id: `id` gave neither text nor a number.")
    text = str(found)
    return text if len(text) <= LONGEST_ID else f"sha256:{digest(text)}"


def _expression(source: str) -> dict[str, Any]:
    return {"type": "expr", "expr": source, "optional": True}


def _loaded(text: str | None) -> Any:
    return None if text is None else json.loads(text)
