"""What the sender of a webhook is told."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from uuid import UUID

import structlog
from starlette.responses import JSONResponse, Response

from app.db.session import Database
from app.db.statuses import WebhookResponse
from app.db.tables import RecordStatus
from app.errors import AppError, about_event
from app.executions.schemas import StartView
from app.executions.service import Started, wait_for_end
from app.inbox.delivering import deliver
from app.settings import Settings
from app.temporal import Temporal
from app.webhooks.receiving import Delivery
from app.webhooks.schemas import WITHOUT_BODY
from app.webhooks.values import compute
from engine.errors import EngineError

log = structlog.get_logger(__name__)

# Seconds between two looks at whether an event has been delivered.
_LOOK_EVERY = 0.05
# What an endpoint says comes from the address of the API, but a page of it must not act as one of the API's.
_NO_PAGE = {"content-security-policy": "sandbox", "x-content-type-options": "nosniff"}

# An execution that is CREATED is not yet known to Temporal, and cannot be waited for there.
STARTED = """
    SELECT event.status = 'PENDING' OR bool_or(execution.status = 'CREATED') IS TRUE AS open,
        array_remove(array_agg(execution.id), NULL) AS executions
    FROM trigger_event AS event
        LEFT JOIN trigger_delivery AS delivery ON delivery.event_id = event.id
        LEFT JOIN workflow_execution AS execution ON execution.id = delivery.execution_id
    WHERE event.id = $1 GROUP BY event.id
"""


async def answer(delivery: Delivery, database: Database, temporal: Temporal, settings: Settings) -> Response:
    """The answer in the endpoint's mode. What cannot be answered so is answered as ASYNC: the event is kept."""
    spec = delivery.endpoint.response
    match WebhookResponse(delivery.endpoint.response_mode):
        case WebhookResponse.CUSTOM:
            return _custom(delivery, spec) or _kept(delivery)
        case WebhookResponse.SYNC:
            # Nobody who waits should wait for the dispatcher's turn; what cannot be delivered now is left to it.
            with suppress(AppError):
                await deliver(database, temporal, settings, [delivery.stored.id])
            with about_event(delivery.stored.id):
                return await _result(delivery, database, temporal, spec["timeoutSeconds"]) or _kept(delivery)
        case _:
            return _kept(delivery)


def _kept(delivery: Delivery) -> Response:
    body = {"eventRecordId": str(delivery.stored.id)}
    return JSONResponse(body, 200 if delivery.stored.repeated else 202)


def _custom(delivery: Delivery, spec: Mapping[str, Any]) -> Response | None:
    try:
        body = compute(spec["body"], delivery.payload, str(delivery.stored.id))
    except EngineError as error:
        endpoint = str(delivery.endpoint.id)
        log.warning("webhook_answer_not_computed", endpoint=endpoint, code=error.code, reason=error.message)
        return None
    # Of two names that differ in nothing but case both would be sent.
    headers = {name.lower(): value for name, value in spec["headers"].items()} | _NO_PAGE
    if body is None or spec["status"] in WITHOUT_BODY:
        return Response(status_code=spec["status"], headers=headers)
    if isinstance(body, str):
        headers = {"content-type": "text/plain; charset=utf-8"} | headers
        return Response(body, spec["status"], headers)
    return JSONResponse(body, spec["status"], headers)


async def _result(delivery: Delivery, database: Database, temporal: Temporal, seconds: float) -> Response | None:
    """The output of the one execution that the event started; None when there is none yet, or several."""
    deadline = time.monotonic() + seconds
    execution_id = await _started(database, delivery.stored.id, deadline)
    if execution_id is None:
        return None
    started = Started(execution_id, RecordStatus.STARTED, None, delivery.stored.repeated)
    ended = await wait_for_end(database, temporal, started, max(deadline - time.monotonic(), 0.0))
    return None if ended is None else _outcome(ended)


def _outcome(ended: StartView) -> Response:
    error = ended.model_dump().get("error")
    if error is None:
        return JSONResponse(ended.output, 200)
    message = f"The execution {ended.execution_id} ended {ended.runtime_status}: {error['code']}."
    raise AppError("EXECUTION_FAILED", 500, message)


async def _started(database: Database, event_id: UUID, deadline: float) -> UUID | None:
    """The execution that an event started, as soon as it is known; None when it is none, or several."""
    while True:
        async with database.driver() as connection:
            found = await connection.fetchrow(STARTED, event_id)
        if found is None or not found["open"]:
            executions = found["executions"] if found is not None else []
            return executions[0] if len(executions) == 1 else None
        if time.monotonic() >= deadline:
            return None
        await asyncio.sleep(_LOOK_EVERY)
