"""One engine for a process, and transactions on it; what the driver throws is translated here, once."""

import asyncio
import copy
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext, suppress
from typing import Any, Self, TypeAlias

import asyncpg
from asyncpg.exceptions import InterfaceError, PostgresError
from sqlalchemy import event, text
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from app.errors import AppError, Conflict, Invalid, Unavailable
from app.settings import DatabaseSettings

DRIVER = "postgresql+asyncpg"
LONGEST_STATEMENT = 15.0
# Seconds that a statement has to stop in, which nobody waits for any more.
_STOPPED_WITHIN = 2.0
# What is the matter with Millrace's own database, and not with one of users.
UNAVAILABLE, BUSY = "DATABASE_UNAVAILABLE", "DATABASE_BUSY"

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


class Database:
    """The database of one process. `url` is any PostgreSQL URL; the driver is always asyncpg."""

    def __init__(self, url: str, settings: DatabaseSettings | None = None) -> None:
        settings = settings or DatabaseSettings()
        self.url = driver_url(url)
        self.engine = create_async_engine(
            self.url,
            # What is opened stays open, and the last one used is used first: to open one takes longer than to accept an
            # event, and one that was used a moment ago knows the tables and the statements.
            pool_size=settings.pool_size,
            max_overflow=0,
            pool_use_lifo=True,
            pool_timeout=settings.connect_timeout,
            connect_args={"timeout": settings.connect_timeout, "command_timeout": LONGEST_STATEMENT},
        )
        event.listen(self.engine.sync_engine, "checkout", _refuse_closed)
        self._connect_within = settings.connect_timeout
        self._closed = asyncio.Event()
        self._turn: AbstractAsyncContextManager[Any] = nullcontext()
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False, autoflush=False)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """A session whose transaction is committed when the block ends, and rolled back when it raises.

        Raises `Unavailable` when PostgreSQL cannot be reached, `Conflict` when a constraint refuses the
        change and nobody nearer explained it, `Invalid` for a value that PostgreSQL cannot hold.
        """
        self._check_open()
        with translated():
            async with self._turn, self._sessions.begin() as session:
                yield session

    @asynccontextmanager
    async def driver(self) -> AsyncIterator[Connection]:
        """The driver's own connection: each statement is a transaction, unless one is opened on it.

        For the statements that callers of a trigger wait for, where the ORM would cost more than PostgreSQL does.
        Raises what `transaction` raises.
        """
        self._check_open()
        with translated():
            async with self._turn:
                pooled = await self.engine.raw_connection()
                driver = pooled.driver_connection
                assert driver is not None
                try:
                    yield driver
                except (asyncio.CancelledError, TimeoutError):
                    # In the middle of a statement, perhaps of a BEGIN: then the driver would take what the next user of
                    # the connection commits for a part of that transaction, and never commit it. Closing stops the
                    # statement, too, where `terminate` leaves it to run on with its locks.
                    with suppress(OSError, TimeoutError, InterfaceError, PostgresError):
                        await driver.close(timeout=_STOPPED_WITHIN)
                    raise
                finally:
                    if driver.is_closed():
                        pooled.invalidate()
                    # Nothing here has been done through SQLAlchemy, so it has nothing to end, and no need to wait.
                    pooled.close()

    @asynccontextmanager
    async def listening(self, channel: str, heard: Callable[[], None]) -> AsyncIterator[asyncio.Event]:
        """Calls `heard` for each notification on a channel; the event is set when the connection is lost.

        On a connection of its own, which is closed in the end. Raises `Unavailable`.
        """
        self._check_open()
        with translated():
            async with self.engine.connect() as connection:
                pooled = await connection.get_raw_connection()
                driver = pooled.driver_connection
                assert driver is not None
                pooled.detach()
                lost = asyncio.Event()
                driver.add_termination_listener(lambda _: lost.set())
                try:
                    await driver.add_listener(channel, lambda *_: heard())
                    yield lost
                finally:
                    await driver.close(timeout=1)

    async def detached(self) -> Connection:
        """A connection beside the pool, which the caller closes: for what is held for long. Raises `Unavailable`."""
        self._check_open()
        with translated():
            connection: Connection = await asyncpg.connect(
                **driver_options(self.url), timeout=self._connect_within, command_timeout=LONGEST_STATEMENT
            )
        return connection

    def share(self, at_once: int) -> Self:
        """The same database for work in the background, which has `at_once` of the pool's connections at most.

        Who comes when all of them are in use waits, however long that takes: in the pool's own queue he would stand
        before those who answer requests, and be refused after seconds.
        """
        part = copy.copy(self)
        part._turn = asyncio.Semaphore(at_once)
        return part

    async def ping(self) -> None:
        """Raises `Unavailable` when PostgreSQL does not answer."""
        async with self.transaction() as session:
            await session.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Gives every connection back, for good: whoever asks for one afterwards is refused with `Unavailable`."""
        self._closed.set()
        await self.engine.dispose()

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise unreachable()


@contextmanager
def translated() -> Iterator[None]:
    """Raises what a failure of the database means to users; what means nothing to them passes as it is."""
    try:
        yield
    except (OSError, TimeoutError, PoolTimeout, InterfaceError) as error:
        raise unreachable() from error
    except DBAPIError as error:
        meaning = unreachable() if error.connection_invalidated else _meaning(sqlstate(error))
        if meaning is None:
            raise
        raise meaning from error
    except PostgresError as error:
        meaning = _meaning(str(error.sqlstate or ""))
        if meaning is None:
            raise
        raise meaning from error


def _refuse_closed(connection: Any, *_: object) -> None:
    """A pooled connection that PostgreSQL has closed meanwhile is replaced, instead of failing its next user."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError


def driver_url(url: str) -> str:
    """The URL with asyncpg as its driver; `postgres://…` and `postgresql://…` are taken too."""
    if url.startswith("postgres://"):
        url = "postgresql" + url.removeprefix("postgres")
    return make_url(url).set(drivername=DRIVER).render_as_string(hide_password=False)


def driver_options(url: str) -> dict[str, Any]:
    """What asyncpg is to be called with for a URL in SQLAlchemy's words. Raises what SQLAlchemy does of others."""
    _, options = PGDialect_asyncpg().create_connect_args(make_url(url))  # type: ignore[no-untyped-call]
    return {name: value for name, value in options.items() if not name.startswith("prepared_statement")}


def unreachable() -> Unavailable:
    """What users are told while PostgreSQL cannot be reached."""
    return Unavailable(UNAVAILABLE, "The database cannot be reached. Nothing was stored.")


def sqlstate(error: DBAPIError) -> str:
    """The five letters PostgreSQL gave, or nothing when it gave none."""
    return str(getattr(error.orig, "sqlstate", None) or "")


def _meaning(state: str) -> AppError | None:
    """What an error with this SQLSTATE is to users; None when it is a bug."""
    match state[:2]:
        case "08" | "28" | "3D" | "53" | "57":
            # Connections, authorisation, no such database, resources, intervention: nothing a caller could mend.
            return unreachable()
        case "40":
            # A deadlock, or two that cannot both have been first: whoever comes again finds the other done.
            return Unavailable(BUSY, "Others were changing the same at that moment. Nothing was stored.")
        case "23":
            return Conflict("CONFLICT", "The change contradicts what is stored, perhaps since a moment ago.")
        case "22":
            return Invalid("VALUE_NOT_STORABLE", "A value in the request cannot be stored.")
        case _:
            return None
