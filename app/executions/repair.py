"""From the state that a run ended with to the state that it can go on from. What that means is the engine's to say."""

import asyncio
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol

from app.errors import AppError, Conflict
from app.executions.control_schemas import ResumePoint
from engine.compile import compile_document
from engine.errors import EngineError
from engine.plan import Plan
from engine.state import State
from engine.state_json import state_from_json, state_to_json

_NOT_FOUND = frozenset({"STEP_NOT_FOUND"})

Document = dict[str, Any]


class Repair(Protocol):
    """What `engine.repair` offers; each raises `EngineError` when there is nothing to go on from."""

    def retry_failed(self, plan: Plan, state: State) -> State:
        """The state in which what had failed is done again. NOTHING_FAILED."""

    def resume_from(
        self,
        plan: Plan,
        state: State,
        step_id: str,
        visit: int | None,
        item: int | None,
        context: Document | None,
        output: Any,
    ) -> State:
        """The state just after a step had completed. STEP_NOT_FOUND, STEP_NOT_RUN, COMPENSATED."""


async def repaired(
    repair: Repair, definition: Mapping[str, Any], state: Document, point: ResumePoint | None
) -> Document:
    """The state to go on from: at a point, or without one where it had failed.

    Raises NOTHING_FAILED, STEP_NOT_RUN, COMPENSATED (409), STEP_NOT_FOUND (404).
    """
    try:
        # A run of a hundred thousand steps has a state of many megabytes: not on the loop that serves everyone.
        return await asyncio.to_thread(_repaired, repair, definition, state, point)
    except EngineError as error:
        if error.code in _NOT_FOUND:
            raise AppError(error.code, 404, str(error)) from error
        raise Conflict(error.code, str(error)) from error


def _repaired(repair: Repair, definition: Mapping[str, Any], state: Document, point: ResumePoint | None) -> Document:
    plan = compile_document(definition)
    before = state_from_json(state)
    if point is None:
        return state_to_json(repair.retry_failed(plan, before))
    after = repair.resume_from(plan, before, point.step_id, point.visit, point.item, point.context, point.output)
    return state_to_json(after)


class EngineRepair:
    """The engine's own."""

    def retry_failed(self, plan: Plan, state: State) -> State:
        """See `Repair`."""
        repaired_state: State = import_module("engine.repair").retry_failed(plan, state)
        return repaired_state

    def resume_from(
        self,
        plan: Plan,
        state: State,
        step_id: str,
        visit: int | None,
        item: int | None,
        context: Document | None,
        output: Any,
    ) -> State:
        """See `Repair`."""
        module = import_module("engine.repair")
        repaired_state: State = module.resume_from(plan, state, step_id, visit, item, context, output)
        return repaired_state
