"""From the state that a run ended with to the state that it can go on from. What that means is the engine's to say."""

import asyncio
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol

from app.errors import AppError, Conflict
from app.executions.control_schemas import ResumePoint
from engine.compile import compile_document
from engine.errors import EngineError
from engine.state import State
from engine.state_json import state_from_json, state_to_json

_NOT_FOUND = frozenset({"STEP_NOT_FOUND"})

Document = dict[str, Any]


class Repair(Protocol):
    """Makes states out of which an ended run can go on; raises `EngineError` when there is nothing to go on from."""

    def retried(self, definition: Mapping[str, Any], state: Document) -> Document:
        """The state in which what had failed is done again. NOTHING_FAILED, COMPENSATED."""

    def resumed(self, definition: Mapping[str, Any], state: Document, point: ResumePoint) -> Document:
        """The state just after a step had completed. STEP_NOT_FOUND, STEP_NOT_RUN, COMPENSATED."""


class EngineRepair:
    """The engine's own."""

    def retried(self, definition: Mapping[str, Any], state: Document) -> Document:
        """See `Repair`."""
        after: State = import_module("engine.repair").retry_failed(compile_document(definition), state_from_json(state))
        return state_to_json(after)

    def resumed(self, definition: Mapping[str, Any], state: Document, point: ResumePoint) -> Document:
        """See `Repair`."""
        after: State = import_module("engine.repair").resume_from(
            compile_document(definition),
            state_from_json(state),
            point.step_id,
            point.visit,
            point.item,
            point.context,
            point.output,
        )
        return state_to_json(after)


async def repaired(
    repair: Repair, definition: Mapping[str, Any], state: Document, point: ResumePoint | None
) -> Document:
    """The state to go on from: at a point, or without one where it had failed.

    Raises NOTHING_FAILED, STEP_NOT_RUN, COMPENSATED (409), STEP_NOT_FOUND (404).
    """
    try:
        # A run of a hundred thousand steps has a state of many megabytes: not on the loop that serves everyone.
        if point is None:
            return await asyncio.to_thread(repair.retried, definition, state)
        return await asyncio.to_thread(repair.resumed, definition, state, point)
    except EngineError as error:
        if error.code in _NOT_FOUND:
            raise AppError(error.code, 404, str(error)) from error
        raise Conflict(error.code, str(error)) from error
