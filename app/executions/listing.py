"""Lists of executions. Pages are full: one that is narrowed to a runtime status goes on until it has enough.

Of closed rows PostgreSQL knows how they ended. Of open ones Temporal knows, asked by one visibility query for as many
rows as it takes in one; mostly that is one query for a page.
"""

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from app.db.session import Database
from app.db.tables import ClosedAs, RecordStatus
from app.errors import Unavailable
from app.executions.queries import ExecutionFilter, ExecutionRow, Recorded, list_executions
from app.executions.reading import current_status, summary
from app.executions.runs import RuntimeStatus, find_runs
from app.executions.schemas import ExecutionSummary
from app.temporal import Temporal
from app.wire import bad_cursor, decode_cursor, encode_cursor

# Open rows that one visibility query is asked about, and how many such queries a page may cost.
_CHUNK = 500
_MOST_CHUNKS = 20

Place = tuple[datetime, UUID]


def write_place(place: Place | None) -> str | None:
    """A place as a cursor."""
    return None if place is None else encode_cursor(place[0].isoformat(), str(place[1]))


def read_place(cursor: str | None) -> Place | None:
    """The place that a cursor names. Raises CURSOR_INVALID."""
    if cursor is None:
        return None
    created_at, execution_id = decode_cursor(cursor, 2)
    try:
        return datetime.fromisoformat(created_at), UUID(execution_id)
    except ValueError as error:
        raise bad_cursor() from error


@dataclass(frozen=True, slots=True)
class Listed:
    """A page, and the place of its last row when there may be more."""

    items: list[ExecutionSummary]
    following: Place | None


@dataclass(frozen=True, slots=True)
class _Seen:
    """A row with its runtime status; None when Temporal could not be asked."""

    row: ExecutionRow
    status: RuntimeStatus | None


@dataclass(frozen=True, slots=True)
class _Searched:
    """Open rows that were found, and how far down the search came; None when it came to the end."""

    found: list[_Seen]
    down_to: Place | None


class Lister:
    """The parts that every list needs, and what it is narrowed to."""

    def __init__(self, database: Database, temporal: Temporal, wanted: ExecutionFilter) -> None:
        self._database = database
        self._temporal = temporal
        self._wanted = wanted

    async def page(self, before: Place | None, limit: int) -> Listed:
        """A page of executions, the newest first, from below `before`.

        It has `limit` items when there are that many, unless 10,000 open executions of another runtime status lie
        between them. While Temporal cannot be asked, the runtime status of open rows is null; a list of runs that have
        ended then holds those whose rows are closed, and one of runs in progress all open rows.
        """
        match self._wanted.runtime_status:
            case None:
                return await self._recorded(None, before, limit)
            case RuntimeStatus.NOT_STARTED:
                return await self._recorded("NOT_STARTED", before, limit)
            case RuntimeStatus.IN_PROGRESS:
                searched = await self._search({RuntimeStatus.IN_PROGRESS, None}, before, None, limit)
                return self._listed(searched.found, limit, searched.down_to)
            case ended:
                return await self._ended(ended, before, limit)

    async def _recorded(self, recorded: Recorded | None, before: Place | None, limit: int) -> Listed:
        """What rows alone decide."""
        rows = await self._rows(recorded, before, None, limit + 1)
        return self._listed(await self._asked(rows), limit, None)

    async def _ended(self, status: RuntimeStatus, before: Place | None, limit: int) -> Listed:
        """Closed rows, and among them the open ones whose run has ended without saying so."""
        recorded = ClosedAs(status.value)
        closed = await self._rows(recorded, before, None, limit + 1)
        oldest = _place(closed[limit - 1]) if len(closed) > limit else None
        searched = await self._search({status}, before, oldest, limit)
        # Read again: a row that was closed meanwhile is in neither.
        closed = await self._rows(recorded, before, None, limit + 1)
        seen = {row.id: _Seen(row, status) for row in closed} | {one.row.id: one for one in searched.found}
        found = sorted(seen.values(), key=lambda one: _place(one.row), reverse=True)
        if searched.down_to is not None:
            found = [one for one in found if _place(one.row) >= searched.down_to]
        return self._listed(found, limit, searched.down_to)

    async def _search(
        self, statuses: Collection[RuntimeStatus | None], before: Place | None, above: Place | None, limit: int
    ) -> _Searched:
        """Open rows that have one of the statuses, more than `limit` of them if there are."""
        found: list[_Seen] = []
        down_to = before
        async for chunk, more in self._open_chunks(before, above, limit + 1):
            found += [one for one in chunk if one.status in statuses]
            if not more:
                return _Searched(found, None)
            down_to = _place(chunk[-1].row)
            if len(found) > limit:
                break
        return _Searched(found, down_to)

    async def _open_chunks(
        self, before: Place | None, above: Place | None, first: int
    ) -> AsyncIterator[tuple[list[_Seen], bool]]:
        """Open rows, chunk by chunk, and whether there may be more."""
        size = first
        for _ in range(_MOST_CHUNKS):
            rows = await self._rows("OPEN", before, above, size)
            more = len(rows) == size
            yield await self._asked(rows), more
            if not more:
                return
            before, size = _place(rows[-1]), _CHUNK

    async def _rows(
        self, recorded: Recorded | None, before: Place | None, above: Place | None, limit: int
    ) -> list[ExecutionRow]:
        async with self._database.transaction() as session:
            return await list_executions(
                session, self._wanted, recorded=recorded, before=before, above=above, limit=limit
            )

    async def _asked(self, rows: Sequence[ExecutionRow]) -> list[_Seen]:
        try:
            runs = await find_runs(self._temporal, [row.id for row in rows if row.status == RecordStatus.STARTED])
        except Unavailable:
            runs = None
        return [_Seen(row, current_status(row, runs)) for row in rows]

    def _listed(self, found: Sequence[_Seen], limit: int, searched_to: Place | None) -> Listed:
        items = [summary(self._temporal, one.row, one.status) for one in found[:limit]]
        return Listed(items, _place(found[limit - 1].row) if len(found) > limit else searched_to)


def _place(row: ExecutionRow) -> Place:
    return row.created_at, row.id
