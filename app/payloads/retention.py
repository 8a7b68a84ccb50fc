"""Which stored values nobody can need any more, and their end.

A value is referred to only from histories, and a reference is written in two ways: a process stores the value, which
sets `last_used_at` (at most an hour late, see `KNOWN_FOR`), or a run hands on a reference it was given itself: to its
children, or to its next run when it continues as new. Whoever hands one on belongs to the same hierarchy, so every
reference within a hierarchy goes back to a use of the value after its root's row was written. So a value whose last
use is older than the oldest root that still matters cannot be referred to by it or by any of its descendants.

A root matters while an execution under it is open, and for `keep` after one has ended: until then Temporal may still
show the history, and a dead letter may be retried. One very old open execution therefore keeps every value used since
it began; what is deleted too late costs disk, what is deleted too early costs a run.
"""

from datetime import datetime, timedelta

from sqlalchemy import text
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest

from app.db.session import Database
from app.settings import PayloadSettings
from app.temporal import Temporal, translated

# Between a root's row and the uses of values under it lie the hour for which a process trusts what it has stored, and
# whatever clocks disagree by.
SLACK = timedelta(days=1)
# What Temporal deletes, it deletes some time after its retention.
MARGIN = timedelta(days=7)
BATCH = 500

HORIZON = text("""
    SELECT least(now() - CAST(:keep AS interval), min(root.created_at) - CAST(:slack AS interval))
    FROM workflow_execution AS execution
    JOIN workflow_execution AS root ON root.id = execution.root_id
    WHERE execution.status IN ('CREATED', 'STARTED') OR execution.ended_at > now() - CAST(:keep AS interval)
""")
# The condition stands twice: a value may be used again after it was chosen, and before it is deleted.
DELETE = text("""
    DELETE FROM payload_blob
    WHERE last_used_at < :horizon
        AND sha256 IN (SELECT sha256 FROM payload_blob WHERE last_used_at < :horizon LIMIT :batch)
""")


COUNT = text("SELECT count(*), coalesce(sum(size), 0) FROM payload_blob WHERE last_used_at < :horizon")


async def count_purgeable(database: Database, keep: timedelta) -> tuple[int, int]:
    """How many values `purge_blobs` would delete now, and their bytes. Raises what that raises."""
    horizon = await _horizon(database, keep)
    async with database.transaction() as session:
        count, size = (await session.execute(COUNT, {"horizon": horizon})).one()
    return int(count), int(size)


async def purge_blobs(database: Database, keep: timedelta) -> int:
    """Deletes values last used more than `keep` ago that no execution that matters can refer to; how many.

    `keep` must be longer than Temporal's retention and the life of a dead letter. Raises ValueError below two days,
    `Unavailable` when PostgreSQL cannot be reached.
    """
    horizon = await _horizon(database, keep)
    deleted = 0
    while True:
        async with database.transaction() as session:
            found = await session.execute(DELETE, {"horizon": horizon, "batch": BATCH})
            count: int = found.rowcount  # type: ignore[attr-defined]
        deleted += count
        if count < BATCH:
            return deleted


async def _horizon(database: Database, keep: timedelta) -> datetime:
    """Values last used before this time are of no use to any execution that matters."""
    if keep < 2 * SLACK:
        raise ValueError("values must be kept for two days at least")
    async with database.transaction() as session:
        found: datetime = (await session.execute(HORIZON, {"keep": keep, "slack": SLACK})).scalar_one()
    return found


async def keep_for(temporal: Temporal, settings: PayloadSettings) -> timedelta:
    """How long values are kept: as configured, and never shorter than Temporal keeps histories.

    Raises `Unavailable` when Temporal cannot be reached.
    """
    client = await temporal.client()
    with translated():
        answer = await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace=client.namespace))
    retention = answer.config.workflow_execution_retention_ttl.ToTimedelta()
    return max(timedelta(days=settings.keep_days), retention + MARGIN)
