"""Looking for row changes, for as long as the process lives: a pass of each watched connection after the other.

A pass holds the connection's lock, so one process at a time reads it, and whoever changes what is watched waits for
the end of the pass.
"""

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from itertools import groupby

import structlog
from asyncpg.exceptions import PostgresError
from sqlalchemy import select, update
from sqlmodel import col

from app.changes import outbox
from app.changes.lag import LAG_HIGH, look_at_lag
from app.changes.locking import Locks
from app.changes.pgoutput import PgoutputError
from app.changes.queries import list_sources
from app.changes.reading import read_outbox, read_slot
from app.changes.replication import DECODING_WITHIN, SlotLost, is_lost, published_tables
from app.connections.failures import told
from app.connections.opening import Connections, close
from app.db.event_tables import ChangeSource
from app.db.session import BUSY, UNAVAILABLE, Connection, Database
from app.db.statuses import ChangeMethod, ChangeSourceStatus
from app.errors import AppError, Conflict, Unavailable
from app.settings import ChangeSettings

log = structlog.get_logger(__name__)

# Seconds.
RETRY_AFTER = 5.0
LOOK_AT_LAG_EVERY = 60.0
# Connections of the pool that all passes together may have: requests need the others.
AT_ONCE = 4


class Reader:
    """Reads the changes of every ACTIVE source of one Millrace; any number of processes may have one."""

    def __init__(self, database: Database, connections: Connections, settings: ChangeSettings) -> None:
        self._database = database.share(AT_ONCE)
        self._locks = Locks(database)
        self._connections = connections
        self._settings = settings
        self._remotes: dict[str, Connection] = {}
        self._passes: dict[str, asyncio.Task[bool]] = {}
        self._not_before: dict[str, float] = {}
        self._lag_due: dict[str, float] = {}

    async def begin_passes(self) -> bool:
        """Begins a pass of each watched connection that is not in one; whether a pass that has ended left more to read.

        One that is slow holds up no other. Raises, all together, what ended passes and nobody knew of by then.
        """
        async with self._database.transaction() as session:
            reachable = col(ChangeSource.method) != ChangeMethod.POSTED
            found = await session.execute(select(col(ChangeSource.connection)).where(reachable).distinct())
            names = found.scalars().all()
        more, failures = False, []
        for name in self._passes.keys() - set(names):
            await self._leave(name)
        for name in names:
            task = self._passes.get(name)
            if task is not None and not task.done():
                continue
            failure = None if task is None else task.exception()
            if failure is not None:
                failures.append(failure)
            elif task is not None:
                more = more or task.result()
            self._passes[name] = asyncio.create_task(self._pass(name))
        if failures:
            raise BaseExceptionGroup("passes over row changes failed", failures)
        return more

    async def read(self, name: str) -> bool:
        """One pass over a connection; whether there is more to be read at once.

        What fails in the user's database is told in the sources' rows. Raises `Unavailable` when ours is away.
        """
        if not await self._locks.take(name):
            return False
        try:
            async with self._database.transaction() as session:
                found = await list_sources(session, connection=name)
            return await self._read_held(name, [source for source in found if source.method != ChangeMethod.POSTED])
        finally:
            await self._locks.release(name)

    async def _read_held(self, name: str, sources: Sequence[ChangeSource]) -> bool:
        active = any(source.status == ChangeSourceStatus.ACTIVE for source in sources)
        if not active and time.monotonic() < self._lag_due.get(name, 0):
            return False
        well = False
        try:
            with told(name):
                more = await self._read_sources(name, await self._remote(name), sources)
            well = True
            return more
        except AppError as error:
            if error.code in {UNAVAILABLE, BUSY}:
                raise
            self._not_before[name] = time.monotonic() + RETRY_AFTER
            await self._say(sources, error)
            return False
        finally:
            remote = None if well else self._remotes.pop(name, None)
            if remote is not None:
                # Whatever it was in the middle of ends with it.
                await close(remote)

    async def close(self) -> None:
        """Ends what is under way: what was read and not committed will be read again."""
        for task in self._passes.values():
            task.cancel()
        await asyncio.gather(*self._passes.values(), return_exceptions=True)
        for connection in self._remotes.values():
            await close(connection)
        self._remotes.clear()
        await self._locks.close()

    async def _leave(self, name: str) -> None:
        """Nothing is watched there any more."""
        if self._passes[name].done():
            await asyncio.gather(self._passes.pop(name), return_exceptions=True)
            remote = self._remotes.pop(name, None)
            if remote is not None:
                await close(remote)

    async def _pass(self, name: str) -> bool:
        if time.monotonic() < self._not_before.get(name, 0):
            return False
        try:
            return await self.read(name)
        except Unavailable as error:
            log.warning("row_changes_postponed", code=error.code)
            return False

    async def _remote(self, name: str) -> Connection:
        """The connection of the last pass, unless it has broken since."""
        found = self._remotes.get(name)
        if found is None or found.is_closed():
            found = self._remotes[name] = await self._connections.open(name, DECODING_WITHIN)
        return found

    async def _read_sources(self, name: str, remote: Connection, sources: Sequence[ChangeSource]) -> bool:
        active = [source for source in sources if source.status == ChangeSourceStatus.ACTIVE]
        more = False
        lost: list[ChangeSource] = []
        replicated = [source for source in active if source.method == ChangeMethod.REPLICATION]
        for slot, group in groupby(sorted(replicated, key=_slot), key=_slot):
            sharing = list(group)
            try:
                more = await read_slot(self._database, remote, slot, sharing) or more
                lost += await self._fail_unpublished(remote, sharing)
            except (SlotLost, PgoutputError, PostgresError) as error:
                await self._fail(sharing, _for_good(slot, error))
                lost += sharing
        for source in active:
            if source.method == ChangeMethod.OUTBOX:
                if await outbox.installed(remote, source.table_schema, source.table_name):
                    more = await read_outbox(self._database, remote, source) or more
                else:
                    await self._fail([source], _outbox_lost(source))
                    lost.append(source)
        if time.monotonic() >= self._lag_due.get(name, 0):
            self._lag_due[name] = time.monotonic() + LOOK_AT_LAG_EVERY
            undisturbed = partial(self._locks.holds, name)
            await look_at_lag(self._database, remote, sources, self._settings.lag_warning_bytes, undisturbed)
        # Whatever was amiss for a while is over; the lag is judged by itself.
        well = [source for source in active if source not in lost and source.code not in {None, LAG_HIGH}]
        await self._write(well, code=None, message=None)
        return more

    async def _fail_unpublished(self, remote: Connection, sources: Sequence[ChangeSource]) -> list[ChangeSource]:
        """Those whose table is in the publication no more: nothing would ever be heard of it, and nobody told."""
        there = await published_tables(remote, sources[0].publication or "")
        lost = [source for source in sources if (source.table_schema, source.table_name) not in there]
        for source in lost:
            await self._fail([source], _unpublished(source))
        return lost

    async def _fail(self, sources: Sequence[ChangeSource], reason: AppError) -> None:
        """The sources are read no more until somebody has seen to them."""
        for source in sources:
            log.error("row_changes_failed", trigger=source.key, slot=source.slot, code=reason.code)
        await self._write(sources, status=ChangeSourceStatus.FAILED, code=reason.code, message=reason.message)

    async def _say(self, sources: Sequence[ChangeSource], problem: AppError) -> None:
        """What is amiss for now."""
        active = [source for source in sources if source.status == ChangeSourceStatus.ACTIVE]
        untold = [source for source in active if source.code != problem.code]
        if untold:
            log.warning("row_changes_postponed", code=problem.code)
            await self._write(untold, code=problem.code, message=problem.message)

    async def _write(self, sources: Sequence[ChangeSource], **columns: object) -> None:
        if not sources:
            return
        async with self._database.transaction() as session:
            ids = [source.id for source in sources]
            await session.execute(update(ChangeSource).where(col(ChangeSource.id).in_(ids)).values(**columns))


def _slot(source: ChangeSource) -> str:
    return source.slot or ""


def _for_good(slot: str, error: SlotLost | PgoutputError | PostgresError) -> AppError:
    """What ends the reading of a slot until somebody sees to it; raises what will pass by itself."""
    if isinstance(error, SlotLost):
        return error
    if isinstance(error, PgoutputError):
        return Conflict("CHANGES_UNREADABLE", f"What PostgreSQL sent of the slot {slot} cannot be read: {error}.")
    if not is_lost(error):
        raise error
    return Conflict(
        "SLOT_LOST",
        f"The slot {slot} cannot be read any more: {error}. Resume the source to begin anew from now; what was missed "
        "can be backfilled.",
    )


def _unpublished(source: ChangeSource) -> AppError:
    return Conflict(
        "TABLE_NOT_PUBLISHED",
        f"{source.table_schema}.{source.table_name} is not in the publication {source.publication} any more: it was "
        "dropped, renamed or taken out. Resume the source to begin anew from now, or unwatch it.",
    )


def _outbox_lost(source: ChangeSource) -> AppError:
    return Conflict(
        "OUTBOX_LOST",
        f"The trigger of {source.table_schema}.{source.table_name}, or the outbox that it fills, is not there or is "
        "switched off. Resume the source to make it anew.",
    )
