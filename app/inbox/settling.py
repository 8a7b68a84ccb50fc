"""What events ask for, written in one transaction: the rows of new executions beside the deliveries that started them.

Temporal is not spoken to here. What is to be started or signalled afterwards is handed back.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from app.canonical import canonical_json, digest
from app.contracts import readable
from app.db.session import Connection
from app.db.statuses import DeliveryKind, DeliveryStatus, SubscriptionMode
from app.db.tables import new_id
from app.errors import AppError, Conflict, Invalid, NotFound, Postponed
from app.executions.queries import Target, find_target_of
from app.executions.starting import Launch, StartRequest, prepare
from app.inbox.aims import SUBSCRIPTION, Aim, find_aims
from app.inbox.awaiting import Wait
from app.inbox.limiting import Gate
from app.inbox.queries import Delivery, Event, find_deliveries
from app.inbox.queueing import UNTIL_CALLED
from app.inbox.receiving import Receiver, Receivers
from app.inbox.storing import Incoming
from app.settings import Settings
from app.untrusted import made_storable
from engine.errors import EngineError

NO_ONE_WAITS = "NO_ONE_WAITS"
# Until then nobody else takes up a signal that is being handed over.
HANDING_OVER = timedelta(seconds=30)
# How often an execution is looked for that a signal could be handed to.
SOON, SELDOM = timedelta(seconds=1), timedelta(minutes=1)
LONGEST_KEY = 500
# What an event asks outright; whatever else it has stands in the execution's trigger.
ASKED = frozenset({"context", "name", "version", "eventId", "entityType", "entityId"})

WRITE = """
    WITH written AS (
        SELECT * FROM jsonb_to_recordset($1::text::jsonb) AS written
            (id uuid, event_id uuid, target text, kind text, template_id uuid, subscription_id uuid,
             correlation_key text, status text, code text, message text, due_in float8, execution_id uuid,
             wait_id uuid,
             name text, version_id uuid, context jsonb, trigger jsonb, idempotency_key text, request_hash text)
    ), execution AS (
        INSERT INTO workflow_execution
            (id, name, version_id, template_id, root_id, context, trigger, status, idempotency_key, request_hash)
        SELECT execution_id, name, version_id, template_id, execution_id, context, trigger, 'CREATED',
            idempotency_key, request_hash
        FROM written WHERE version_id IS NOT NULL
        ON CONFLICT (template_id, idempotency_key) DO NOTHING
    )
    INSERT INTO trigger_delivery AS delivery
        (id, event_id, target, kind, template_id, subscription_id, correlation_key, status, code, message, due_at,
         wait_id, execution_id)
    SELECT id, event_id, target, kind, template_id, subscription_id, correlation_key, status, code, message,
        -- By one clock for all: those of processes differ.
        now() + make_interval(secs => coalesce(due_in, 0)), wait_id,
        -- Started before there was an inbox, or by an event that has been put away since.
        coalesce(
            (SELECT earlier.id FROM workflow_execution AS earlier
             WHERE earlier.template_id = written.template_id AND earlier.idempotency_key = written.idempotency_key),
            execution_id)
    FROM written
    ON CONFLICT (event_id, target) DO UPDATE
        SET kind = excluded.kind, template_id = excluded.template_id,
            status = excluded.status, code = excluded.code, message = excluded.message, due_at = excluded.due_at,
            execution_id = excluded.execution_id, wait_id = excluded.wait_id,
            correlation_key = excluded.correlation_key,
            attempts = delivery.attempts + 1, updated_at = now()
    RETURNING id, event_id, target, kind, status, execution_id, code, message
"""
# An event is open as long as one of its deliveries is.
CONCLUDE = """
    UPDATE trigger_event AS event
    SET matched_at = coalesce(event.matched_at, now()),
        status = CASE WHEN found.pending > 0 THEN 'PENDING' WHEN found.every > 0 THEN 'HANDLED' ELSE 'UNMATCHED' END,
        due_at = coalesce(found.due_at, event.due_at)
    FROM (
        SELECT wanted.id, count(delivery.id) AS every,
            count(delivery.id) FILTER (WHERE delivery.status = 'PENDING') AS pending,
            min(delivery.due_at) FILTER (WHERE delivery.status = 'PENDING') AS due_at
        FROM unnest($1::uuid[]) AS wanted (id)
        LEFT JOIN trigger_delivery AS delivery ON delivery.event_id = wanted.id
        GROUP BY wanted.id
    ) AS found
    WHERE event.id = found.id
"""
STARTING = frozenset({SubscriptionMode.START, SubscriptionMode.START_OR_RESUME})


@dataclass(frozen=True, slots=True)
class Delivered:
    """What became of an event at a target; `error` is what refused it, or keeps it waiting."""

    id: UUID
    event_id: UUID
    target: str
    kind: DeliveryKind
    status: DeliveryStatus
    execution_id: UUID | None
    error: AppError | None = None


def as_delivered(delivery: Delivery) -> Delivered:
    """What a stored delivery says."""
    error = None if delivery.code is None else Conflict(delivery.code, delivery.message or delivery.code)
    return Delivered(
        delivery.id,
        delivery.event_id,
        delivery.target,
        delivery.kind,
        delivery.status,
        delivery.execution_id,
        error,
    )


@dataclass(frozen=True, slots=True)
class Handover:
    """A signal to be handed to an execution; the delivery's id makes repetitions one.

    With a `wait` it is for that wait of the execution's alone; otherwise it may be taken by a later one.
    """

    delivery_id: UUID
    execution_id: UUID
    wait: Wait | None
    signal: str
    correlation_key: str
    payload: Any


@dataclass(slots=True)
class Settled:
    """What was written, and what is still to be done about it."""

    delivered: list[Delivered] = field(default_factory=list)
    launches: list[Launch] = field(default_factory=list)
    handovers: list[Handover] = field(default_factory=list)


async def settle(
    connection: Connection, settings: Settings, events: Sequence[Event], *, early: bool = False
) -> Settled:
    """Finds the targets of events, and writes what is to be started; events and targets that have it are passed over.

    The events are locked by the caller's transaction. One refusal hinders nothing else. What waits for its time is
    passed over unless it is to be tried `early`.
    """
    earlier: dict[UUID, dict[str, Delivery]] = {event.id: {} for event in events}
    for delivery in await find_deliveries(connection, [*earlier]):
        earlier[delivery.event_id][delivery.target] = delivery
    writer = Writer(connection, settings)
    aims = await find_aims(connection, events, earlier, early=early)
    await writer.open_gate(aims)
    # In the order in which their events came: the first get what room there is.
    for aim in sorted(aims, key=lambda aim: aim.event.id):
        await writer.add(aim)
    settled = await writer.write()
    await connection.execute(CONCLUDE, [event.id for event in events])
    return settled


class Writer:
    """Collects what aims come to, and writes it all at once."""

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._connection = connection
        self._settings = settings
        self._targets: dict[tuple[UUID, str | None], Target | None] = {}
        self._gate = Gate(connection, settings.limits)
        self._rows: list[dict[str, Any]] = []
        self._errors: dict[UUID, AppError] = {}
        self._launches: dict[UUID, Launch] = {}
        self._handovers: list[Handover] = []
        self._receivers = Receivers(connection)

    async def open_gate(self, aims: Sequence[Aim]) -> None:
        """Takes the locks of all limits before any other, then those of correlation keys, so that nobody waits for
        another in a circle.
        """
        for aim in aims:
            if aim.template_id is not None and (aim.subscription is None or aim.subscription.mode in STARTING):
                await self._find(aim.template_id, version_of(aim))
        await self._gate.lock([target for target in self._targets.values() if target is not None])
        await self._receivers.lock(aims)

    async def add(self, aim: Aim) -> None:
        """One target of one event. What refuses it is kept, and hinders nothing else."""
        delivery_id = aim.before.id if aim.before is not None else new_id()
        try:
            row = await self._row(aim, delivery_id)
        except Postponed as postponed:
            row = self._queued(delivery_id, postponed.error)
        except AppError as error:
            row = self._refused(delivery_id, error)
        except EngineError as error:
            # A value of the subscription that this payload has no answer for.
            row = self._refused(delivery_id, Invalid(error.code, str(error)))
        place = {
            "id": str(delivery_id),
            "event_id": str(aim.event.id),
            "target": aim.target,
            "kind": DeliveryKind.START.value,
            "template_id": None if aim.template_id is None else str(aim.template_id),
            "subscription_id": None if aim.subscription is None else str(aim.subscription.id),
        }
        self._rows.append(place | row)

    async def write(self) -> Settled:
        """Writes deliveries and executions; what is to be started and handed over afterwards."""
        settled = Settled(handovers=self._handovers)
        written = await self._connection.fetch(WRITE, canonical_json(self._rows)) if self._rows else []
        for row in written:
            error = self._errors.get(row[0])
            settled.delivered.append(
                Delivered(row[0], row[1], row[2], DeliveryKind(row[3]), DeliveryStatus(row[4]), row[5], error)
            )
            launch = self._launches.get(row[5])
            if launch is not None and row[4] == DeliveryStatus.STARTED:
                settled.launches.append(launch)
        return settled

    async def _row(self, aim: Aim, delivery_id: UUID) -> dict[str, Any]:
        subscription, template_id = aim.subscription, aim.template_id
        if template_id is None:
            raise Conflict("TEMPLATE_GONE", "The template was deleted meanwhile.")
        if aim.target.startswith(SUBSCRIPTION) and subscription is None:
            raise Conflict("SUBSCRIPTION_INACTIVE", "The subscription was deactivated or deleted meanwhile.")
        if subscription is None:
            return await self._start(aim, template_id, None)
        key = subscription.correlation_key(aim.event.payload)
        if subscription.mode is SubscriptionMode.START:
            return await self._start(aim, template_id, key)
        if key is None:
            raise Invalid("CORRELATION_KEY_INVALID", "The subscription has no correlation key.")
        found = await self._receivers.find(aim, template_id, key)
        if found is not None:
            return self._hand_over(aim, delivery_id, found, key)
        if subscription.mode is SubscriptionMode.START_OR_RESUME:
            return await self._start(aim, template_id, key)
        return self._wait_for_somebody(aim.before, delivery_id, key)

    async def _start(self, aim: Aim, template_id: UUID, correlation_key: str | None) -> dict[str, Any]:
        request = start_request(aim, correlation_key)
        target = await self._target(template_id, request.version)
        prepared = prepare(target, request, self._settings.api.max_context_bytes)
        self._gate.admit(target, aim.event.id)
        start = prepared.launch.start
        self._launches[start.execution_id] = prepared.launch
        if correlation_key is not None:
            self._receivers.note_started(template_id, correlation_key, start.execution_id)
        return {
            "status": DeliveryStatus.STARTED.value,
            "correlation_key": correlation_key,
            "execution_id": str(start.execution_id),
            "name": start.name,
            "version_id": str(start.version_id),
            "context": request.context,
            "trigger": request.trigger,
            "idempotency_key": request.key,
            "request_hash": prepared.request_hash,
        }

    async def _target(self, template_id: UUID, version: str | None) -> Target:
        found = await self._find(template_id, version)
        if found is None:
            raise NotFound("template", template_id)
        return found

    async def _find(self, template_id: UUID, version: str | None) -> Target | None:
        wanted = (template_id, version)
        if wanted not in self._targets:
            self._targets[wanted] = await find_target_of(self._connection, template_id, version)
        return self._targets[wanted]

    def _hand_over(self, aim: Aim, delivery_id: UUID, to: Receiver, key: str) -> dict[str, Any]:
        signal = None if aim.subscription is None else aim.subscription.signal
        assert signal is not None
        self._handovers.append(Handover(delivery_id, to.execution_id, to.wait, signal, key, aim.event.payload))
        return {
            "kind": DeliveryKind.SIGNAL.value,
            "status": DeliveryStatus.PENDING.value,
            "correlation_key": key,
            "execution_id": str(to.execution_id),
            "wait_id": None if to.wait is None else str(to.wait.id),
            "due_in": HANDING_OVER.total_seconds(),
        }

    def _wait_for_somebody(self, before: Delivery | None, delivery_id: UUID, key: str) -> dict[str, Any]:
        waited = timedelta(0) if before is None else before.waited
        error = Conflict(NO_ONE_WAITS, "No open execution waits under the correlation key, or was started under it.")
        if waited >= timedelta(seconds=self._settings.inbox.resume_within):
            return self._refused(delivery_id, error)
        self._errors[delivery_id] = error
        return {
            "kind": DeliveryKind.SIGNAL.value,
            "status": DeliveryStatus.PENDING.value,
            "correlation_key": key,
            "code": error.code,
            "message": error.message,
            # The longer it has waited, the more seldom it is looked for.
            "due_in": max(SOON, min(waited / 10, SELDOM)).total_seconds(),
        }

    def _queued(self, delivery_id: UUID, error: AppError) -> dict[str, Any]:
        self._errors[delivery_id] = error
        return {
            "status": DeliveryStatus.PENDING.value,
            "code": error.code,
            "message": readable(error.message),
            "due_in": UNTIL_CALLED.total_seconds(),
        }

    def _refused(self, delivery_id: UUID, error: AppError) -> dict[str, Any]:
        self._errors[delivery_id] = error
        return {"status": DeliveryStatus.REFUSED.value, "code": error.code, "message": readable(error.message)}


def start_request(aim: Aim, correlation_key: str | None = None) -> StartRequest:
    """What an event asks to be started. Raises a coded `EngineError` for values that the payload has no answer for."""
    event, subscription = aim.event, aim.subscription
    trigger: dict[str, Any] = trigger_of(event)
    if subscription is None:
        asked = event.payload if isinstance(event.payload, dict) else {}
        more = {name: value for name, value in asked.items() if name not in ASKED}
        key = key_of(event)
        return StartRequest(asked.get("context") or {}, more | trigger, asked.get("name"), key, version_of(aim))
    trigger |= {"triggerKey": event.trigger_key, "subscriptionId": str(subscription.id)}
    if correlation_key is not None:
        trigger["correlationKey"] = correlation_key
    name = subscription.name(event.payload)
    return StartRequest(
        context=made_storable(subscription.context(event.payload)),
        trigger=trigger,
        name=None if name is None else made_storable(name),
        # A second subscription of the template starts another execution.
        key=key_of(event, f":{subscription.id}"),
    )


def key_of(event: Event, of: str = "") -> str:
    """The idempotency key of what an event starts: the same for its repetitions, however late they come."""
    key = f"{event.source}:{event.dedupe_key}{of}"
    return key if len(key) <= LONGEST_KEY else f"{event.source}:{digest([event.dedupe_key])}{of}"


def version_of(aim: Aim) -> str | None:
    """The number of the version that an event asks for outright."""
    asked = aim.event.payload if aim.subscription is None else None
    return asked.get("version") if isinstance(asked, dict) else None


def trigger_of(event: Event | Incoming) -> dict[str, Any]:
    """What an execution says of the event that started it."""
    trigger = {
        "source": event.source.value,
        "eventId": event.dedupe_key,
        "eventRecordId": str(event.id),
        "summary": event.summary,
    }
    if event.entity_id is not None:
        trigger |= {"entityType": event.entity_type or "", "entityId": event.entity_id}
    return trigger
