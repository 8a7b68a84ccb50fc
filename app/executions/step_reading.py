"""One step of an execution: its inputs, outputs and errors, read from Temporal's history, the newest first.

What history says of it (`step_scan`, `step_calls`) is joined with what the run says of itself, where a worker answers
soon enough.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from app.contracts import batch_workflow_id, workflow_id
from app.db.session import Database
from app.errors import NotFound, Unavailable
from app.executions.history import CallKind, CallStatus
from app.executions.lineage import list_lineage
from app.executions.reading import get_row
from app.executions.runs import view_chunk, view_run, worker_unavailable
from app.executions.schemas import ErrorView, ReadingProblem, StepCall, StepDetail, StepRun, StepVisit
from app.executions.step_calls import chunk_of, shown
from app.executions.step_scan import Place, Reader, Wanted, describe, run_shown, scan
from app.run_contracts import ItemCounts, RunView, StepView
from app.temporal import Temporal
from app.versions.queries import find_version
from engine.keys import Key
from engine.signals import ADD

# Seconds that what history says waits for what the run says of itself.
_PATIENCE = 0.5


@dataclass(frozen=True, slots=True)
class _Page:
    shown: Sequence[tuple[Key, StepCall]]
    runs: Sequence[StepRun]
    place: Place | None
    truncated: bool


_NOTHING = _Page((), (), None, False)


async def read_step(
    database: Database,
    temporal: Temporal,
    execution_id: UUID,
    wanted: Wanted,
    *,
    cursor: str | None,
    limit: int,
) -> StepDetail:
    """A step with its visits; at most `limit` calls, and `nextCursor` where there may be older ones.

    Raises EXECUTION_NOT_FOUND, STEP_NOT_FOUND, CHUNK_NOT_FOUND, RUN_NOT_FOUND, CURSOR_INVALID, TEMPORAL_UNAVAILABLE.
    """
    after = Place.read(cursor)
    row = await get_row(database, execution_id)
    async with database.transaction() as session:
        version = await find_version(session, row.version_id)
        lineage = await list_lineage(session, execution_id)
    steps = [] if version is None else version.definition["steps"]
    step = next((step for step in steps if step["id"] == wanted.step_id), None)
    if step is None:
        raise NotFound("step", f"{wanted.step_id} in version {row.version} of {row.template}")
    if row.started_at is None:
        view = StepView(id=step["id"], name=step["name"], type=step["type"], status="NOT_STARTED", visits=0)
        return _detail(execution_id, step, RunView(steps=[view], waiting_for=[]), wanted, _NOTHING)
    asking = asyncio.create_task(_view(temporal, execution_id))
    names = _signal_names(step)
    try:
        if names is not None and _works_its_signal_out(step):
            # Only the run knows by which names.
            names |= _worked_out(wanted, (await _patiently(asking))[0])
        reader = Reader(
            temporal,
            await temporal.client(),
            _workflow_id(execution_id, wanted),
            {turn.run_id: turn for turn in lineage if turn.run_id is not None and turn.previous_run_id is not None},
            names,
        )
        page = await _calls(reader, wanted, after, limit)
        await _count_open_chunks(temporal, execution_id, wanted, page)
        view_of_run, problem = await _patiently(asking)
    finally:
        asking.cancel()
    detail = _detail(execution_id, step, view_of_run, wanted, page)
    if problem is not None:
        detail.problem = problem
    return detail


def _workflow_id(execution_id: UUID, wanted: Wanted) -> str:
    if wanted.chunk is None:
        return workflow_id(execution_id)
    key = Key.read(wanted.chunk)
    if key is None or key.step_id != wanted.step_id or chunk_of(key) is None:
        raise NotFound("chunk", f"{wanted.chunk} of step {wanted.step_id}")
    return batch_workflow_id(execution_id, wanted.chunk)


def _signal_names(step: dict[str, Any]) -> frozenset[str] | None:
    """The names by which signals are known to be meant for the step: its own where it is constant, and `<id>.add`.

    None for a step that takes no signals.
    """
    signal = step.get("signal")
    constant = _constant(signal)
    names = set() if constant is None else {constant}
    if step.get("forEach") or step.get("iterable"):
        names.add(f"{step['id']}{ADD}")
    return frozenset(names) if names or signal is not None else None


def _works_its_signal_out(step: dict[str, Any]) -> bool:
    signal = step.get("signal")
    return signal is not None and _constant(signal) is None


def _constant(signal: Any) -> str | None:
    """The name of a signal where it is always the same."""
    value = signal.get("value") if isinstance(signal, dict) and signal.get("type") == "const" else signal
    return value if isinstance(value, str) else None


def _worked_out(wanted: Wanted, run: RunView | None) -> frozenset[str]:
    """The names of signals that a run says that a step has waited for."""
    views = [] if run is None else [one for one in run.steps if one.id == wanted.step_id]
    return frozenset(name for view in views for name in view.signal_names)


async def _count_open_chunks(temporal: Temporal, execution_id: UUID, wanted: Wanted, page: _Page) -> None:
    """Asks the runs of chunks that are open how far they have come; one that does not answer soon is left out."""
    chunks = [call for _, call in page.shown if call.kind is CallKind.CHUNK and call.status is CallStatus.OPEN]
    counts = await asyncio.gather(*(_chunk_counts(temporal, execution_id, wanted, call.key) for call in chunks))
    for call, count in zip(chunks, counts, strict=True):
        if count is not None and call.items is not None:
            call.items.open, call.items.done, call.items.failed = count.open, count.done, count.failed


async def _chunk_counts(temporal: Temporal, execution_id: UUID, wanted: Wanted, key: str) -> ItemCounts | None:
    try:
        async with asyncio.timeout(_PATIENCE):
            view = await view_chunk(temporal, execution_id, key)
    except (Unavailable, TimeoutError):
        return None
    steps = [] if view is None else view.steps
    return next((one.items for one in steps if one.id == wanted.step_id), None)


async def _view(temporal: Temporal, execution_id: UUID) -> tuple[RunView | None, ReadingProblem | None]:
    """What the run says of itself; history can be read without a worker, so that none answers is no failure."""
    try:
        return await view_run(temporal, execution_id), None
    except Unavailable as error:
        return None, ReadingProblem(code=error.code, message=error.message)


async def _patiently(
    asking: "asyncio.Task[tuple[RunView | None, ReadingProblem | None]]",
) -> tuple[RunView | None, ReadingProblem | None]:
    """What the run says if it says it soon: a worker that no longer holds it has to replay it first."""
    try:
        async with asyncio.timeout(_PATIENCE):
            return await asyncio.shield(asking)
    except TimeoutError:
        error = worker_unavailable()
        return None, ReadingProblem(code=error.code, message="No worker answered soon enough.")


async def _calls(reader: Reader, wanted: Wanted, after: Place | None, limit: int) -> _Page:
    described = await describe(reader, wanted)
    newest = described.workflow_execution_info.execution.run_id
    found = await scan(reader, newest, wanted, after, limit)
    pending = {one.activity_id: one for one in described.pending_activities}
    views = [(call.key, await shown(reader.client, call, pending)) for call in found.calls]
    runs = [await run_shown(reader, run_id, event) for run_id, event in found.runs.items()]
    # A chunk begins at or before the item that was asked for; it may also end before it.
    kept = [(key, view) for key, view in views if wanted.item is None or _reaches(view, wanted.item)]
    return _Page(kept, runs, found.place, found.truncated)


def _reaches(call: StepCall, item: int) -> bool:
    return call.items is None or call.items.last is None or call.items.last >= item


def _detail(execution_id: UUID, step: dict[str, Any], run: RunView | None, wanted: Wanted, page: _Page) -> StepDetail:
    view = next((one for one in run.steps if one.id == wanted.step_id), None) if run is not None else None
    error = None if view is None or view.error is None else view.error
    visits = _visits(wanted, run, page.shown)
    return StepDetail(
        execution_id=execution_id,
        step_id=wanted.step_id,
        name=step["name"],
        type=step["type"],
        status=None if view is None else view.status,
        visit_count=None if view is None else view.visits,
        started_at=None if view is None else view.started_at,
        ended_at=None if view is None else view.ended_at,
        error=None if error is None else ErrorView(code=error.code, message=error.message),
        items=None if view is None or view.items is None else _with_chunks(view.items, page),
        signal_names=[] if view is None else view.signal_names,
        visits=visits,
        signals=[call for key, call in page.shown if not key.visit],
        runs=list(page.runs),
        next_cursor=None if page.place is None else page.place.cursor(),
        truncated=page.truncated,
    )


def _with_chunks(counts: ItemCounts, page: _Page) -> ItemCounts:
    """The counts of a step, with what its open chunks, as far as they are on the page, have done and not handed in."""
    under_way = [call.items for _, call in page.shown if call.status is CallStatus.OPEN and call.items is not None]
    # A chunk that ended while this was read is in both counts for a moment: no more is done than was open.
    failed = min(sum(items.failed or 0 for items in under_way), counts.open)
    done = min(sum(items.done or 0 for items in under_way), counts.open - failed)
    return ItemCounts(
        total=counts.total,
        open=counts.open - done - failed,
        done=counts.done + done,
        failed=counts.failed + failed,
    )


def _visits(wanted: Wanted, run: RunView | None, calls: Sequence[tuple[Key, StepCall]]) -> list[StepVisit]:
    visits: dict[int, StepVisit] = {}
    for wait in run.waiting_for if run is not None else []:
        if wait.step_id == wanted.step_id and wanted.visit in (None, wait.visit):
            visits.setdefault(wait.visit, StepVisit(visit=wait.visit, waiting_for=[], calls=[]))
            visits[wait.visit].waiting_for.append(wait)
    for key, call in calls:
        if not key.visit:
            continue
        visits.setdefault(key.visit, StepVisit(visit=key.visit, waiting_for=[], calls=[])).calls.append(call)
    return [visits[number] for number in sorted(visits, reverse=True)]
