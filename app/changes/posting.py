"""Storing changes that somebody posts: all of a request, or none."""

from typing import Any

from app.changes.committing import batch_of
from app.changes.debezium import read_event
from app.changes.judging import Watched, watched
from app.changes.queries import find_posted
from app.changes.row_changes import Operation, RowChange
from app.changes.schemas import PostedView
from app.db.session import Database
from app.db.statuses import ChangeSourceStatus
from app.errors import Conflict, Invalid, NotFound


async def post_changes(database: Database, body: Any, table: str | None, key: str | None) -> PostedView:
    """Stores the events of one change or of a list of them, and says how many.

    Raises CHANGE_INVALID, TABLE_NOT_NAMED, DEDUPE_KEY_MISSING, CHANGE_SOURCE_NOT_FOUND for a table that nobody watches
    with POSTED, CHANGE_SOURCE_PAUSED, IDEMPOTENCY_CONFLICT, and BEFORE_NOT_KNOWN where a monitor needs what the event
    does not tell.
    """
    given = body if isinstance(body, list) else [body]
    read = [
        read_event(one, table, None if key is None else f"{key}/{at}", f"body[{at}]" if given is body else "body")
        for at, one in enumerate(given)
    ]
    changes = [change for change in read if change is not None]
    sources = {place: await _source(database, *place) for place in {(one.schema, one.table) for one in changes}}
    for at, change in enumerate(changes):
        _check_known(sources[change.schema, change.table], change, at)
    batch = batch_of(sources.values())
    for change in changes:
        batch.take(change)
    # A position is in the key together with the row: what may differ in a repetition is when Debezium wrote it.
    await batch.commit(database, refuse_conflicts=key is not None)
    repeated = sum(one.repeated for one in batch.stored)
    return PostedView(
        stored=len(batch.stored) - repeated,
        repeated=repeated,
        skipped=len(given) - len(batch.stored),
        event_record_ids=[one.id for one in batch.stored],
    )


async def _source(database: Database, schema: str, table: str) -> Watched:
    async with database.transaction() as session:
        source = await find_posted(session, schema, table)
    if source is None:
        raise NotFound("change source", f"of {schema}.{table} with the method POSTED")
    if source.status != ChangeSourceStatus.ACTIVE:
        raise Conflict("CHANGE_SOURCE_PAUSED", f"{source.key} is {source.status}; nothing of the request was stored.")
    return watched(source)


def _check_known(source: Watched, change: RowChange, at: int) -> None:
    monitored = source.monitored or source.status_column
    if monitored and change.operation is Operation.UPDATE and change.changed_columns() is None:
        problem = {"path": f"body[{at}].before", "message": "the row before is not told"}
        raise Invalid(
            "BEFORE_NOT_KNOWN",
            f"{source.key} monitors columns, and what an UPDATE changed is only known with the row before.",
            [problem],
        )
