"""Questions about endpoints of webhooks, and the counts of what came in at them."""

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.db.event_tables import WebhookEndpoint, WebhookTally
from app.db.session import Connection

_CHOOSING_A_KEY = "WEBHOOK_TRIGGER_KEY"


async def find_endpoint(session: AsyncSession, endpoint_id: UUID, *, lock: bool = False) -> WebhookEndpoint | None:
    """An endpoint; with `lock` nobody else changes it before this transaction ends."""
    statement = select(WebhookEndpoint).where(col(WebhookEndpoint.id) == endpoint_id)
    if lock:
        statement = statement.with_for_update().execution_options(populate_existing=True)
    return (await session.execute(statement)).scalar_one_or_none()


async def list_endpoints(
    session: AsyncSession, *, trigger_key: str | None, before: UUID | None, limit: int
) -> Sequence[WebhookEndpoint]:
    """Endpoints, the newest first, from below `before`."""
    statement = select(WebhookEndpoint)
    if trigger_key is not None:
        statement = statement.where(col(WebhookEndpoint.trigger_key) == trigger_key)
    if before is not None:
        statement = statement.where(col(WebhookEndpoint.id) < before)
    return (await session.execute(statement.order_by(col(WebhookEndpoint.id).desc()).limit(limit))).scalars().all()


async def list_endpoints_of(session: AsyncSession, trigger_key: str) -> Sequence[WebhookEndpoint]:
    """Every endpoint whose events are of a trigger."""
    statement = select(WebhookEndpoint).where(col(WebhookEndpoint.trigger_key) == trigger_key)
    return (await session.execute(statement.order_by(col(WebhookEndpoint.id)))).scalars().all()


async def find_keys(session: AsyncSession, stem: str) -> frozenset[str]:
    """The keys of endpoints' triggers that begin so; until this transaction ends nobody else asks for any."""
    await session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(_CHOOSING_A_KEY, 0))))
    key = col(WebhookEndpoint.trigger_key)
    return frozenset((await session.execute(select(key).where(key.startswith(stem, autoescape=True)))).scalars())


async def list_tallies(session: AsyncSession, endpoint_ids: Collection[UUID]) -> Sequence[WebhookTally]:
    """What became of what came in at these endpoints."""
    statement = select(WebhookTally).where(col(WebhookTally.endpoint_id).in_(endpoint_ids))
    return (await session.execute(statement.order_by(col(WebhookTally.last_at)))).scalars().all()


async def find_candidates(session: AsyncSession, path: str, segments: int) -> Sequence[WebhookEndpoint]:
    """Every endpoint that may match a path of so many segments."""
    shape, wild = col(WebhookEndpoint.shape), col(WebhookEndpoint.wild)
    count, open_ended = col(WebhookEndpoint.segments), col(WebhookEndpoint.open_ended)
    literal = select(WebhookEndpoint).where(shape == path, ~wild)
    statement = select(WebhookEndpoint).where(wild, (count == segments) | (open_ended & (count < segments)))
    exact = (await session.execute(literal)).scalars().all()
    # Text says more than any wildcard, so that nothing else need be looked at.
    return exact or (await session.execute(statement)).scalars().all()


TAKE_ALLOWANCE = """
    UPDATE webhook_endpoint
    SET allowance = greatest(allowance, clock_timestamp()) + make_interval(secs => $2)
    WHERE id = $1
        AND greatest(allowance, clock_timestamp()) + make_interval(secs => $2)
            <= clock_timestamp() + make_interval(secs => $3)
    RETURNING set_config('synchronous_commit', 'off', true)
"""
READ_ALLOWANCE = """
    SELECT extract(epoch FROM allowance - clock_timestamp())::float8 FROM webhook_endpoint WHERE id = $1
"""
# The commit need not wait for the disk: a crash may lose a count, and nobody waits for it.
COUNT = """
    INSERT INTO webhook_tally AS tally (endpoint_id, result, count, last_at)
    SELECT id, $2, 1, clock_timestamp() FROM webhook_endpoint WHERE id = $1
    ON CONFLICT (endpoint_id, result) DO UPDATE SET count = tally.count + 1, last_at = excluded.last_at
    RETURNING set_config('synchronous_commit', 'off', true)
"""


async def take_allowance(connection: Connection, endpoint_id: UUID, rate_limit: dict[str, Any]) -> float | None:
    """Uses up the share of one request; the seconds to wait when there is none left, else None.

    The allowance refills evenly and is never more than the limit (GCRA), in one row for all processes.
    """
    period = float(rate_limit["seconds"])
    share = period / int(rate_limit["requests"])
    # Half a share more, so that rounded shares still add up to the whole.
    if await connection.fetchrow(TAKE_ALLOWANCE, endpoint_id, share, period + share / 2) is not None:
        return None
    used = await connection.fetchval(READ_ALLOWANCE, endpoint_id)
    return max((used or 0.0) + share - period, 0.0)


async def count(connection: Connection, endpoint_id: UUID, result: str) -> None:
    """Counts what became of one request."""
    await connection.execute(COUNT, endpoint_id, result)
