"""`/schedules`: what happens by the clock, and polls."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from sqlalchemy.ext.asyncio import AsyncSession

from app.contracts import schedule_id_of
from app.db.schedule_tables import ScheduleTrigger
from app.db.statuses import ScheduleKind
from app.dependencies import (
    Actor,
    CallerPart,
    ConnectionsPart,
    Cursor,
    DatabasePart,
    Limit,
    SessionPart,
    SettingsPart,
    TemporalPart,
)
from app.polling.judging import PollJudge
from app.problem_details import problem_responses
from app.schedules import by_hand, carrying, service
from app.schedules.queries import RUNS, keys_of, list_schedules
from app.schedules.schemas import (
    FireTimes,
    PauseRequest,
    RunReceipt,
    RunRequest,
    ScheduleChange,
    ScheduleCreate,
    ScheduleRun,
    ScheduleView,
    Spec,
)
from app.templates.queries import find_slugs
from app.wire import Moment, Page, encode_cursor, read_id_cursor

router = APIRouter(prefix="/schedules", tags=["schedules"], responses=problem_responses(422, 503))

NOT_FOUND = problem_responses(404)
STATE = problem_responses(404, 409)

Reference = Annotated[str, Path(alias="schedule", description="a schedule's id or name", max_length=100)]
Count = Annotated[int, Query(ge=1, le=100, description="how many times")]
After = Annotated[Moment | None, Query(description="after this time; now without it")]


async def get_judge(connections: ConnectionsPart, settings: SettingsPart) -> PollJudge:
    """What judges polls that are saved."""
    return PollJudge(connections, settings)


JudgePart = Annotated[PollJudge, Depends(get_judge)]


@router.post("", status_code=201, summary="Create a schedule or a poll", name="createSchedule", responses=STATE)
async def create(
    request: ScheduleCreate,
    database: DatabasePart,
    session: SessionPart,
    temporal: TemporalPart,
    judge: JudgePart,
    caller: CallerPart,
) -> ScheduleView:
    """While Temporal is away it is stored, not `synced`, and made there as soon as that is possible. A repetition with
    the same `Idempotency-Key` is answered with what the first has made.

    What can be known of a poll is checked; while its source is away it is stored, and `lastError` says so.

    Codes: NAME_TAKEN, TEMPLATE_NOT_FOUND, SCHEDULE_SPEC_INVALID, CONNECTION_UNKNOWN, CONNECTION_NOT_PERMITTED,
    QUERY_REFUSED, COLUMN_UNKNOWN, SECRET_UNKNOWN, HTTP_URL_INVALID, HTTP_ADDRESS_REFUSED, IDEMPOTENCY_CONFLICT.
    """
    unchecked = await service.judge_new(database, judge, request, caller)
    return await _answer(session, await service.create_schedule(session, temporal, request, unchecked, caller))


@router.get("", summary="List schedules", name="listSchedules")
async def list_(
    session: SessionPart,
    kind: Annotated[ScheduleKind | None, Query(description="schedules alone, or polls")] = None,
    paused: Annotated[bool | None, Query(description="only paused ones, or only the others")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[ScheduleView]:
    """The newest first."""
    before = read_id_cursor(cursor)
    rows = await list_schedules(session, kind=kind, paused=paused, before=before, limit=limit + 1)
    items = await _views(session, rows[:limit])
    following = encode_cursor(str(items[-1].id)) if len(rows) > limit else None
    return Page(items=items, next_cursor=following)


@router.post("/preview", summary="Show when a specification would come", name="previewSchedule")
async def preview(request: Spec, temporal: TemporalPart, count: Count = 10, after: After = None) -> FireTimes:
    """As Temporal works it out; nothing is stored. Codes: SCHEDULE_SPEC_INVALID, TEMPORAL_UNAVAILABLE."""
    async with carrying.preview(temporal, request) as schedule_id:
        times = await carrying.next_times(temporal, schedule_id, count, after)
        return FireTimes(items=times, time_zone=request.time_zone)


@router.get("/{schedule}", summary="Read a schedule", name="getSchedule", responses=NOT_FOUND)
async def get(schedule: Reference, session: SessionPart) -> ScheduleView:
    """By id or name. Codes: SCHEDULE_NOT_FOUND."""
    return await _answer(session, await service.get_schedule(session, schedule))


@router.patch("/{schedule}", summary="Change a schedule", name="changeSchedule", responses=STATE)
async def change(
    schedule: Reference,
    request: ScheduleChange,
    database: DatabasePart,
    session: SessionPart,
    temporal: TemporalPart,
    judge: JudgePart,
    actor: Actor = None,
) -> ScheduleView:
    """What is left out stays; what was read can be sent back. Codes: KIND_FIXED, and those of creating one."""
    unchecked = await service.judge_change(database, judge, schedule, request)
    return await _answer(session, await service.change_schedule(session, temporal, schedule, request, unchecked, actor))


@router.delete("/{schedule}", status_code=204, summary="Delete a schedule", name="deleteSchedule", responses=NOT_FOUND)
async def delete(schedule: Reference, database: DatabasePart, temporal: TemporalPart, actor: Actor = None) -> None:
    """What it started goes on, and its events stay. Codes: SCHEDULE_NOT_FOUND."""
    async with database.transaction() as session:
        deleted = await service.delete_schedule(session, schedule, actor)
    await service.forget(temporal, deleted)


@router.post("/{schedule}/pause", summary="Pause a schedule", name="pauseSchedule", responses=NOT_FOUND)
async def pause(
    *,
    schedule: Reference,
    request: PauseRequest | None = None,
    session: SessionPart,
    temporal: TemporalPart,
    actor: Actor = None,
) -> ScheduleView:
    """Times that come meanwhile are let go; what was started goes on. Codes: SCHEDULE_NOT_FOUND."""
    note = None if request is None else request.note
    return await _answer(session, await service.pause_schedule(session, temporal, schedule, True, note, actor))


@router.post("/{schedule}/resume", summary="Resume a schedule", name="resumeSchedule", responses=NOT_FOUND)
async def resume(
    *,
    schedule: Reference,
    request: PauseRequest | None = None,
    session: SessionPart,
    temporal: TemporalPart,
    actor: Actor = None,
) -> ScheduleView:
    """It comes again at its next time. Codes: SCHEDULE_NOT_FOUND."""
    note = None if request is None else request.note
    return await _answer(session, await service.pause_schedule(session, temporal, schedule, False, note, actor))


@router.post("/{schedule}/run", status_code=202, summary="Run a schedule now", name="runSchedule", responses=STATE)
async def run(
    *,
    schedule: Reference,
    request: RunRequest | None = None,
    database: DatabasePart,
    temporal: TemporalPart,
    caller: CallerPart,
) -> RunReceipt:
    """Also a paused one, and one that is used up. Each is a tick of its own, with a second of its own; those with one
    `Idempotency-Key` are one.

    Codes: SCHEDULE_NOT_FOUND, SCHEDULE_NOT_SYNCED, SCHEDULE_CROWDED, SCHEDULE_BUSY, IDEMPOTENCY_CONFLICT,
    TEMPORAL_UNAVAILABLE.
    """
    async with database.transaction() as session:
        row = await service.get_schedule(session, schedule)
    overlap = None if request is None else request.overlap
    requested_at = await by_hand.run_schedule(database, temporal, row, overlap, caller)
    return RunReceipt(id=row.id, requested_at=requested_at)


@router.get("/{schedule}/next", summary="Show when a schedule comes next", name="listScheduleTimes", responses=STATE)
async def next_(
    schedule: Reference, database: DatabasePart, temporal: TemporalPart, count: Count = 10, after: After = None
) -> FireTimes:
    """As Temporal works it out, whether it is paused or not.

    Codes: SCHEDULE_NOT_FOUND, SCHEDULE_NOT_SYNCED, TEMPORAL_UNAVAILABLE.
    """
    async with database.transaction() as session:
        row = await service.get_schedule(session, schedule)
    times = await carrying.next_times(temporal, schedule_id_of(row.id), count, after)
    return FireTimes(items=times, time_zone=row.spec.get("timeZone", "UTC"))


@router.get("/{schedule}/runs", summary="List what a schedule brought in", name="listScheduleRuns", responses=NOT_FOUND)
async def runs(
    schedule: Reference, session: SessionPart, cursor: Cursor = None, limit: Limit = 50
) -> Page[ScheduleRun]:
    """Its events, the latest first, with what they started. Codes: SCHEDULE_NOT_FOUND."""
    row = await service.get_schedule(session, schedule)
    first, last = keys_of(row.id)
    wanted = {"first": first, "last": last, "below": read_id_cursor(cursor), "limit": limit + 1}
    found = (await session.execute(RUNS, wanted)).mappings().all()
    items = [ScheduleRun.model_validate(dict(one)) for one in found[:limit]]
    following = encode_cursor(str(items[-1].event_record_id)) if len(found) > limit else None
    return Page(items=items, next_cursor=following)


async def _answer(session: AsyncSession, row: ScheduleTrigger) -> ScheduleView:
    return (await _views(session, [row]))[0]


async def _views(session: AsyncSession, rows: Sequence[ScheduleTrigger]) -> list[ScheduleView]:
    slugs = await find_slugs(session, {row.template_id for row in rows if row.template_id is not None})
    return [_view(row, None if row.template_id is None else slugs.get(row.template_id)) for row in rows]


def _view(row: ScheduleTrigger, template: str | None) -> ScheduleView:
    return ScheduleView.model_validate(
        row.model_dump(include=set(ScheduleView.model_fields))
        | {"catch_up_window": row.catch_up_seconds, "target": service.target_of(row), "template": template}
    )
