"""One engine for a process, and transactions on it; what the driver throws is translated here, once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from app.errors import AppError, Conflict, Invalid, Unavailable
from app.settings import DatabaseSettings

DRIVER = "postgresql+asyncpg"
LONGEST_STATEMENT = 15.0

# SQLSTATE classes: connection exceptions, insufficient resources, operator intervention.
_UNREACHABLE = ("08", "53", "57")
_DATA_EXCEPTION = "22"


class Database:
    """The database of one process. `url` is any PostgreSQL URL; the driver is always asyncpg."""

    def __init__(self, url: str, settings: DatabaseSettings | None = None) -> None:
        settings = settings or DatabaseSettings()
        self.engine = create_async_engine(
            driver_url(url),
            pool_size=settings.pool_size,
            max_overflow=settings.pool_size,
            pool_timeout=settings.connect_timeout,
            connect_args={"timeout": settings.connect_timeout, "command_timeout": LONGEST_STATEMENT},
        )
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False, autoflush=False)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """A session whose transaction is committed when the block ends, and rolled back when it raises.

        Raises `Unavailable` when PostgreSQL cannot be reached, `Conflict` when a constraint refuses the
        change and nobody nearer explained it, `Invalid` for a value that PostgreSQL cannot hold.
        """
        try:
            async with self._sessions.begin() as session:
                yield session
        except (OSError, TimeoutError, PoolTimeout) as error:
            raise unreachable() from error
        except DBAPIError as error:
            raise _translated(error) from error

    async def ping(self) -> None:
        """Raises `Unavailable` when PostgreSQL does not answer."""
        async with self.transaction() as session:
            await session.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Gives every connection back."""
        await self.engine.dispose()


def driver_url(url: str) -> str:
    """The URL with asyncpg as its driver; `postgres://…` and `postgresql://…` are taken too."""
    if url.startswith("postgres://"):
        url = "postgresql" + url.removeprefix("postgres")
    return make_url(url).set(drivername=DRIVER).render_as_string(hide_password=False)


def unreachable() -> Unavailable:
    """What users are told while PostgreSQL cannot be reached."""
    return Unavailable("DATABASE_UNAVAILABLE", "The database cannot be reached. Nothing was stored.")


def sqlstate(error: DBAPIError) -> str:
    """The five letters PostgreSQL gave, or nothing when it gave none."""
    return str(getattr(error.orig, "sqlstate", None) or "")


def _translated(error: DBAPIError) -> AppError | DBAPIError:
    state = sqlstate(error)
    if error.connection_invalidated or state[:2] in _UNREACHABLE:
        return unreachable()
    if isinstance(error, IntegrityError):
        return Conflict("CONFLICT", "The change contradicts what is stored, perhaps since a moment ago.")
    if state.startswith(_DATA_EXCEPTION):
        return Invalid("VALUE_NOT_STORABLE", "A value in the request cannot be stored.")
    return error
