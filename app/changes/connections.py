"""Connections to the databases of users: found by name, opened, and their failures told in our words."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import asyncpg
from asyncpg.exceptions import InterfaceError, PostgresError
from pydantic import SecretStr

from app.changes.column_values import SESSION
from app.db.session import Connection, Database
from app.errors import AppError, Conflict, Invalid, Unavailable
from app.settings import OWN_CONNECTION

CONNECT_WITHIN = 5.0
# Seconds.
STATEMENT_WITHIN = 30.0
# Milliseconds that a change of a table may wait for others to let go of it; who comes later waits behind it.
LOCK_WITHIN = 3_000

# SQLSTATEs: connections, authorisation, no such database, resources, intervention.
_AWAY = ("08", "28", "3D", "53", "57")
_NOT_PERMITTED = "42501"
_LOCKED = "55P03"


class Connections:
    """The databases that are configured by name; `millrace` is Millrace's own."""

    def __init__(self, database: Database, configured: Mapping[str, SecretStr]) -> None:
        self._database = database
        self._configured = configured

    async def open(self, name: str) -> Connection:
        """A new connection, which the caller closes; it writes values as `column_values` reads them.

        Raises CONNECTION_UNKNOWN, CONNECTION_UNREACHABLE.
        """
        options = self._options(name)
        try:
            with told(name):
                return await asyncpg.connect(
                    **options, timeout=CONNECT_WITHIN, command_timeout=STATEMENT_WITHIN, server_settings=dict(SESSION)
                )
        except ValueError:
            # What asyncpg says of a URL that it cannot read would show the URL.
            raise Invalid("CONNECTION_INVALID", f"The URL of connection {name} cannot be read.") from None

    @asynccontextmanager
    async def opened(self, name: str) -> AsyncIterator[Connection]:
        """A connection for the block, whose failures are told like those of `open`, or as what they mean."""
        connection = await self.open(name)
        try:
            with told(name):
                yield connection
        finally:
            await close(connection)

    def _options(self, name: str) -> dict[str, Any]:
        if name == OWN_CONNECTION:
            engine = self._database.engine
            # In the words of SQLAlchemy's URLs, which Millrace's own is.
            _, options = engine.dialect.create_connect_args(engine.url)
            return dict(options)
        url = self._configured.get(name)
        if url is None:
            known = ", ".join(sorted({OWN_CONNECTION, *self._configured}))
            raise Invalid(
                "CONNECTION_UNKNOWN",
                f"There is no connection {name}; there are {known}. "
                "A database is named by MILLRACE_CONNECTIONS__<NAME>=postgresql://…",
            )
        # asyncpg reads URLs as PostgreSQL's own programs do.
        return {"dsn": url.get_secret_value().replace("postgresql+asyncpg://", "postgresql://", 1)}


async def close(connection: Connection) -> None:
    """Ends a connection, whatever its state."""
    try:
        await connection.close(timeout=2)
    except (OSError, TimeoutError, InterfaceError, PostgresError):
        connection.terminate()


@contextmanager
def told(name: str) -> Iterator[None]:
    """Raises what a failure of a user's database means; never with its URL.

    CONNECTION_UNREACHABLE (503), CONNECTION_NOT_PERMITTED, TABLE_BUSY. What means nothing to users passes as it is.
    """
    try:
        yield
    except AppError:
        raise
    except PostgresError as error:
        meaning = _meaning(name, error)
        if meaning is None:
            raise
        raise meaning from error
    except (OSError, TimeoutError, InterfaceError) as error:
        raise _unreachable(name, type(error).__name__) from error


def _meaning(name: str, error: PostgresError) -> AppError | None:
    state = str(error.sqlstate or "")
    if state.startswith(_AWAY):
        return _unreachable(name, type(error).__name__)
    if state == _NOT_PERMITTED:
        return Conflict("CONNECTION_NOT_PERMITTED", f"The database of connection {name} does not permit it: {error}.")
    if state == _LOCKED:
        return Conflict("TABLE_BUSY", f"The table is in use on the database of connection {name}; try again later.")
    return None


def _unreachable(name: str, why: str) -> Unavailable:
    return Unavailable("CONNECTION_UNREACHABLE", f"The database of connection {name} cannot be reached ({why}).")


def quoted(*names: str) -> str:
    """Identifiers as SQL has them: `"public"."orders"`."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def literal(text: str) -> str:
    """A text constant for statements that take no parameters."""
    return "'" + text.replace("'", "''") + "'"
