"""`/executions/bulk/…`: the deeds on one execution, for all that a filter finds."""

from typing import TypeVar
from uuid import UUID

from fastapi import APIRouter

from app.db.session import Database
from app.dependencies import CallerPart, DatabasePart, RepairPart, SettingsPart, TemporalPart
from app.errors import Invalid
from app.executions import control, ending, migrating, replaying
from app.executions.bulk import Act, Bulk, Replayed, find_matching, run_bulk
from app.executions.bulk_schemas import (
    BulkCancelRequest,
    BulkIncidentResolution,
    BulkMigrateRequest,
    BulkReplayRequest,
    BulkRequest,
    BulkResumePoint,
    BulkSignalRequest,
    BulkStepRequest,
    BulkStepResumption,
    BulkView,
)
from app.executions.control import Caller
from app.executions.control_schemas import CancelRequest, MigrateRequest, ReplayRequest, ResumePoint
from app.executions.queries import find_with_version
from app.executions.reopening import reopen
from app.executions.step_requests import incident_request, resumption_request, timer_request
from app.problem_details import problem_responses
from app.run_contracts import ControlRequest, SignalDelivery
from app.temporal import Temporal

One = TypeVar("One", ReplayRequest, ResumePoint)

router = APIRouter(prefix="/executions/bulk", tags=["bulk control"], responses=problem_responses(422, 503))


@router.post("/cancel", summary="Cancel many executions", name="cancelExecutions")
async def cancel(
    request: BulkCancelRequest, database: DatabasePart, temporal: TemporalPart, caller: CallerPart
) -> BulkView:
    """Open ones, unless the filter says otherwise. Codes: FILTER_EMPTY, CURSOR_INVALID, as for all bulk forms."""
    how = CancelRequest.model_validate(
        {
            "compensate": request.compensate,
            "includeDetached": request.include_detached,
            "reason": request.reason,
        }
    )

    async def act(execution_id: UUID) -> str:
        await ending.cancel_execution(database, temporal, execution_id, how, caller)
        return "REQUESTED"

    return await run_bulk(database, temporal, Bulk("BULK_CANCEL", act), request, caller.actor)


@router.post("/terminate", summary="Terminate many executions", name="terminateExecutions")
async def terminate(
    request: BulkRequest, database: DatabasePart, temporal: TemporalPart, caller: CallerPart
) -> BulkView:
    """Open ones, unless the filter says otherwise."""

    async def act(execution_id: UUID) -> str:
        await ending.terminate_execution(database, temporal, execution_id, request.reason, caller)
        return "TERMINATED"

    return await run_bulk(database, temporal, Bulk("BULK_TERMINATE", act), request, caller.actor)


@router.post("/pause", summary="Pause many executions", name="pauseExecutions")
async def pause(request: BulkRequest, database: DatabasePart, temporal: TemporalPart, caller: CallerPart) -> BulkView:
    """Open ones, unless the filter says otherwise."""
    act = _steering(database, temporal, ControlRequest(what="PAUSE", reason=request.reason), caller)
    return await run_bulk(database, temporal, Bulk("BULK_PAUSE", act), request, caller.actor)


@router.post("/resume", summary="Resume many executions", name="resumeExecutions")
async def resume(request: BulkRequest, database: DatabasePart, temporal: TemporalPart, caller: CallerPart) -> BulkView:
    """Open ones, unless the filter says otherwise."""
    act = _steering(database, temporal, ControlRequest(what="RESUME", reason=request.reason), caller)
    return await run_bulk(database, temporal, Bulk("BULK_RESUME", act), request, caller.actor)


@router.post("/signal", summary="Send a signal to many executions", name="signalExecutions")
async def signal(
    request: BulkSignalRequest,
    database: DatabasePart,
    temporal: TemporalPart,
    caller: CallerPart,
) -> BulkView:
    """To open ones, unless the filter says otherwise; each takes a signal with the same key once."""
    delivery = SignalDelivery(name=request.name, payload=request.payload, correlation_key=request.correlation_key)

    async def act(execution_id: UUID) -> str:
        return (await control.send_signal(database, temporal, execution_id, delivery, caller)).status

    return await run_bulk(database, temporal, Bulk("BULK_SIGNAL", act), request, caller.actor)


@router.post("/retry", summary="Retry many executions", name="retryExecutions")
async def retry(
    request: BulkRequest,
    database: DatabasePart,
    temporal: TemporalPart,
    repair: RepairPart,
    caller: CallerPart,
) -> BulkView:
    """Failed ones, unless the filter says otherwise."""

    async def act(execution_id: UUID) -> str:
        reopened = await reopen(database, temporal, repair, execution_id, None, caller, request.reason)
        return reopened.status

    return await run_bulk(database, temporal, Bulk("BULK_RETRY", act, for_closed=True), request, caller.actor)


@router.post("/resume-from", summary="Let many executions go on from a step", name="resumeExecutionsFrom")
async def resume_from(
    request: BulkResumePoint,
    database: DatabasePart,
    temporal: TemporalPart,
    repair: RepairPart,
    caller: CallerPart,
) -> BulkView:
    """Failed ones, unless the filter says otherwise."""
    point = _as_one(ResumePoint, request)

    async def act(execution_id: UUID) -> str:
        return (await reopen(database, temporal, repair, execution_id, point, caller, request.reason)).status

    return await run_bulk(database, temporal, Bulk("BULK_RESUME_FROM", act, for_closed=True), request, caller.actor)


@router.post("/replay", summary="Replay many executions", name="replayExecutions")
async def replay(
    request: BulkReplayRequest,
    database: DatabasePart,
    temporal: TemporalPart,
    settings: SettingsPart,
    caller: CallerPart,
) -> BulkView:
    """Failed ones, unless the filter says otherwise; each result has the new execution as `replayId`."""
    how = _as_one(ReplayRequest, request)

    async def act(execution_id: UUID) -> Replayed:
        started = await replaying.replay_execution(database, temporal, settings, execution_id, how, caller)
        return Replayed(started.execution_id, started.status)

    return await run_bulk(database, temporal, Bulk("BULK_REPLAY", act, for_closed=True), request, caller.actor)


@router.post("/skip-timer", summary="Let a timer of many executions fire now", name="skipTimers")
async def skip_timer(
    request: BulkStepRequest, database: DatabasePart, temporal: TemporalPart, caller: CallerPart
) -> BulkView:
    """Of open ones, roots and children, unless the filter says otherwise."""
    asked = timer_request(request.step_id, request)
    bulk = Bulk("BULK_SKIP_TIMER", _steering(database, temporal, asked, caller), about_steps=True)
    return await run_bulk(database, temporal, bulk, request, caller.actor)


@router.post("/resume-step", summary="Resume a suspended step of many executions", name="resumeSteps")
async def resume_step(
    request: BulkStepResumption, database: DatabasePart, temporal: TemporalPart, caller: CallerPart
) -> BulkView:
    """Of open ones, roots and children, unless the filter says otherwise."""
    asked = resumption_request(request.step_id, request)
    bulk = Bulk("BULK_RESUME_STEP", _steering(database, temporal, asked, caller), about_steps=True)
    return await run_bulk(database, temporal, bulk, request, caller.actor)


@router.post("/incident", summary="Resolve an incident of many executions", name="resolveIncidents")
async def resolve_incident(
    request: BulkIncidentResolution, database: DatabasePart, temporal: TemporalPart, caller: CallerPart
) -> BulkView:
    """Of those, roots and children, that are parked at the step, unless ids are named."""
    act = _steering(database, temporal, incident_request(request.step_id, request), caller)
    bulk = Bulk("BULK_RESOLVE_INCIDENT", act, about_steps=True, parked_at=request.step_id)
    return await run_bulk(database, temporal, bulk, request, caller.actor)


@router.post("/migrate", summary="Migrate many executions", name="migrateExecutions")
async def migrate(
    request: BulkMigrateRequest, database: DatabasePart, temporal: TemporalPart, caller: CallerPart
) -> BulkView:
    """Open ones, unless the filter says otherwise; a dry run asks each and gives its verdict.

    `mapping` says for all of them which step an open step has become, `overrides` for single ones. Further codes:
    MAPPING_UNKNOWN (no version of the template has a step of this name), OVERRIDES_UNMATCHED (the filter is not true of
    an execution that an override is for, and it does not run the version already).
    """

    async def ask(execution_id: UUID, dry_run: bool) -> str:
        how = MigrateRequest.model_validate(
            {
                "versionId": request.version_id,
                "mapping": request.mapping_of(execution_id),
                "dryRun": dry_run,
                "reason": request.reason,
            }
        )
        view = await migrating.migrate_execution(database, temporal, execution_id, how, caller, own_mapping=False)
        return "MIGRATED" if view.migrated else view.verdict

    async def act(execution_id: UUID) -> str:
        return await ask(execution_id, False)

    async def try_out(execution_id: UUID) -> str:
        return await ask(execution_id, True)

    bulk = Bulk("BULK_MIGRATE", act, try_out=try_out)
    await migrating.check_mapping_of_many(database, request.version_id, request.mapped_steps())
    await _check_overrides(database, temporal, bulk, request)
    return await run_bulk(database, temporal, bulk, request, caller.actor)


def _steering(database: Database, temporal: Temporal, asked: ControlRequest, caller: Caller) -> Act:
    async def act(execution_id: UUID) -> str:
        return (await control.steer(database, temporal, execution_id, asked, caller)).status

    return act


def _as_one(kind: type[One], request: BulkRequest) -> One:
    """What is asked of each alone."""
    said = request.model_dump(by_alias=True, include=set(kind.model_fields), exclude_unset=True)
    return kind.model_validate(said)


async def _check_overrides(database: Database, temporal: Temporal, bulk: Bulk, request: BulkMigrateRequest) -> None:
    """Raises OVERRIDES_UNMATCHED. Later pages and repetitions may have those of executions that have migrated."""
    if not request.overrides:
        return
    matching = {one.id for one in await find_matching(database, temporal, bulk, request.filter, request.overrides)}
    rest = request.overrides.keys() - matching
    async with database.transaction() as session:
        migrated = await find_with_version(session, rest, request.version_id)
    unmatched = sorted(map(str, rest - migrated))
    if unmatched:
        problems = [{"path": f"overrides.{one}", "message": "the filter does not match it"} for one in unmatched]
        message = f"There are overrides of {len(unmatched)} executions that the filter does not match."
        raise Invalid("OVERRIDES_UNMATCHED", message, problems)
