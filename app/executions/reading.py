"""What users read of executions: rows from PostgreSQL, joined with what Temporal says at the moment.

What Temporal cannot say now is left out and named in `problem`; the record is readable all the same.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from app.db.session import Database
from app.db.tables import ClosedAs, RecordStatus
from app.errors import NotFound, Unavailable
from app.executions.queries import (
    ExecutionRow,
    find_execution,
    list_tree,
)
from app.executions.runs import (
    Outcome,
    Run,
    RuntimeStatus,
    find_outcome,
    find_run,
    find_runs_under,
    view_run,
)
from app.executions.schemas import (
    ErrorView,
    ExecutionNode,
    ExecutionSummary,
    ExecutionTree,
    ExecutionView,
    ReadingProblem,
    StepsView,
    TriggerSummary,
)
from app.run_contracts import RunView, StepView, WaitingFor
from app.temporal import Temporal
from app.versions.queries import find_version

LARGEST_TREE = 10_000


async def get_row(database: Database, execution_id: UUID) -> ExecutionRow:
    """An execution's row. Raises EXECUTION_NOT_FOUND."""
    async with database.transaction() as session:
        row = await find_execution(session, execution_id)
    if row is None:
        raise NotFound("execution", execution_id)
    return row


async def read_execution(database: Database, temporal: Temporal, execution_id: UUID) -> ExecutionView:
    """One execution, with its runtime status, what it waits for, and how it ended. Raises EXECUTION_NOT_FOUND."""
    row = await get_row(database, execution_id)
    if row.status == RecordStatus.STARTED:
        return (await _read_open(temporal, row))[0]
    return await _read_recorded(temporal, row)


async def read_whole(
    database: Database, temporal: Temporal, execution_id: UUID
) -> tuple[ExecutionView, list[StepView] | None]:
    """One execution and its steps, by one query; None for the steps when nobody could say. Raises EXECUTION_NOT_FOUND.

    What is the matter is in the view's `problem`.
    """
    row = await get_row(database, execution_id)
    if row.status == RecordStatus.STARTED:
        view, run = await _read_open(temporal, row)
    else:
        view = await _read_recorded(temporal, row)
        run = await (_not_begun(database, row) if row.started_at is None else _steps_of_ended(temporal, row.id))
    return view, None if run is None else run.steps


async def _steps_of_ended(temporal: Temporal, execution_id: UUID) -> RunView | None:
    try:
        return await view_run(temporal, execution_id)
    except Unavailable:
        return None


async def _read_recorded(temporal: Temporal, row: ExecutionRow) -> ExecutionView:
    view = _view(temporal, row, recorded_status(row), [])
    if row.status == RecordStatus.FAILED_TO_START:
        view.error = ErrorView(code="FAILED_TO_START", message=row.status_reason or "")
    if row.closed_as is not None and row.started_at is not None:
        await _add_outcome(temporal, view)
        if "output" not in view.model_fields_set and view.error is None:
            view.error = _recorded_error(row)
    return view


def _recorded_error(row: ExecutionRow) -> ErrorView | None:
    """How a run ended badly, as its row has it: `CODE: message` of a failure, otherwise a sentence."""
    if row.closed_as in (None, ClosedAs.COMPLETED):
        return None
    code, _, message = (row.status_reason or "").partition(": ")
    if row.closed_as == ClosedAs.FAILED and message:
        return ErrorView(code=code, message=message)
    return ErrorView(code=row.closed_as, message=row.status_reason or "")


async def _read_open(temporal: Temporal, row: ExecutionRow) -> tuple[ExecutionView, RunView | None]:
    try:
        run, (said, problem) = await asyncio.gather(find_run(temporal, row.id), _said(temporal, row.id))
    except Unavailable as error:
        view = _view(temporal, row, None, None)
        view.problem = ReadingProblem(code=error.code, message=error.message)
        return view, None
    if run is None:
        view = _view(temporal, row, None, None)
        view.problem = ReadingProblem(code="RUN_NOT_FOUND", message="Temporal has no run of this execution.")
        return view, None
    if run.status != RuntimeStatus.IN_PROGRESS:
        view = _view(temporal, row, run.status, [])
        await _add_outcome(temporal, view)
        return view, said
    view = _view(temporal, row, run.status, None if said is None else said.waiting_for)
    if said is not None and said.paused is not None:
        view.paused = said.paused
    if run.failing_attempt is not None:
        view.problem = ReadingProblem(
            code="WORKFLOW_TASK_FAILING",
            message="The run's workflow task keeps failing; a worker's log says why.",
            attempt=run.failing_attempt,
        )
    elif problem is not None:
        view.problem = problem
    return view, said


async def _said(temporal: Temporal, execution_id: UUID) -> tuple[RunView | None, ReadingProblem | None]:
    """What the run says of itself, or why it says nothing."""
    try:
        return await view_run(temporal, execution_id), None
    except Unavailable as error:
        return None, ReadingProblem(code=error.code, message=error.message)


async def _add_outcome(temporal: Temporal, view: ExecutionView) -> None:
    try:
        outcome = await find_outcome(temporal, view.id)
    except Unavailable as error:
        view.problem = ReadingProblem(code=error.code, message=error.message)
        return
    if outcome is None:
        view.problem = ReadingProblem(code="RUN_NOT_FOUND", message="Temporal no longer has this run.")
    elif outcome.error is not None:
        view.error = error_view(outcome)
    else:
        view.output = outcome.output


def error_view(outcome: Outcome) -> ErrorView | None:
    """Why a run ended badly, on the wire."""
    error = outcome.error
    if error is None:
        return None
    return ErrorView(code=error.code, message=error.message, step_id=error.step_id)


async def read_tree(database: Database, temporal: Temporal, execution_id: UUID) -> ExecutionTree:
    """An execution with its descendants, each with its runtime status."""
    row = await get_row(database, execution_id)
    async with database.transaction() as session:
        rows = await list_tree(session, row.root_id, LARGEST_TREE + 1)
    runs: Mapping[UUID, Run] | None = {}
    if any(found.status == RecordStatus.STARTED for found in rows):
        try:
            runs = await find_runs_under(temporal, row.root_id)
        except Unavailable:
            runs = None
    shown = rows[:LARGEST_TREE]
    if all(found.id != row.id for found in shown):
        shown = [*shown, row]
    tree, count = _grow(temporal, shown, runs, row.id)
    return ExecutionTree(root_id=row.root_id, count=count, truncated=len(rows) > LARGEST_TREE, tree=tree)


def _grow(
    temporal: Temporal, rows: Sequence[ExecutionRow], runs: Mapping[UUID, Run] | None, top: UUID
) -> tuple[ExecutionNode, int]:
    nodes = {row.id: _node(temporal, row, current_status(row, runs)) for row in rows}
    for node in nodes.values():
        parent = None if node.parent_id is None else nodes.get(node.parent_id)
        if parent is not None:
            parent.children.append(node)
    pending, count = [nodes[top]], 0
    while pending:
        count += 1
        pending.extend(pending.pop().children)
    return nodes[top], count


async def read_steps(database: Database, temporal: Temporal, execution_id: UUID) -> StepsView:
    """What an execution's steps are doing. Raises WORKER_UNAVAILABLE, RUN_NOT_FOUND."""
    row = await get_row(database, execution_id)
    view = None
    if row.started_at is not None:
        view = await view_run(temporal, execution_id)
        if view is None:
            raise NotFound("run", f"of execution {execution_id} in Temporal any more")
    else:
        view = await _not_begun(database, row)
    return StepsView(execution_id=execution_id, steps=view.steps, waiting_for=view.waiting_for)


async def _not_begun(database: Database, row: ExecutionRow) -> RunView:
    async with database.transaction() as session:
        version = await find_version(session, row.version_id)
    steps = [] if version is None else version.definition["steps"]
    return RunView(
        steps=[
            StepView(id=step["id"], name=step["name"], type=step["type"], status="NOT_STARTED", visits=0)
            for step in steps
        ],
        waiting_for=[],
    )


def recorded_status(row: ExecutionRow) -> RuntimeStatus:
    """The runtime status as far as the row tells."""
    if row.closed_as is not None:
        return RuntimeStatus(row.closed_as)
    if row.status == RecordStatus.STARTED:
        return RuntimeStatus.IN_PROGRESS
    return RuntimeStatus.NOT_STARTED


def current_status(row: ExecutionRow, runs: Mapping[UUID, Run] | None) -> RuntimeStatus | None:
    """The runtime status by Temporal while the row is open; None when Temporal could not be asked."""
    if row.status != RecordStatus.STARTED:
        return recorded_status(row)
    if runs is None:
        return None
    run = runs.get(row.id)
    return recorded_status(row) if run is None else run.status


def _common(temporal: Temporal, row: ExecutionRow, status: RuntimeStatus | None) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "template": row.template,
        "version": row.version,
        "parent_id": row.parent_id,
        "status": row.status,
        "runtime_status": status,
        "created_at": row.created_at,
        "started_at": row.started_at,
        "ended_at": row.ended_at,
        "temporal_ui": temporal.ui_link(row.id),
    }


def _fields(temporal: Temporal, row: ExecutionRow, status: RuntimeStatus | None) -> dict[str, Any]:
    fields = _common(temporal, row, status) | {
        "template_id": row.template_id,
        "version_id": row.version_id,
        "root_id": row.root_id,
    }
    trigger = row.trigger or {}
    if trigger.get("entityType") is not None:
        fields |= {"entity_type": trigger["entityType"], "entity_id": trigger["entityId"]}
    if trigger.get("source") is not None:
        fields["trigger"] = TriggerSummary(
            source=trigger["source"], summary=trigger.get("summary"), event_record_id=trigger.get("eventRecordId")
        )
    if row.status_reason is not None:
        fields["status_reason"] = row.status_reason
    return fields


def summary(temporal: Temporal, row: ExecutionRow, status: RuntimeStatus | None) -> ExecutionSummary:
    """An execution as lists show it."""
    return ExecutionSummary(**_fields(temporal, row, status))


def _view(
    temporal: Temporal,
    row: ExecutionRow,
    status: RuntimeStatus | None,
    waiting_for: list[WaitingFor] | None,
) -> ExecutionView:
    return ExecutionView(**_fields(temporal, row, status), waiting_for=waiting_for)


def _node(temporal: Temporal, row: ExecutionRow, status: RuntimeStatus | None) -> ExecutionNode:
    return ExecutionNode(**_common(temporal, row, status), children=[])
