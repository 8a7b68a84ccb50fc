"""One deed on many executions: found by a filter, done one by one, each with its own result and its own audit."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from app.audit.service import Deed, audited
from app.audit.words import Action
from app.db.session import Database
from app.errors import AppError, Invalid
from app.executions.bulk_schemas import BulkFilter, BulkRequest, BulkResult, BulkView
from app.executions.ending import AT_ONCE
from app.executions.listing import Lister, Place, read_place, write_place
from app.executions.queries import ExecutionFilter
from app.executions.runs import RuntimeStatus
from app.executions.schemas import ExecutionSummary
from app.temporal import Temporal

PAGE = 100


@dataclass(frozen=True, slots=True)
class Replayed:
    """The new execution that came of one."""

    execution_id: UUID
    status: str


# Does the deed to one execution, and gives the word for what came of it.
Act = Callable[[UUID], Awaitable[str | Replayed]]


@dataclass(frozen=True, slots=True)
class Bulk:
    """A deed: its name in the audit (BULK_CANCEL), whether it is for closed executions, and how one is done.

    `about_steps` means children as well as roots, because no parent passes it on to them; `parked_at` those that are
    parked at a step. `try_out` is what a dry run does to each; without it, a dry run only finds them.
    """

    action: Action
    act: Act
    for_closed: bool = False
    about_steps: bool = False
    parked_at: str | None = None
    try_out: Act | None = None


async def find_matching(
    database: Database, temporal: Temporal, bulk: Bulk, given: BulkFilter, ids: Collection[UUID]
) -> list[ExecutionSummary]:
    """Those of the executions that a filter is true of. Raises FILTER_EMPTY."""
    wanted = _wanted(given, bulk)
    asked = tuple(one for one in ids if wanted.ids is None or one in wanted.ids)
    if not asked:
        return []
    found, _ = await _find(database, temporal, replace(wanted, ids=asked), None, len(asked))
    return found


async def run_bulk(
    database: Database, temporal: Temporal, bulk: Bulk, request: BulkRequest, actor: str | None
) -> BulkView:
    """Does the deed to at most `limit` executions that match. Raises FILTER_EMPTY, CURSOR_INVALID.

    Where something is down (503), those that have not had their turn get the same result without being tried.
    """
    wanted = _wanted(request.filter, bulk)
    before = read_place(request.cursor)
    if request.dry_run:
        found, following = await _find(database, temporal, wanted, before, request.limit)
        results = await _do_each(found, bulk.try_out or _matched)
        return _view(results, following, dry_run=True)
    said = request.model_dump(mode="json", by_alias=True, exclude={"reason", "dry_run"}, exclude_none=True)
    deed = Deed(bulk.action, "EXECUTION", None, actor, request=said, reason=request.reason)
    async with audited(database, deed):
        found, following = await _find(database, temporal, wanted, before, request.limit)
        results = await _do_each(found, bulk.act)
        view = _view(results, following, dry_run=False)
        deed.after = {"matched": view.matched, "done": view.done, "refused": view.refused}
    return view


def _wanted(given: BulkFilter, bulk: Bulk) -> ExecutionFilter:
    if not given.model_dump(exclude_none=True):
        raise Invalid("FILTER_EMPTY", "A filter must say something; this one would mean every execution.")
    runtime_status = given.runtime_status
    said = given.status is not None or runtime_status is not None
    if bulk.for_closed and not said and given.ids is None:
        runtime_status = RuntimeStatus.FAILED
    return ExecutionFilter(
        template=given.template,
        version_id=given.version_id,
        status=given.status,
        runtime_status=runtime_status,
        root_id=given.root_id,
        created_after=given.created_after,
        created_before=given.created_before,
        ids=None if given.ids is None else tuple(given.ids),
        root_only=given.ids is None and not bulk.about_steps if given.root_only is None else given.root_only,
        # One that was named is answered for, however it has ended, or though it is open.
        open_only=not bulk.for_closed and not said and given.ids is None,
        parked_at=bulk.parked_at if given.ids is None else None,
    )


async def _find(
    database: Database,
    temporal: Temporal,
    wanted: ExecutionFilter,
    before: Place | None,
    limit: int,
) -> tuple[list[ExecutionSummary], str | None]:
    """Those that match, the newest first, and the cursor to the rest."""
    found: list[ExecutionSummary] = []
    while True:
        size = min(PAGE, limit - len(found))
        listed = await Lister(database, temporal, wanted).page(before, size)
        found += listed.items
        if listed.following is None:
            return found, None
        before = listed.following
        if len(found) >= limit:
            return found, write_place(before)


async def _do_each(found: Sequence[ExecutionSummary], act: Act) -> list[BulkResult]:
    places = asyncio.Semaphore(AT_ONCE)
    down: list[AppError] = []

    async def one(execution: ExecutionSummary) -> BulkResult:
        async with places:
            if down:
                return _refused(execution, down[0])
            try:
                came = await act(execution.id)
            except AppError as error:
                if error.status >= 500:
                    down.append(error)
                return _refused(execution, error)
        word, replay_id = (came.status, came.execution_id) if isinstance(came, Replayed) else (came, None)
        return BulkResult(execution_id=execution.id, name=execution.name, ok=True, result=word, replay_id=replay_id)

    return list(await asyncio.gather(*(one(execution) for execution in found)))


def _refused(execution: ExecutionSummary, error: AppError) -> BulkResult:
    return BulkResult(
        execution_id=execution.id, name=execution.name, ok=False, result=error.code, message=error.message
    )


async def _matched(_: UUID) -> str:
    return "MATCHED"


def _view(results: list[BulkResult], following: str | None, *, dry_run: bool) -> BulkView:
    done = sum(result.ok for result in results)
    return BulkView(
        matched=len(results),
        done=0 if dry_run else done,
        refused=len(results) - done,
        dry_run=dry_run,
        results=results,
        next_cursor=following,
    )
