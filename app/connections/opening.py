"""Connections to the databases of users: found by name, opened and closed."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
from asyncpg.exceptions import InterfaceError, PostgresError
from pydantic import SecretStr
from sqlalchemy.exc import ArgumentError

from app.connections.column_values import SESSION
from app.connections.failures import told
from app.db.session import DRIVER, Connection, driver_options, driver_url
from app.errors import Invalid
from app.settings import OWN_CONNECTION

# Seconds.
CONNECT_WITHIN: Final = 5.0
STATEMENT_WITHIN: Final = 30.0
CLOSE_WITHIN: Final = 2.0
# What is left for the server to say that a statement took too long, before nobody waits for it any more.
_GRACE: Final = 5.0

_NAME: Final = {"application_name": "millrace"}
_SETTINGS: Final = "; ".join(f"SET LOCAL {name} = '{value}'" for name, value in SESSION.items())


class Connections:
    """The databases that are configured by name; `millrace` is Millrace's own, at `own` where that is known.

    What is configured by that name is how people's queries read it: as a user that may see less than Millrace. Only
    PostgreSQL can judge that, since a query reads what functions in it read, too.
    """

    def __init__(self, own: str | None, configured: Mapping[str, SecretStr]) -> None:
        self._urls = {name: url.get_secret_value() for name, url in configured.items()}
        self._reading = {**self._urls}
        if own is not None:
            self._urls[OWN_CONNECTION] = driver_url(own)
            self._reading.setdefault(OWN_CONNECTION, self._urls[OWN_CONNECTION])

    def check(self, name: str) -> None:
        """Raises `Invalid` CONNECTION_UNKNOWN."""
        if name not in self._urls:
            raise _unknown(name, self._urls)

    async def open(self, name: str, longest: float = STATEMENT_WITHIN) -> Connection:
        """A new connection, which the caller closes; it writes values as `column_values` reads them, and lets no
        statement take longer than `longest` seconds.

        Raises CONNECTION_UNKNOWN, CONNECTION_INVALID, CONNECTION_UNREACHABLE, CONNECTION_NOT_PERMITTED.
        """
        limit = str(int((longest + _GRACE) * 1000))
        return await self._connect(name, self._urls, STATEMENT_WITHIN, {**SESSION, "statement_timeout": limit})

    @asynccontextmanager
    async def opened(self, name: str) -> AsyncIterator[Connection]:
        """A connection for the block, whose failures are told like those of `open`, or as what they mean."""
        connection = await self.open(name)
        try:
            with told(name):
                yield connection
        finally:
            await close(connection)

    @asynccontextmanager
    async def reading(self, name: str, within: float = STATEMENT_WITHIN) -> AsyncIterator[Connection]:
        """A connection in a transaction that can only read, for the block; each statement has `within` seconds.

        All that is set is set for the transaction: behind a pooler the next one is somebody else's. Raises what `open`
        raises, and QUERY_TIMED_OUT.
        """
        connection = await self._connect(name, self._reading, within + _GRACE, {})
        try:
            with told(name):
                timeout = f"SET LOCAL statement_timeout = {int(within * 1000)}"
                await connection.execute(f"BEGIN READ ONLY; {timeout}; {_SETTINGS}")
                yield connection
        finally:
            # Nothing was written, so the transaction may end with its connection.
            await close(connection)

    async def _connect(
        self, name: str, urls: Mapping[str, str], within: float, settings: Mapping[str, str]
    ) -> Connection:
        self.check(name)
        with told(name):
            try:
                return await asyncpg.connect(
                    **_options(urls[name]),
                    timeout=CONNECT_WITHIN,
                    command_timeout=within,
                    server_settings={**_NAME, **settings},
                )
            except (ArgumentError, ValueError):
                # What is said of a URL that cannot be read would show it, with its password.
                raise Invalid("CONNECTION_INVALID", f"The URL of connection {name} cannot be read.") from None


async def close(connection: Connection) -> None:
    """Ends a connection, whatever its state, also when the caller is being cancelled: what the server is at is called
    off before the connection goes, since it would not notice for long that nobody waits.
    """
    await asyncio.shield(_close(connection))


async def _close(connection: Connection) -> None:
    try:
        async with asyncio.timeout(CLOSE_WITHIN):
            await connection.close()
    except (OSError, TimeoutError, InterfaceError, PostgresError):
        connection.terminate()


def _options(url: str) -> dict[str, Any]:
    """What asyncpg is to be called with: it reads URLs as PostgreSQL's own programs do, except those that name the
    driver, which are in SQLAlchemy's words. Raises what SQLAlchemy does of those.
    """
    return driver_options(url) if url.startswith(f"{DRIVER}://") else {"dsn": url}


def _unknown(name: str, known: Collection[str]) -> Invalid:
    there = ", ".join(sorted({OWN_CONNECTION, *known}))
    return Invalid(
        "CONNECTION_UNKNOWN",
        f"There is no connection {name}; there are {there}. "
        "A database is named by MILLRACE_CONNECTIONS__<NAME>=postgresql://…",
    )
