"""How far behind the reading is: a slot that nobody reads keeps the server's log until its disk is full."""

from collections.abc import Awaitable, Callable, Sequence

import structlog
from sqlalchemy import update
from sqlmodel import col

from app.changes import replication
from app.db.event_tables import ChangeSource
from app.db.session import Connection, Database
from app.db.statuses import ChangeMethod, ChangeSourceStatus

log = structlog.get_logger(__name__)

LAG_HIGH = "LAG_HIGH"


async def look_at_lag(
    database: Database,
    remote: Connection,
    sources: Sequence[ChangeSource],
    warn_at: int,
    undisturbed: Callable[[], Awaitable[bool]],
) -> None:
    """Writes down for each source what the server keeps for it, and warns of more than `warn_at` bytes.

    A slot of ours that no source knows is let go, where nobody can have made it since the sources were read
    (`undisturbed`): whoever made it died before he had written it down.
    """
    lags: dict[str, int] = {}
    for publication in {source.publication for source in sources if source.publication}:
        known = {source.slot for source in sources}
        for slot in await replication.slots_of(remote, publication):
            if slot in known:
                try:
                    lags[slot] = (await replication.read_slot(remote, slot)).retained
                except replication.SlotLost:
                    continue
            elif await undisturbed():
                log.warning("unknown_slot_dropped", slot=slot)
                await replication.drop_slot(remote, slot)
    for source in sources:
        if source.method == ChangeMethod.REPLICATION and source.slot in lags:
            await _note(database, source, lags[source.slot], warn_at)


async def _note(database: Database, source: ChangeSource, lag: int, warn_at: int) -> None:
    high = lag >= warn_at
    changes: dict[str, object] = {"lag_bytes": lag}
    if high:
        log.warning("row_changes_lag", trigger=source.key, status=source.status, bytes=lag, slot=source.slot)
    if high and source.status != ChangeSourceStatus.FAILED and source.code in {None, LAG_HIGH}:
        changes |= {"code": LAG_HIGH, "message": _said(source, lag)}
    elif source.code == LAG_HIGH:
        changes |= {"code": None, "message": None}
    async with database.transaction() as session:
        await session.execute(update(ChangeSource).where(col(ChangeSource.id) == source.id).values(**changes))


def _said(source: ChangeSource, lag: int) -> str:
    size = f"The server keeps {lag / 1024**2:,.0f} MiB of its log for the slot {source.slot}"
    if source.status == ChangeSourceStatus.PAUSED:
        return f"{size}, because the source is paused. Resume or unwatch it before the server's disk is full."
    return f"{size}. Either changes come faster than they are read, or a transaction is open for long."
