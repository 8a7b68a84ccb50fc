"""What can be done to one execution: `/executions/{id}/…`."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, Path, Query, Response

from app.db.session import Database
from app.dependencies import CallerPart, DatabasePart, RepairPart, SettingsPart, TemporalPart
from app.executions import control, ending, migrating, replaying
from app.executions.control import Caller
from app.executions.control_schemas import (
    CancelRequest,
    CancelView,
    CompletedStep,
    ControlView,
    IncidentResolution,
    LineageList,
    LineageView,
    MigrateRequest,
    MigrateView,
    ReasonGiven,
    ReopenedView,
    ReplayRequest,
    ReplayView,
    ResumePoint,
    SignalView,
    StepChoice,
    StepCompletionRequest,
    StepResumption,
    TerminateView,
)
from app.executions.lineage import list_lineage
from app.executions.parameters import ExecutionId, StepId
from app.executions.reading import get_row
from app.executions.reopening import reopen
from app.executions.step_requests import incident_request, resumption_request, timer_request
from app.problem_details import problem_responses
from app.run_contracts import ControlRequest, SignalDelivery
from app.temporal import Temporal

router = APIRouter(prefix="/executions/{execution}", tags=["control"], responses=problem_responses(404, 409, 422, 503))

SignalName = Annotated[str, Path(alias="name", min_length=1, max_length=200)]


@router.post(
    "/steps/{step}/complete",
    summary="Complete a human step",
    response_model_exclude_unset=True,
    name="completeStep",
)
async def complete(
    *,
    execution: ExecutionId,
    step: StepId,
    request: StepCompletionRequest | None = None,
    database: DatabasePart,
    temporal: TemporalPart,
    caller: CallerPart,
) -> CompletedStep:
    """Answers when the run has taken note. No body is an empty one, which does for a step that needs nothing.

    Codes: STEP_NOT_OPEN, STEP_NOT_FOUND, OUTCOME_UNKNOWN, FORM_INVALID, DOCUMENTS_INVALID, AMBIGUOUS,
    EXECUTION_ENDED, WORKER_UNAVAILABLE.
    """
    asked = request or StepCompletionRequest()
    answer = await control.complete_step(database, temporal, execution, step, asked, caller)
    done = CompletedStep(
        execution_id=execution,
        step_id=step,
        visit=answer["visit"],
        status=answer["status"],
        output=answer["output"],
    )
    if answer.get("item") is not None:
        done.item = answer["item"]
    return done


@router.post("/signals/{name}", summary="Send a signal", name="sendSignal")
async def signal(
    *,
    execution: ExecutionId,
    name: SignalName,
    payload: Annotated[Any, Body(description="any JSON")] = None,
    correlation_key: Annotated[str | None, Query(alias="correlationKey", max_length=200)] = None,
    database: DatabasePart,
    temporal: TemporalPart,
    caller: CallerPart,
) -> SignalView:
    """DELIVERED when a step waited for it, BUFFERED when it came early.

    Codes: SIGNAL_UNKNOWN, SIGNAL_BUFFER_FULL, NOT_YET_STARTED, EXECUTION_ENDED, WORKER_UNAVAILABLE.
    """
    delivery = SignalDelivery(name=name, payload=payload, correlation_key=correlation_key)
    receipt = await control.send_signal(database, temporal, execution, delivery, caller)
    return SignalView(execution_id=execution, name=name, status=receipt.status)


@router.post("/pause", summary="Pause an execution", response_model_exclude_unset=True, name="pauseExecution")
async def pause(
    *,
    execution: ExecutionId,
    request: ReasonGiven | None = None,
    database: DatabasePart,
    temporal: TemporalPart,
    caller: CallerPart,
) -> ControlView:
    """No new work starts, in its children neither; what runs finishes, timers keep their deadlines.

    Codes: NOT_YET_STARTED, EXECUTION_ENDED, WORKER_UNAVAILABLE.
    """
    asked = ControlRequest(what="PAUSE", reason=_reason(request))
    return await _steered(database, temporal, execution, asked, caller)


@router.post("/resume", summary="Resume an execution", response_model_exclude_unset=True, name="resumeExecution")
async def resume(
    *,
    execution: ExecutionId,
    request: ReasonGiven | None = None,
    database: DatabasePart,
    temporal: TemporalPart,
    caller: CallerPart,
) -> ControlView:
    """Ends a pause. Codes: NOT_YET_STARTED, EXECUTION_ENDED, WORKER_UNAVAILABLE."""
    asked = ControlRequest(what="RESUME", reason=_reason(request))
    return await _steered(database, temporal, execution, asked, caller)


@router.post("/cancel", status_code=202, summary="Cancel an execution", name="cancelExecution")
async def cancel(
    *,
    execution: ExecutionId,
    request: CancelRequest | None = None,
    database: DatabasePart,
    temporal: TemporalPart,
    caller: CallerPart,
) -> CancelView:
    """With its descendants, and with compensation unless told otherwise; a second cancel changes nothing.

    Codes: EXECUTION_ENDED, NOT_YET_STARTED; WORKER_UNAVAILABLE without compensation.
    """
    how = request or CancelRequest()
    status = await ending.cancel_execution(database, temporal, execution, how, caller)
    return CancelView(execution_id=execution, status=status)


@router.post("/terminate", summary="Terminate an execution", name="terminateExecution")
async def terminate(
    *,
    execution: ExecutionId,
    request: ReasonGiven | None = None,
    database: DatabasePart,
    temporal: TemporalPart,
    caller: CallerPart,
) -> TerminateView:
    """At once, with every open descendant, without compensation. Codes: EXECUTION_ENDED, TEMPORAL_UNAVAILABLE."""
    count = await ending.terminate_execution(database, temporal, execution, _reason(request), caller)
    return TerminateView(execution_id=execution, terminated=count)


@router.post(
    "/steps/{step}/resume", summary="Resume a suspended step", response_model_exclude_unset=True, name="resumeStep"
)
async def resume_step(
    *,
    execution: ExecutionId,
    step: StepId,
    request: StepResumption | None = None,
    database: DatabasePart,
    temporal: TemporalPart,
    caller: CallerPart,
) -> ControlView:
    """The action is entered again with `data`.

    Codes: STEP_NOT_FOUND, STEP_NOT_OPEN, AMBIGUOUS, EXECUTION_ENDED, WORKER_UNAVAILABLE.
    """
    asked = resumption_request(step, request or StepResumption())
    return await _steered(database, temporal, execution, asked, caller)


@router.post(
    "/steps/{step}/skip-timer", summary="Let a timer fire now", response_model_exclude_unset=True, name="skipTimer"
)
async def skip_timer(
    *,
    execution: ExecutionId,
    step: StepId,
    request: StepChoice | None = None,
    database: DatabasePart,
    temporal: TemporalPart,
    caller: CallerPart,
) -> ControlView:
    """What a step waits for in time has come: a delay, a timeout, a pause between attempts of a person, a signal or a
    child; that of an action is Temporal's own.

    Codes: NO_TIMER, STEP_NOT_FOUND, STEP_NOT_OPEN, AMBIGUOUS, EXECUTION_ENDED, WORKER_UNAVAILABLE.
    """
    asked = timer_request(step, request or StepChoice())
    return await _steered(database, temporal, execution, asked, caller)


@router.post(
    "/incidents/{step}", summary="Resolve an incident", response_model_exclude_unset=True, name="resolveIncident"
)
async def resolve_incident(
    *,
    execution: ExecutionId,
    step: StepId,
    request: IncidentResolution,
    database: DatabasePart,
    temporal: TemporalPart,
    caller: CallerPart,
) -> ControlView:
    """Retry the step (with other parameters, if they are given), complete it by hand with an output, or let it fail.

    Codes: STEP_NOT_FOUND, NO_INCIDENT, PARAMETERS_NOT_TAKEN, AMBIGUOUS, EXECUTION_ENDED, WORKER_UNAVAILABLE.
    """
    asked = incident_request(step, request)
    return await _steered(database, temporal, execution, asked, caller)


@router.post(
    "/replay",
    status_code=202,
    summary="Replay an execution",
    responses={200: {"model": ReplayView, "description": "started by an earlier request"}},
    response_model_exclude_unset=True,
    name="replayExecution",
)
async def replay(
    *,
    execution: ExecutionId,
    request: ReplayRequest | None = None,
    response: Response,
    database: DatabasePart,
    temporal: TemporalPart,
    settings: SettingsPart,
    caller: CallerPart,
) -> ReplayView:
    """A new execution of the same version, with the same trigger and context.

    Codes: TEMPLATE_PAUSED, TEMPLATE_ARCHIVED, IDEMPOTENCY_CONFLICT, CONTEXT_INVALID, TEMPORAL_UNAVAILABLE.
    """
    how = request or ReplayRequest()
    started = await replaying.replay_execution(database, temporal, settings, execution, how, caller)
    if started.repeated:
        response.status_code = 200
    view = ReplayView(execution_id=started.execution_id, status=started.status, replay_of=execution)
    if started.reason is not None:
        view.status_reason = started.reason
    return view


@router.post("/retry", status_code=202, summary="Retry what failed", name="retryExecution")
async def retry(
    *,
    execution: ExecutionId,
    request: ReasonGiven | None = None,
    database: DatabasePart,
    temporal: TemporalPart,
    repair: RepairPart,
    caller: CallerPart,
) -> ReopenedView:
    """The same execution goes on from its failed steps, in a new Temporal run.

    Codes: EXECUTION_OPEN, EXECUTION_NEVER_STARTED, RETRY_FROM_ROOT, RETRY_FROM_PARENT, NOTHING_FAILED, COMPENSATED,
    STATE_GONE, START_REFUSED, WORKER_UNAVAILABLE.
    """
    return await reopen(database, temporal, repair, execution, None, caller, _reason(request))


@router.post("/resume-from", status_code=202, summary="Go on from a step", name="resumeFrom")
async def resume_from(
    *,
    execution: ExecutionId,
    request: ResumePoint,
    database: DatabasePart,
    temporal: TemporalPart,
    repair: RepairPart,
    caller: CallerPart,
) -> ReopenedView:
    """The same execution goes on from a completed step, with an edited context or output, in a new Temporal run.

    Codes: STEP_NOT_FOUND, STEP_NOT_RUN, ITEM_NOT_FOUND, CONTEXT_NEEDED, OUTPUT_NOT_TAKEN, OUTPUT_INVALID, and those of
    retry.
    """
    return await reopen(database, temporal, repair, execution, request, caller, request.reason)


@router.post("/migrate", summary="Go on with another version", name="migrateExecution")
async def migrate(
    *,
    execution: ExecutionId,
    request: MigrateRequest,
    database: DatabasePart,
    temporal: TemporalPart,
    caller: CallerPart,
) -> MigrateView:
    """A dry run says SAFE, NEEDS_MAPPING or IMPOSSIBLE, and why; without `dryRun` the last two are refusals.

    Codes: MAPPING_UNKNOWN, MIGRATION_NEEDS_MAPPING, MIGRATION_IMPOSSIBLE, VERSION_NOT_FOUND, VERSION_NOT_PUBLISHED,
    VERSION_OF_OTHER_TEMPLATE, VERSION_UNCHANGED, NOT_YET_STARTED, EXECUTION_ENDED, WORKER_UNAVAILABLE.
    """
    return await migrating.migrate_execution(database, temporal, execution, request, caller)


@router.get("/lineage", summary="Read what an execution's runs came from", name="getExecutionLineage")
async def lineage(execution: ExecutionId, database: DatabasePart) -> LineageList:
    """Retries, resumptions, migrations, and the execution that it is the replay of; the earliest first."""
    await get_row(database, execution)
    async with database.transaction() as session:
        found = await list_lineage(session, execution)
    fields = set(LineageView.model_fields)
    return LineageList(items=[LineageView(**one.model_dump(include=fields)) for one in found])


def _reason(request: ReasonGiven | None) -> str | None:
    return None if request is None else request.reason


async def _steered(
    database: Database, temporal: Temporal, execution_id: UUID, asked: ControlRequest, caller: Caller
) -> ControlView:
    receipt = await control.steer(database, temporal, execution_id, asked, caller)
    about = {name: value for name, value in receipt.model_dump().items() if value is not None}
    return ControlView(execution_id=execution_id, **about)
