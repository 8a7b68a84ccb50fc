"""Questions about triggers of the registry: one function for each."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.db.event_tables import TriggerDefinition
from app.db.statuses import EventSource, TriggerCategory


@dataclass(frozen=True, slots=True)
class TriggerFilter:
    """What a list of triggers is narrowed to; `text` is looked for in key, name and description."""

    source: EventSource | None = None
    category: TriggerCategory | None = None
    text: str | None = None


async def find_trigger(session: AsyncSession, key: str, *, lock: bool = False) -> TriggerDefinition | None:
    """A trigger by its key; with `lock` nobody else changes it before this transaction ends."""
    statement = select(TriggerDefinition).where(col(TriggerDefinition.key) == key)
    if lock:
        statement = statement.with_for_update().execution_options(populate_existing=True)
    return (await session.execute(statement)).scalar_one_or_none()


async def list_triggers(
    session: AsyncSession, wanted: TriggerFilter, *, after: str | None, limit: int
) -> Sequence[TriggerDefinition]:
    """Triggers by key, those after a key."""
    key = col(TriggerDefinition.key)
    statement = select(TriggerDefinition)
    if wanted.source is not None:
        statement = statement.where(col(TriggerDefinition.source) == wanted.source)
    if wanted.category is not None:
        statement = statement.where(col(TriggerDefinition.category) == wanted.category)
    if wanted.text is not None:
        searched = (key, col(TriggerDefinition.name), col(TriggerDefinition.description))
        statement = statement.where(or_(*(column.icontains(wanted.text, autoescape=True) for column in searched)))
    if after is not None:
        statement = statement.where(key > after)
    return (await session.execute(statement.order_by(key).limit(limit))).scalars().all()
