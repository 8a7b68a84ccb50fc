"""Questions about subscriptions: one function for each."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.db.event_tables import Subscription, TriggerEvent
from app.db.statuses import SubscriptionStatus
from app.db.tables import WorkflowTemplate

SubscriptionAndTemplate = tuple[Subscription, WorkflowTemplate]


@dataclass(frozen=True, slots=True)
class SubscriptionFilter:
    """What a list of subscriptions is narrowed to."""

    template_id: UUID | None = None
    trigger_key: str | None = None
    status: SubscriptionStatus | None = None


async def find_subscription(
    session: AsyncSession, subscription_id: UUID, *, lock: bool = False
) -> SubscriptionAndTemplate | None:
    """A subscription with its template; with `lock` nobody else changes it before this transaction ends."""
    statement = _subscriptions().where(col(Subscription.id) == subscription_id)
    if lock:
        statement = statement.with_for_update(of=Subscription).execution_options(populate_existing=True)
    row = (await session.execute(statement)).one_or_none()
    return None if row is None else (row[0], row[1])


async def list_subscriptions(
    session: AsyncSession, wanted: SubscriptionFilter, *, before: UUID | None, limit: int | None
) -> Sequence[SubscriptionAndTemplate]:
    """Subscriptions with their templates, the newest first, from below `before`."""
    statement = _subscriptions()
    for column, value in (
        (col(Subscription.template_id), wanted.template_id),
        (col(Subscription.trigger_key), wanted.trigger_key),
        (col(Subscription.status), wanted.status),
    ):
        if value is not None:
            statement = statement.where(column == value)
    if before is not None:
        statement = statement.where(col(Subscription.id) < before)
    statement = statement.order_by(col(Subscription.id).desc()).limit(limit)
    return [(row[0], row[1]) for row in await session.execute(statement)]


async def find_event(session: AsyncSession, event_id: UUID) -> TriggerEvent | None:
    """An event of the inbox."""
    return await session.get(TriggerEvent, event_id)


def _subscriptions() -> Select[Subscription, WorkflowTemplate]:
    return select(Subscription, WorkflowTemplate).join(
        WorkflowTemplate, col(WorkflowTemplate.id) == Subscription.template_id
    )
