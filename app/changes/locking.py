"""Who may work on what is watched on a connection: one at a time, over all processes of one Millrace.

The locks are PostgreSQL's, in Millrace's own database, and are gone with whoever held them. They are held for as long
as users' databases take, so they are held beside the pool: it would be empty when as many users' databases are slow as
it has connections, and nothing could be started.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from asyncpg.exceptions import LockNotAvailableError

from app.connections.opening import close
from app.db.session import Connection, Database, translated
from app.errors import Unavailable

# Milliseconds that what people do waits for the reader; shorter than the longest statement.
_PATIENCE: Final = 10_000
_KEY: Final = "hashtextextended('millrace.changes.' || $1, 0)"


class Locks:
    """The locks of one reader, all of them on one connection."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Connection | None = None
        self._turn = asyncio.Lock()
        self._held: dict[str, Connection] = {}

    async def take(self, name: str) -> bool:
        """Whether nobody else has it; it is held until it is released, or Millrace's database closes the connection.

        A reader that has lost it goes on to the end of its pass: a slot has one reader at a time anyway, rows of an
        outbox are locked, and events are known by their keys. Raises `Unavailable`.
        """
        if name in self._held:
            return False
        async with self._turn:
            connection = self._connection
            if connection is None or connection.is_closed():
                connection = self._connection = await self._database.detached()
            if not await _asked(connection, f"SELECT pg_try_advisory_lock({_KEY})", name):
                return False
            self._held[name] = connection
            return True

    async def holds(self, name: str) -> bool:
        """Whether it has been held all the time since it was taken."""
        connection = self._held.get(name)
        if connection is None or connection.is_closed():
            return False
        try:
            async with self._turn:
                return bool(await _asked(connection, "SELECT $1::text IS NOT NULL", name))
        except Unavailable:
            return False

    async def release(self, name: str) -> None:
        """Lets others have it. Raises `Unavailable`, and then they can have it too."""
        connection = self._held.pop(name)
        if connection.is_closed():
            return
        async with self._turn:
            await _asked(connection, f"SELECT pg_advisory_unlock({_KEY})", name)

    async def close(self) -> None:
        """Lets others have all of them."""
        if self._connection is not None:
            await close(self._connection)


async def _asked(connection: Connection, statement: str, name: str) -> Any:
    answered = False
    try:
        with translated():
            answer = await connection.fetchval(statement, name)
        answered = True
        return answer
    finally:
        if not answered:
            # Nobody knows whether the lock is held: without the connection it is not.
            connection.terminate()


@asynccontextmanager
async def holding(database: Database, name: str) -> AsyncIterator[None]:
    """Keeps the readers, and everybody else, from what is watched on a connection, for the block.

    Raises `Unavailable` CONNECTION_BUSY after ten seconds.
    """
    connection = await database.detached()
    try:
        with translated():
            try:
                await connection.execute(f"SET lock_timeout = {_PATIENCE}")
                await connection.execute(f"SELECT pg_advisory_lock({_KEY})", name)
            except LockNotAvailableError as error:
                raise Unavailable("CONNECTION_BUSY", f"Changes of {name} are being read; try again.") from error
        yield
    finally:
        await close(connection)
