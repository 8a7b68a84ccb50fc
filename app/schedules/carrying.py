"""Schedules as Temporal carries them: every call about one, and what its errors mean."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.schedule.v1 import SchedulePatch, TriggerImmediatelyRequest
from temporalio.api.workflowservice.v1 import (
    ListScheduleMatchingTimesRequest,
    PatchScheduleRequest,
    UpdateScheduleRequest,
)
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleCalendarSpec,
    ScheduleDescription,
    ScheduleHandle,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleRange,
    ScheduleSpec,
    ScheduleState,
)
from temporalio.service import RPCError, RPCStatusCode

from app.canonical import digest
from app.contracts import TICK_WORKFLOW, schedule_id_of
from app.db.schedule_tables import ScheduleTrigger
from app.db.statuses import OverlapPolicy, ScheduleKind
from app.db.tables import new_id
from app.errors import Conflict, Invalid
from app.schedules.schemas import Calendar, Ranges, Spec
from app.temporal import Temporal, translated, unreachable
from app.tick_contracts import Tick

# In a memo, so that schedules of other installations in the same namespace are let be.
MEMO_TASK_QUEUE = "millraceTaskQueue"
PREVIEW_PREFIX = "schedule-preview/"

# How far ahead is looked, one after the other, until there are enough times.
_WINDOWS = tuple(timedelta(days=days) for days in (2, 40, 400, 4_000))
_CONFIGURED = " [as configured: "
# How often a limited schedule is changed anew because its time came in between.
_TRIES = 10


def configured_note(row: ScheduleTrigger) -> str:
    """The note in Temporal: the user's, and which configuration it is that Temporal has."""
    facts = (row.spec, row.overlap, row.catch_up_seconds, row.max_executions, row.paused, row.note, row.kind)
    return f"{row.note or ''}{_CONFIGURED}{digest(list(facts))[:12]}]".strip()


async def push(
    temporal: Temporal, row: ScheduleTrigger, *, limited_anew: bool = False, former_limit: int | None = None
) -> None:
    """Makes Temporal's schedule what the row says, whether it is there or not.

    Where Temporal counts down already, its count goes into the row. One that was `limited_anew` is counted down from
    there, less what its `former_limit` had come to by then.

    Raises SCHEDULE_SPEC_INVALID when Temporal does not take the specification, `Unavailable`.
    """
    client = await temporal.client()
    schedule = _schedule(temporal, row)
    used_up = schedule.state.limited_actions and schedule.state.remaining_actions == 0
    # The SDK makes none that is used up; it can be changed into one.
    state = ScheduleState(paused=True) if used_up else schedule.state
    try:
        with translated():
            await client.create_schedule(
                schedule_id_of(row.id),
                replace(schedule, state=state),
                memo={MEMO_TASK_QUEUE: temporal.settings.task_queue},
                rpc_timeout=temporal.timeout,
            )
    except ScheduleAlreadyRunningError:
        await _update(temporal, row, schedule, limited_anew=limited_anew, former_limit=former_limit)
    except RPCError as error:
        raise _refused(error) from error
    else:
        if used_up:
            await _update(temporal, row, schedule, limited_anew=True)


async def _update(
    temporal: Temporal,
    row: ScheduleTrigger,
    schedule: Schedule,
    *,
    limited_anew: bool,
    former_limit: int | None = None,
) -> None:
    handle = await _handle(temporal, row.id)
    try:
        with translated():
            for _ in range(_TRIES):
                found = await handle.describe(rpc_timeout=temporal.timeout)
                left = _left(row, found.schedule.state, limited_anew, former_limit)
                if left is not None:
                    row.remaining = schedule.state.remaining_actions = left
                if await _updated(temporal, handle, found, schedule):
                    return
    except RPCError as error:
        raise _refused(error) from error
    raise unreachable()


def _left(row: ScheduleTrigger, state: ScheduleState, limited_anew: bool, former_limit: int | None) -> int | None:
    """How many times are left by Temporal's count; None where it does not count, or what the row says is to be."""
    if row.max_executions is None or not state.limited_actions:
        return None
    if not limited_anew:
        return state.remaining_actions
    return None if former_limit is None else max(0, row.max_executions - former_limit + state.remaining_actions)


async def _updated(temporal: Temporal, handle: ScheduleHandle, found: ScheduleDescription, schedule: Schedule) -> bool:
    """Replaces the schedule; False when it has come meanwhile, and its count with it: then nothing was replaced.

    The SDK's own update leaves the conflict token out, and would take such a count back. The server does not say that
    a token was out of date, so that it is asked whether there was an update.
    """
    counts = found.schedule.state.limited_actions
    client = await temporal.client()
    request = UpdateScheduleRequest(
        namespace=client.namespace,
        schedule_id=handle.id,
        schedule=await schedule._to_proto(client),
        conflict_token=found.raw_description.conflict_token if counts else b"",
        identity=client.identity,
        request_id=str(new_id()),
    )
    try:
        await client.workflow_service.update_schedule(request, retry=True, timeout=temporal.timeout)
    except RPCError as error:
        if error.status == RPCStatusCode.FAILED_PRECONDITION:
            return False
        raise
    if not counts:
        return True
    now = await handle.describe(rpc_timeout=temporal.timeout)
    return now.info.last_updated_at != found.info.last_updated_at


async def remaining_actions(temporal: Temporal, trigger_id: UUID) -> int | None:
    """How many times a limited schedule still comes; None when it is not limited, or not there."""
    handle = await _handle(temporal, trigger_id)
    try:
        with translated():
            state = (await handle.describe(rpc_timeout=temporal.timeout)).schedule.state
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
        return None
    return state.remaining_actions if state.limited_actions else None


async def remove(temporal: Temporal, schedule_id: str) -> None:
    """Deletes a schedule of Temporal's; one that is not there is gone already. Raises `Unavailable`."""
    client = await temporal.client()
    try:
        with translated():
            await client.get_schedule_handle(schedule_id).delete(rpc_timeout=temporal.timeout)
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise


async def trigger(
    temporal: Temporal, trigger_id: UUID, overlap: OverlapPolicy | None, at: datetime, request_id: str | None = None
) -> None:
    """Asks for a tick now, which is the one of the second `at`; requests of one id are one. Raises SCHEDULE_NOT_SYNCED
    when Temporal does not have the schedule, `Unavailable`.
    """
    client = await temporal.client()
    how = 0 if overlap is None else ScheduleOverlapPolicy[overlap.value].value
    asked = TriggerImmediatelyRequest(overlap_policy=how, scheduled_time=_timestamp(at))  # type: ignore[arg-type]
    request = PatchScheduleRequest(
        namespace=client.namespace,
        schedule_id=schedule_id_of(trigger_id),
        patch=SchedulePatch(trigger_immediately=asked),
        identity=client.identity,
        request_id=request_id or str(new_id()),
    )
    try:
        with translated():
            await client.workflow_service.patch_schedule(request, timeout=temporal.timeout)
    except RPCError as error:
        raise _missing(error) from error


async def next_times(temporal: Temporal, schedule_id: str, count: int, after: datetime | None = None) -> list[datetime]:
    """The next times as Temporal works them out, after a moment (now).

    Raises SCHEDULE_NOT_SYNCED when it does not have the schedule, `Unavailable`.
    """
    client = await temporal.client()
    begin = after or datetime.now(UTC)
    found: list[datetime] = []
    try:
        for window in _WINDOWS:
            with translated():
                found = await _matching(client, temporal, schedule_id, begin, begin + window)
            if len(found) >= count:
                break
    except RPCError as error:
        raise _missing(error) from error
    return found[:count]


async def times_between(temporal: Temporal, trigger_id: UUID, begin: datetime, end: datetime) -> list[datetime]:
    """The times between two moments as Temporal works them out. Raises SCHEDULE_NOT_SYNCED, `Unavailable`."""
    client = await temporal.client()
    try:
        with translated():
            return await _matching(client, temporal, schedule_id_of(trigger_id), begin, end)
    except RPCError as error:
        raise _missing(error) from error


@asynccontextmanager
async def preview(temporal: Temporal, spec: Spec) -> AsyncIterator[str]:
    """The id of a schedule, paused, that is there as long as the block: Temporal can only be asked about one it has.

    Raises SCHEDULE_SPEC_INVALID, `Unavailable`.
    """
    client = await temporal.client()
    schedule_id = f"{PREVIEW_PREFIX}{new_id()}"
    action = ScheduleActionStartWorkflow(
        TICK_WORKFLOW, Tick(schedule_id=new_id()), id=schedule_id, task_queue=temporal.settings.task_queue
    )
    schedule = Schedule(action=action, spec=temporal_spec(spec), state=ScheduleState(paused=True))
    try:
        with translated():
            memo = {MEMO_TASK_QUEUE: temporal.settings.task_queue}
            await client.create_schedule(schedule_id, schedule, memo=memo, rpc_timeout=temporal.timeout)
    except RPCError as error:
        raise _refused(error) from error
    try:
        yield schedule_id
    finally:
        await remove(temporal, schedule_id)


async def _matching(
    client: Client, temporal: Temporal, schedule_id: str, begin: datetime, end: datetime
) -> list[datetime]:
    request = ListScheduleMatchingTimesRequest(
        namespace=client.namespace, schedule_id=schedule_id, start_time=_timestamp(begin), end_time=_timestamp(end)
    )
    answer = await client.workflow_service.list_schedule_matching_times(request, timeout=temporal.timeout)
    times = (time.ToDatetime(UTC) for time in answer.start_time)
    return [time for time in times if time > begin]


def _timestamp(moment: datetime) -> Timestamp:
    found = Timestamp()
    found.FromDatetime(moment.astimezone(UTC))
    return found


def _schedule(temporal: Temporal, row: ScheduleTrigger) -> Schedule:
    polls = row.kind == ScheduleKind.POLL
    waits = not polls and row.overlap != OverlapPolicy.ALLOW_ALL
    schedule_id = schedule_id_of(row.id)
    return Schedule(
        action=ScheduleActionStartWorkflow(
            TICK_WORKFLOW,
            Tick(schedule_id=row.id, poll=polls, waits=waits),
            id=f"{schedule_id}/tick",
            task_queue=temporal.settings.task_queue,
            static_summary=f"{row.name}"[:200],
        ),
        spec=temporal_spec(Spec.model_validate(row.spec)),
        policy=SchedulePolicy(
            overlap=ScheduleOverlapPolicy[row.overlap], catchup_window=timedelta(seconds=row.catch_up_seconds)
        ),
        state=ScheduleState(
            note=configured_note(row),
            paused=row.paused,
            limited_actions=row.max_executions is not None,
            remaining_actions=row.remaining or 0,
        ),
    )


def temporal_spec(spec: Spec) -> ScheduleSpec:
    """A specification in Temporal's terms."""
    return ScheduleSpec(
        cron_expressions=spec.cron,
        intervals=[
            ScheduleIntervalSpec(every=timedelta(seconds=one.every), offset=timedelta(seconds=one.offset))
            for one in spec.intervals
        ],
        calendars=[_calendar(one) for one in spec.calendars],
        skip=[_calendar(one) for one in spec.exclude],
        start_at=spec.start_at,
        end_at=spec.end_at,
        jitter=None if spec.jitter is None else timedelta(seconds=spec.jitter),
        time_zone_name=spec.time_zone,
    )


def _calendar(one: Calendar) -> ScheduleCalendarSpec:
    given: dict[str, Any] = {
        name: _ranges(value)
        for name in ("second", "minute", "hour", "day_of_month", "month", "year", "day_of_week")
        if (value := getattr(one, name)) is not None
    }
    return ScheduleCalendarSpec(comment=one.comment, **given)


def _ranges(ranges: Ranges) -> list[ScheduleRange]:
    return [
        ScheduleRange(one, one) if isinstance(one, int) else ScheduleRange(one.start, one.end or one.start, one.step)
        for one in ranges
    ]


async def _handle(temporal: Temporal, trigger_id: UUID) -> ScheduleHandle:
    return (await temporal.client()).get_schedule_handle(schedule_id_of(trigger_id))


def _refused(error: RPCError) -> Exception:
    if error.status == RPCStatusCode.INVALID_ARGUMENT:
        return Invalid("SCHEDULE_SPEC_INVALID", f"Temporal does not take the schedule: {error.message}.")
    return error


def _missing(error: RPCError) -> Exception:
    if error.status == RPCStatusCode.NOT_FOUND:
        message = "Temporal does not have the schedule yet; it is being made."
        return Conflict("SCHEDULE_NOT_SYNCED", message)
    return error
