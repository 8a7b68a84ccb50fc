"""Taking an event whose sender waits: event, delivery and execution are one statement, and then Temporal is asked.

What is new goes this way. A repetition, and an event that came before and was refused, go the way of all the others.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from app.canonical import canonical_json
from app.contracts import readable
from app.db.session import Connection, Database
from app.db.statuses import DeliveryStatus
from app.db.tables import RecordStatus, new_id
from app.errors import AppError, Conflict, Postponed, about_event
from app.executions.queries import Earlier, Target
from app.executions.service import Started
from app.executions.starting import Prepared, StartRequest, hash_of, launch, prepare, repeated
from app.inbox.aims import TEMPLATE
from app.inbox.delivering import perform
from app.inbox.limiting import Gate
from app.inbox.queries import find_deliveries, lock_by_key, lock_pending
from app.inbox.queueing import UNTIL_CALLED
from app.inbox.settling import Delivered, settle
from app.inbox.storing import CHANNEL, Incoming, event_row
from app.settings import Settings
from app.temporal import Temporal

FindTarget = Callable[[Connection], Awaitable[Target | None]]

# The event as it is, and what listens to its trigger beside the target: that is the dispatcher's to deliver.
EVENT = """
    incoming AS (
        SELECT *, EXISTS (
            SELECT 1 FROM subscription WHERE subscription.trigger_key = incoming.trigger_key
                AND subscription.status = 'ACTIVE' AND incoming.template_id IS NULL
        ) AS heard
        FROM jsonb_to_record($1::text::jsonb) AS incoming
            (id uuid, source text, trigger_key text, dedupe_key text, request_hash text, summary text,
             payload jsonb, headers jsonb, entity_type text, entity_id text, template_id uuid)
    ), event AS (
        INSERT INTO trigger_event
            (id, source, trigger_key, dedupe_key, request_hash, summary, payload, headers, entity_type, entity_id,
             template_id, status, matched_at)
        SELECT id, source, trigger_key, dedupe_key, request_hash, summary, payload, headers, entity_type, entity_id,
            template_id, CASE WHEN heard THEN 'PENDING' ELSE $2 END, CASE WHEN NOT heard THEN now() END
        FROM incoming
        ON CONFLICT (source, dedupe_key) DO NOTHING
        RETURNING id, status
    )
"""
WOKEN = f"CASE WHEN event.status = 'PENDING' THEN pg_notify('{CHANNEL}', '') END"
TAKE = f"""
    WITH {EVENT}, execution AS (
        INSERT INTO workflow_execution
            (id, name, version_id, template_id, root_id, context, trigger, status, idempotency_key, request_hash)
        SELECT $3, $4, $5, $6, $3, $7::text::jsonb, $8::text::jsonb, 'CREATED', $9, $10
        FROM event
    ), delivery AS (
        INSERT INTO trigger_delivery (id, event_id, target, kind, template_id, status, execution_id)
        SELECT $11, event.id, $12, 'START', $6, 'STARTED', $3
        FROM event
    )
    SELECT event.id, {WOKEN} FROM event
"""
REFUSE = f"""
    WITH {EVENT}, delivery AS (
        INSERT INTO trigger_delivery (id, event_id, target, kind, template_id, status, code, message)
        SELECT $3, event.id, $4, 'START', $5, 'REFUSED', $6, $7
        FROM event
    )
    SELECT event.id, {WOKEN} FROM event
"""
QUEUE = f"""
    WITH {EVENT}, delivery AS (
        INSERT INTO trigger_delivery (id, event_id, target, kind, template_id, status, code, message, due_at)
        SELECT $3, event.id, $4, 'START', $5, 'PENDING', $6, $7, now() + $8
        FROM event
    )
    SELECT event.id, {WOKEN} FROM event
"""
KEEP = f"WITH {EVENT} SELECT event.id, {WOKEN} FROM event"
# Counting need not wait for the disk.
REPEATED = """
    UPDATE trigger_event AS event SET times = event.times + 1, last_received_at = now()
    FROM trigger_delivery AS delivery JOIN workflow_execution AS execution ON execution.id = delivery.execution_id
    WHERE event.source = $1 AND event.dedupe_key = $2 AND event.request_hash = $3
        AND delivery.event_id = event.id AND delivery.target = $4
    RETURNING event.id, execution.id, execution.status, set_config('synchronous_commit', 'off', true)
"""
SEEN = "UPDATE trigger_event SET times = times + 1, last_received_at = now() WHERE id = $1"
CORRECT = """
    UPDATE trigger_event
    SET payload = $2::text::jsonb, request_hash = $3, summary = $4, entity_type = $5, entity_id = $6
    WHERE id = $1
"""
AGAIN = """
    WITH delivery AS (
        UPDATE trigger_delivery SET status = 'PENDING', due_at = now(), execution_id = NULL, wait_id = NULL
        WHERE event_id = $1 AND status = 'REFUSED'
    )
    UPDATE trigger_event
    SET status = 'PENDING', due_at = now(),
        -- What it is for is found anew when nothing wanted it, or when it says something else ($2).
        matched_at = CASE WHEN status = 'UNMATCHED' OR $2 THEN NULL ELSE matched_at END
    WHERE id = $1
"""
STATUS = "SELECT status FROM workflow_execution WHERE id = $1"
OF_EARLIER = f"""
    WITH {EVENT}
    INSERT INTO trigger_delivery (id, event_id, target, kind, template_id, status, execution_id)
    SELECT $3, event.id, $4, 'START', $5, 'STARTED', $6
    FROM event
"""


@dataclass(frozen=True, slots=True)
class Ask:
    """An event whose sender waits: for what `find` finds, it asks for a start as `request` has it.

    `target` is what the delivery is called; `keep_refused` is whether an event that is refused is stored at all.
    """

    event: Incoming
    request: StartRequest
    find: FindTarget
    target: str
    keep_refused: bool = True


@dataclass(frozen=True, slots=True)
class Taken:
    """An event in the inbox, and the execution that it got.

    `started` is None when nothing is linked, and as long as it is queued: `queued` is what for.
    """

    event_id: UUID
    started: Started | None
    queued: AppError | None = None


async def take(database: Database, temporal: Temporal, settings: Settings, ask: Ask) -> Taken | None:
    """Stores the event and starts what it is for; None when there is no target and it is not to be kept.

    Raises what `prepare` raises, IDEMPOTENCY_CONFLICT, and `Unavailable` when nothing was stored.
    """
    async with database.driver() as connection:
        target = await ask.find(connection)
        if target is None and not ask.keep_refused:
            return None
        ask = _directed(ask, target)
        row = event_row(ask.event)
        await temporal.assure()
        if target is not None and target.earlier is None:
            taken = await _take_new(connection, temporal, settings, ask, target, row)
        elif target is None:
            event_id = await connection.fetchval(KEEP, canonical_json(row), "UNMATCHED")
            taken = None if event_id is None else Taken(event_id, None)
        else:
            taken = await _find_repeated(connection, ask, row)
        return taken or await _take_again(connection, temporal, settings, ask, target)


def _directed(ask: Ask, target: Target | None) -> Ask:
    """An event that names its template is for that one alone, and so is its key."""
    if ask.target != TEMPLATE or target is None:
        return ask
    event = replace(
        ask.event,
        template_id=target.template_id,
        dedupe_key=f"{target.template_id}:{ask.event.dedupe_key}",
        summary=f"{ask.event.summary} · {target.template}",
    )
    return replace(
        ask, event=event, request=replace(ask.request, trigger=ask.request.trigger | {"summary": event.summary})
    )


async def _take_new(
    connection: Connection, temporal: Temporal, settings: Settings, ask: Ask, target: Target, row: dict[str, Any]
) -> Taken | None:
    """The start of a new event; None when it is not new."""
    event, request = canonical_json(row), ask.request
    try:
        prepared = prepare(target, request, settings.api.max_context_bytes)
        written = await _write(connection, settings, ask, target, prepared, event)
    except Postponed as postponed:
        error = postponed.error
        place = (new_id(), ask.target, target.template_id, error.code, readable(error.message), UNTIL_CALLED)
        queued = await connection.fetchval(QUEUE, event, "PENDING", *place)
        return None if queued is None else Taken(queued, None, error)
    except AppError as error:
        if not ask.keep_refused:
            raise
        refusal = (new_id(), ask.target, target.template_id, error.code, readable(error.message))
        error.event_record_id = await connection.fetchval(REFUSE, event, "HANDLED", *refusal)
        if error.event_record_id is None:
            return None
        raise
    if written is None:
        return None
    launched = await launch(connection, temporal, prepared.launch)
    return Taken(written, Started(prepared.launch.start.execution_id, launched.status, launched.reason, repeated=False))


async def _write(
    connection: Connection, settings: Settings, ask: Ask, target: Target, prepared: Prepared, event: str
) -> UUID | None:
    """Writes event, delivery and execution; None when the event is not new. Raises what `Gate.admit` raises."""
    start, request = prepared.launch.start, ask.request
    row = (
        event,
        "HANDLED",
        start.execution_id,
        start.name,
        start.version_id,
        start.template_id,
        prepared.context,
        canonical_json(request.trigger),
        request.key,
        prepared.request_hash,
        new_id(),
        ask.target,
    )
    gate = Gate(connection, settings.limits)
    written: UUID | None
    if not gate.concerns(target):
        written = await connection.fetchval(TAKE, *row)
        return written
    async with connection.transaction():
        await gate.lock([target])
        gate.admit(target, ask.event.id)
        written = await connection.fetchval(TAKE, *row)
    return written


async def _find_repeated(connection: Connection, ask: Ask, row: dict[str, Any]) -> Taken | None:
    """What the very same event has started; None when there is more to it. Many may ask at once."""
    event = ask.event
    found = await connection.fetchrow(REPEATED, event.source.value, event.dedupe_key, row["request_hash"], ask.target)
    return None if found is None else Taken(found[0], Started(found[1], RecordStatus(found[2]), None, repeated=True))


async def _take_again(
    connection: Connection, temporal: Temporal, settings: Settings, ask: Ask, target: Target | None
) -> Taken:
    """What an event that came before has come to; one that was refused, or wanted by nobody, is tried again."""
    row = event_row(ask.event)
    async with connection.transaction():
        event = await lock_by_key(connection, ask.event.source, ask.event.dedupe_key)
        if event is None:
            assert target is not None
            assert target.earlier is not None
            return await _take_started(connection, ask, target, target.earlier, row)
        deliveries = await find_deliveries(connection, [event.id])
        corrected = event.request_hash != row["request_hash"]
        if corrected:
            if any(delivery.execution_id is not None for delivery in deliveries):
                with about_event(event.id):
                    raise Conflict("IDEMPOTENCY_CONFLICT", f"The key was used for another event: {event.id}.")
            # It has started nothing: what was refused does not use its key up.
            said = [row[name] for name in ("request_hash", "summary", "entity_type", "entity_id")]
            await connection.execute(CORRECT, event.id, canonical_json(row["payload"]), *said)
        await connection.execute(SEEN, event.id)
        for delivery in deliveries:
            if delivery.target == ask.target and delivery.execution_id is not None:
                status = RecordStatus(await connection.fetchval(STATUS, delivery.execution_id))
                return Taken(event.id, Started(delivery.execution_id, status, None, repeated=True))
        await connection.execute(AGAIN, event.id, corrected)
        settled = await settle(connection, settings, await lock_pending(connection, [event.id]), early=True)
    with about_event(event.id):
        tried = await perform(connection, temporal, settled)
        return await _come_to(connection, event.id, [each for each in tried if each.target == ask.target])


async def _come_to(connection: Connection, event_id: UUID, tried: Sequence[Delivered]) -> Taken:
    """What the target of an event that was tried again has come to. Raises what refused it."""
    for delivered in tried:
        if delivered.error is not None and delivered.status is DeliveryStatus.PENDING:
            return Taken(event_id, None, delivered.error)
        if delivered.error is not None:
            raise delivered.error
        if delivered.execution_id is not None:
            status = RecordStatus(await connection.fetchval(STATUS, delivered.execution_id))
            return Taken(event_id, Started(delivered.execution_id, status, None, repeated=False))
    return Taken(event_id, None)


async def _take_started(
    connection: Connection, ask: Ask, target: Target, earlier: Earlier, row: dict[str, Any]
) -> Taken:
    """An event whose execution is older than what the inbox remembers."""
    accepted = repeated(earlier, hash_of(ask.request))
    delivery = (new_id(), ask.target, target.template_id, accepted.execution_id)
    await connection.execute(OF_EARLIER, canonical_json(row), "HANDLED", *delivery)
    return Taken(ask.event.id, Started(accepted.execution_id, accepted.status, None, repeated=True))
