"""From the state that a run ended with to the state that it can go on from. What that means is the engine's to say."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Protocol

from app.errors import AppError
from app.executions.control_schemas import ResumePoint
from engine.compile import compile_document
from engine.errors import EngineError
from engine.repair import Point, resume_from, retry_failed
from engine.state_json import state_from_json, state_to_json

_STATUSES = {
    "STEP_NOT_FOUND": 404,
    "ITEM_NOT_FOUND": 404,
    "CONTEXT_NEEDED": 422,
    "OUTPUT_NOT_TAKEN": 422,
    "OUTPUT_INVALID": 422,
}

Document = dict[str, Any]


class Repair(Protocol):
    """Makes states out of which an ended run can go on; raises `EngineError` when there is nothing to go on from."""

    def retried(self, definition: Mapping[str, Any], state: Document) -> Document:
        """The state in which what had failed is done again. NOTHING_FAILED, COMPENSATED."""

    def resumed(self, definition: Mapping[str, Any], state: Document, point: ResumePoint) -> Document:
        """The state in which a step, and what comes after it, is done again. STEP_NOT_FOUND, STEP_NOT_RUN …"""


class EngineRepair:
    """The engine's own."""

    def retried(self, definition: Mapping[str, Any], state: Document) -> Document:
        """See `Repair`."""
        return state_to_json(retry_failed(compile_document(definition), state_from_json(state), _now()))

    def resumed(self, definition: Mapping[str, Any], state: Document, point: ResumePoint) -> Document:
        """See `Repair`."""
        where = Point(
            step_id=point.step_id,
            visit=point.visit,
            item=point.item,
            context=point.context,
            # An output of null is an output.
            gives_output="output" in point.model_fields_set,
            output=point.output,
        )
        return state_to_json(resume_from(compile_document(definition), state_from_json(state), where, _now()))


def _now() -> int:
    return int(time.time() * 1000)


async def repaired(
    repair: Repair, definition: Mapping[str, Any], state: Document, point: ResumePoint | None
) -> Document:
    """The state to go on from: at a point, or without one where it had failed.

    Raises NOTHING_FAILED, STEP_NOT_RUN, COMPENSATED (409), STEP_NOT_FOUND, ITEM_NOT_FOUND (404), CONTEXT_NEEDED,
    OUTPUT_NOT_TAKEN, OUTPUT_INVALID (422).
    """
    try:
        # A run of a hundred thousand steps has a state of many megabytes: not on the loop that serves everyone.
        if point is None:
            return await asyncio.to_thread(repair.retried, definition, state)
        return await asyncio.to_thread(repair.resumed, definition, state, point)
    except EngineError as error:
        raise AppError(error.code, _STATUSES.get(error.code, 409), str(error)) from error
