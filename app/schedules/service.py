"""What can be done with schedules: each change is stored, and handed to Temporal; what it misses is reconciled."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.audit.changes import Facts, record_change
from app.audit.repeating import Asked, find_made, record_made
from app.audit.words import Action
from app.contracts import schedule_id_of
from app.db.schedule_tables import PollItem, ScheduleTrigger
from app.db.session import Database
from app.db.statuses import EventSource, OverlapPolicy, ScheduleKind, TriggerCategory
from app.errors import Conflict, NotFound, Unavailable
from app.executions.control import Caller
from app.polling.judging import PollJudge
from app.registry.entries import Entry
from app.registry.triggers import ensure_trigger
from app.schedules import carrying
from app.schedules.queries import find_schedule
from app.schedules.schemas import Poll, ScheduleChange, ScheduleCreate, Target, TargetView
from app.templates.service import get_template
from app.temporal import Temporal, unreachable

log = structlog.get_logger(__name__)

_CONFIGURED = {"name", "description", "kind", "spec", "overlap", "max_executions", "paused", "note", "poll"}


async def get_schedule(session: AsyncSession, reference: str, *, lock: bool = False) -> ScheduleTrigger:
    """A schedule by id or name. Raises SCHEDULE_NOT_FOUND."""
    found = await find_schedule(session, reference, lock=lock)
    if found is None:
        raise NotFound("schedule", reference)
    return found


def _asked(request: ScheduleCreate, caller: Caller) -> Asked:
    said = request.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return Asked("CREATE_SCHEDULE", "SCHEDULE", caller.actor, caller.key, said)


async def judge_new(database: Database, judge: PollJudge, request: ScheduleCreate, caller: Caller) -> str | None:
    """What cannot be checked just now of a poll that is to be made, if anything; no connection of ours is held while
    its source is asked. Raises IDEMPOTENCY_CONFLICT and what `PollJudge` does.
    """
    if request.poll is None:
        return None
    async with database.transaction() as session:
        made = await find_made(session, _asked(request, caller))
    return await judge.judge(request.poll) if made is None else None


async def create_schedule(
    session: AsyncSession, temporal: Temporal, request: ScheduleCreate, unchecked: str | None, caller: Caller
) -> ScheduleTrigger:
    """A new schedule, in Temporal too unless that is away: then it is made there later. A repetition with the caller's
    key gives the one that was made. `unchecked` is what `judge_new` says.

    Raises NAME_TAKEN, TEMPLATE_NOT_FOUND, SCHEDULE_SPEC_INVALID, IDEMPOTENCY_CONFLICT.
    """
    asked = _asked(request, caller)
    made = await find_made(session, asked)
    if made is not None:
        return await get_schedule(session, made)
    row = ScheduleTrigger(
        name=request.name,
        description=request.description,
        kind=ScheduleKind.SCHEDULE if request.poll is None else ScheduleKind.POLL,
        spec=_document(request.spec),
        overlap=request.overlap,
        catch_up_seconds=request.catch_up_window,
        max_executions=request.max_executions,
        remaining=request.max_executions,
        paused=request.paused,
        note=request.note,
    )
    if request.poll is not None:
        _set_poll(row, request.poll, unchecked)
    await _aim(session, row, request.target, caller.actor)
    session.add(row)
    await _flush_name(session, row)
    await record_made(session, asked, row.id, _facts(row))
    await sync(temporal, row)
    await session.flush()
    return row


async def judge_change(database: Database, judge: PollJudge, reference: str, request: ScheduleChange) -> str | None:
    """What cannot be checked just now of a poll that is to be another, if anything; no connection of ours is held while
    its source is asked. Raises SCHEDULE_NOT_FOUND and what `PollJudge` does.
    """
    if request.poll is None:
        return None
    async with database.transaction() as session:
        row = await get_schedule(session, reference)
    return None if row.poll == _document(request.poll) else await judge.judge(request.poll)


async def change_schedule(
    session: AsyncSession,
    temporal: Temporal,
    reference: str,
    request: ScheduleChange,
    unchecked: str | None,
    actor: str | None,
) -> ScheduleTrigger:
    """Sets what is given. Raises KIND_FIXED for a poll of what is none, and what `create_schedule` raises. What is sent
    as it stands changes nothing. `unchecked` is what `judge_change` says.

    How often it may come is only changed while Temporal is there: TEMPORAL_UNAVAILABLE.
    """
    row = await get_schedule(session, reference, lock=True)
    before = _facts(row)
    given = request.model_fields_set
    polls = row.kind == ScheduleKind.POLL
    if request.kind not in (None, row.kind) or ("poll" in given and polls != (request.poll is not None)):
        raise Conflict("KIND_FIXED", "A schedule stays a schedule, and a poll a poll.")
    if polls and request.overlap not in (None, OverlapPolicy.SKIP):
        raise Conflict("KIND_FIXED", "A poll's overlap policy is SKIP.")
    _set(row, request)
    if request.poll is not None and _document(request.poll) != row.poll:
        _set_poll(row, request.poll, unchecked)
    if request.target is not None:
        await _aim(session, row, request.target, actor)
    await _flush_name(session, row)
    former_limit = row.max_executions
    limited_anew = "max_executions" in given and request.max_executions != former_limit
    if limited_anew:
        await _limit(temporal, row, request.max_executions)
    if request.reset_cursor:
        row.cursor, row.primed = None, False
        await session.execute(delete(PollItem).where(col(PollItem.schedule_id) == row.id))
    await record_change(session, "CHANGE_SCHEDULE", ("SCHEDULE", row.id), actor, before, _facts(row))
    await sync(temporal, row, limited_anew=limited_anew, former_limit=former_limit)
    if limited_anew and not row.synced:
        # Temporal would go on with what is left of the old limit.
        raise unreachable()
    await session.flush()
    return row


def _set(row: ScheduleTrigger, request: ScheduleChange) -> None:
    for name in request.model_fields_set & {"name", "description", "paused", "note"}:
        setattr(row, name, getattr(request, name))
    if request.spec is not None:
        row.spec = _document(request.spec)
    if request.overlap is not None:
        row.overlap = request.overlap
    if request.catch_up_window is not None:
        row.catch_up_seconds = request.catch_up_window


async def pause_schedule(
    session: AsyncSession, temporal: Temporal, reference: str, paused: bool, note: str | None, actor: str | None
) -> ScheduleTrigger:
    """Pauses or resumes: times that come meanwhile are let go."""
    row = await get_schedule(session, reference, lock=True)
    before = _facts(row)
    row.paused, row.note = paused, note
    what: Action = "PAUSE_SCHEDULE" if paused else "RESUME_SCHEDULE"
    await record_change(session, what, ("SCHEDULE", row.id), actor, before, _facts(row))
    await sync(temporal, row)
    await session.flush()
    return row


async def delete_schedule(session: AsyncSession, reference: str, actor: str | None) -> UUID:
    """Deletes it; what it started goes on, and its events stay. Temporal's own is deleted after the commit."""
    row = await get_schedule(session, reference, lock=True)
    await session.execute(delete(ScheduleTrigger).where(col(ScheduleTrigger.id) == row.id))
    await record_change(session, "DELETE_SCHEDULE", ("SCHEDULE", row.id), actor, _facts(row), None)
    return row.id


async def forget(temporal: Temporal, schedule_id: UUID) -> None:
    """Deletes Temporal's schedule of one that is deleted; when Temporal is away the reconciler does it later."""
    try:
        await carrying.remove(temporal, schedule_id_of(schedule_id))
    except Unavailable as error:
        log.warning("schedule_left_in_temporal", schedule_id=str(schedule_id), code=error.code)


async def sync(
    temporal: Temporal, row: ScheduleTrigger, *, limited_anew: bool = False, former_limit: int | None = None
) -> None:
    """Hands a row to Temporal and notes whether it has it. Raises SCHEDULE_SPEC_INVALID; that it is away, it notes.

    Unless it is `limited_anew`, how many times are left is Temporal's to say.
    """
    try:
        await carrying.push(temporal, row, limited_anew=limited_anew, former_limit=former_limit)
    except Unavailable as error:
        row.synced, row.sync_error = False, f"{error.code}: {error.message}"
        log.warning("schedule_not_synced", schedule_id=str(row.id), code=error.code)
        return
    row.synced, row.sync_error = True, None


async def _limit(temporal: Temporal, row: ScheduleTrigger, most: int | None) -> None:
    """What was used up stays used up. Raises `Unavailable`: only Temporal knows how much that is."""
    left = await carrying.remaining_actions(temporal, row.id) if row.max_executions is not None else None
    left = row.remaining if left is None else left
    used = 0 if row.max_executions is None or left is None else row.max_executions - left
    row.max_executions = most
    row.remaining = None if most is None else max(0, most - used)


async def _aim(session: AsyncSession, row: ScheduleTrigger, target: Target, actor: str | None) -> None:
    if target.template_id is not None:
        row.template_id = (await get_template(session, target.template_id)).id
    else:
        row.template_id = None
        await _register(session, row, target.trigger_key or "", actor)
    row.trigger_key, row.context, row.execution_name = target.trigger_key, target.context, target.name


async def _register(session: AsyncSession, row: ScheduleTrigger, key: str, actor: str | None) -> None:
    """Subscriptions need an entry of the registry: without one yet, there is one now."""
    polls = row.kind == ScheduleKind.POLL
    entry = Entry(
        key=key,
        name=key,
        category=TriggerCategory.EXTERNAL if polls else TriggerCategory.SCHEDULE,
        source=EventSource.POLL if polls else EventSource.SCHEDULE,
    )
    await ensure_trigger(session, entry, actor)


def _set_poll(row: ScheduleTrigger, poll: Poll, unchecked: str | None) -> None:
    """Whatever is said of the poll as it was is over; what could not be checked of this one is said instead."""
    row.poll = _document(poll)
    row.last_error, row.failures = unchecked, 0
    row.last_error_at = None if unchecked is None else datetime.now(UTC)


def target_of(row: ScheduleTrigger) -> dict[str, Any]:
    """What a schedule starts, by the names of the wire's shape."""
    return {
        "template_id": row.template_id,
        "context": row.context,
        "name": row.execution_name,
        "trigger_key": row.trigger_key,
    }


def _document(model: Any) -> dict[str, Any]:
    document: dict[str, Any] = model.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return document


async def _flush_name(session: AsyncSession, row: ScheduleTrigger) -> None:
    taken = Conflict("NAME_TAKEN", f"Another schedule has the name {row.name}.")
    try:
        await session.flush()
    except IntegrityError as error:
        raise taken from error


def _facts(row: ScheduleTrigger) -> Facts:
    """What the audit says of a schedule, in the shape in which it is sent."""
    target = TargetView.model_validate(target_of(row)).model_dump(mode="json", by_alias=True)
    return row.model_dump(mode="json", include=_CONFIGURED) | {
        "catch_up_window": row.catch_up_seconds,
        "target": target,
    }
