"""`/triggers`: events from outside that start what is linked."""

from typing import Any

from fastapi import APIRouter, Response

from app.db.statuses import EventSource
from app.dependencies import DatabasePart, PollersPart, SettingsPart, TemporalPart
from app.executions.service import start_problem
from app.inbox.queueing import queued_problem
from app.inbox.taking import Taken
from app.problem_details import problem_responses
from app.triggers.schemas import TriggerRequest, TriggerView
from app.triggers.service import take_event

router = APIRouter(prefix="/triggers", tags=["triggers"])

RESPONSES: dict[int | str, dict[str, Any]] = {
    **problem_responses(409, 422, 429, 503),
    200: {"model": TriggerView, "description": "no link (`matched` false), or the event was taken before"},
}


@router.post(
    "/service-requests",
    status_code=202,
    summary="A service request was created",
    responses=RESPONSES,
    response_model_exclude_unset=True,
    name="triggerServiceRequest",
)
async def service_request(
    request: TriggerRequest,
    response: Response,
    database: DatabasePart,
    temporal: TemporalPart,
    settings: SettingsPart,
    pollers: PollersPart,
) -> TriggerView:
    """Starts the template linked to the service.

    Codes: TEMPLATE_NOT_ACTIVE, TEMPLATE_PAUSED, TEMPLATE_ARCHIVED, CONTEXT_INVALID, CONTEXT_TOO_LARGE,
    RATE_LIMITED, CONCURRENCY_LIMITED, IDEMPOTENCY_CONFLICT, TEMPORAL_UNAVAILABLE.
    """
    taken = await take_event(database, temporal, settings, EventSource.SERVICE_REQUEST, request)
    return _answer(taken, response, pollers.known())


@router.post(
    "/product-purchases",
    status_code=202,
    summary="A product was bought",
    responses=RESPONSES,
    response_model_exclude_unset=True,
    name="triggerProductPurchase",
)
async def product_purchase(
    request: TriggerRequest,
    response: Response,
    database: DatabasePart,
    temporal: TemporalPart,
    settings: SettingsPart,
    pollers: PollersPart,
) -> TriggerView:
    """Starts the template linked to the product; codes as for service requests."""
    taken = await take_event(database, temporal, settings, EventSource.PRODUCT_PURCHASE, request)
    return _answer(taken, response, pollers.known())


def _answer(taken: Taken, response: Response, polled: bool | None) -> TriggerView:
    started = taken.started
    if taken.queued is not None:
        waits_for = queued_problem(taken.queued)
        return TriggerView(event_record_id=taken.event_id, matched=True, status="QUEUED", problem=waits_for)
    if started is None:
        response.status_code = 200
        return TriggerView(event_record_id=taken.event_id, matched=False)
    if started.repeated:
        response.status_code = 200
    view = TriggerView(
        event_record_id=taken.event_id, matched=True, execution_id=started.execution_id, status=started.status
    )
    if started.reason is not None:
        view.status_reason = started.reason
    problem = start_problem(started, polled)
    if problem is not None:
        view.problem = problem
    return view
