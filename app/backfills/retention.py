"""Old backfills lose their rows, which hold what their sources held; how many there were of each status stays."""

from datetime import datetime

from app.db.session import Database

# Rows that one statement deletes: a backfill may have more of them than one statement has time for.
AT_ONCE = 20_000

_OVER = "status IN ('COMPLETED', 'CANCELLED', 'FAILED') AND ended_at < $1 AND rows_deleted_at IS NULL"
OLD = f"SELECT id FROM backfill WHERE {_OVER} ORDER BY ended_at, id"
COUNT_ROWS = f"SELECT count(*) FROM backfill_row WHERE backfill_id IN ({OLD})"
# The lock keeps a retry from beginning meanwhile; one that has begun makes the backfill RUNNING.
# What it is judged by stands in the statement itself: of a subquery PostgreSQL would not ask again after waiting.
STILL_OLD = f"SELECT id FROM backfill WHERE {_OVER} AND id = $2 FOR UPDATE"
NOTE = """
    UPDATE backfill SET rows_deleted_at = now(), row_counts = coalesce(
        (SELECT jsonb_object_agg(status, count) FROM (
            SELECT status, count(*) FROM backfill_row WHERE backfill_id = $1 GROUP BY status
        ) AS counted), '{}')
    WHERE id = $1
"""
DELETE = """
    DELETE FROM backfill_row WHERE backfill_id = $1 AND number IN (
        SELECT number FROM backfill_row WHERE backfill_id = $1 ORDER BY number LIMIT $2
    )
"""
LEFT_OVER = """
    SELECT id FROM backfill WHERE rows_deleted_at IS NOT NULL
        AND EXISTS (SELECT FROM backfill_row WHERE backfill_id = backfill.id)
"""


async def count_old_rows(database: Database, before: datetime) -> int:
    """How many rows a purge would delete."""
    async with database.driver() as connection:
        return int(await connection.fetchval(COUNT_ROWS, before))


async def delete_old_rows(database: Database, before: datetime) -> int:
    """Deletes the rows of backfills that were over before a moment; how many. What they started stays.

    Their counts are written down first, so that a kill in between leaves rows to delete and nothing else.
    """
    deleted = 0
    async with database.driver() as connection:
        for record in await connection.fetch(OLD, before):
            async with connection.transaction():
                if await connection.fetchval(STILL_OLD, before, record["id"]) is not None:
                    await connection.execute(NOTE, record["id"])
        for record in await connection.fetch(LEFT_OVER):
            while count := int((await connection.execute(DELETE, record["id"], AT_ONCE)).rpartition(" ")[2]):
                deleted += count
    return deleted
