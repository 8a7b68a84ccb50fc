"""Blobs in PostgreSQL, in the table `payload_blob`."""

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.session import Database

# Rows are sorted by name, so that two of these never wait for each other. A row used within the last hour is left as
# it is: the purge counts in weeks, and a common value would otherwise be one hot row.
_WRITE = """
    INSERT INTO payload_blob (sha256, bytes, size)
    SELECT name, bytes, octet_length(bytes)
    FROM unnest({names}::text[], {blobs}::bytea[]) AS given(name, bytes)
    ORDER BY name
    ON CONFLICT (sha256) DO UPDATE SET last_used_at = now()
        WHERE payload_blob.last_used_at < now() - interval '1 hour'
"""
WRITE = _WRITE.format(names="$1", blobs="$2")
WRITE_IN_SESSION = text(_WRITE.format(names="CAST(:names AS text[])", blobs="CAST(:blobs AS bytea[])"))
READ = "SELECT sha256, bytes FROM payload_blob WHERE sha256 = ANY($1::text[])"


class PostgresBlobs:
    """Blobs over a pool of their own: whoever holds a connection while it starts a run never waits for a second."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def write(self, blobs: Mapping[str, bytes]) -> None:
        """Stores what is not there; committed when this returns. Raises `Unavailable`."""
        async with self._database.driver() as connection:
            await connection.execute(WRITE, list(blobs), list(blobs.values()))

    async def read(self, names: Collection[str]) -> dict[str, bytes]:
        """What there is of these. Raises `Unavailable`."""
        async with self._database.driver() as connection:
            rows: list[Any] = await connection.fetch(READ, list(names))
        return {row[0]: row[1] for row in rows}


async def write_blobs(session: AsyncSession, blobs: Mapping[str, bytes]) -> None:
    """The same within a transaction; the blobs are there for others once it is committed."""
    if blobs:
        await session.execute(WRITE_IN_SESSION, {"names": list(blobs), "blobs": list(blobs.values())})
