"""Questions about what workers can run, and the one way it is written."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.db.tables import Action, new_id


@dataclass(frozen=True, slots=True)
class ActionRegistration:
    """An action as a worker announces it; the schemas are JSON Schema."""

    key: str
    version: str
    parameters_schema: dict[str, Any]
    output_schema: dict[str, Any] | None = None
    description: str | None = None
    policies: dict[str, Any] = field(default_factory=dict)


async def upsert_actions(session: AsyncSession, entries: Collection[ActionRegistration]) -> None:
    """Writes what a worker can run, in one statement; what other workers announced stays."""
    if not entries:
        return
    rows = [
        {
            "id": new_id(),
            "key": entry.key,
            "version": entry.version,
            "description": entry.description,
            "parameters_schema": entry.parameters_schema,
            "output_schema": entry.output_schema,
            "policies": entry.policies,
        }
        # Two workers that start together must take the rows' locks in one order.
        for entry in sorted(entries, key=lambda entry: entry.key)
    ]
    statement = insert(Action).values(rows)
    changed = {
        name: statement.excluded[name]
        for name in ("version", "description", "parameters_schema", "output_schema", "policies")
    }
    await session.execute(
        statement.on_conflict_do_update(index_elements=["key"], set_=changed | {"updated_at": func.now()})
    )


async def list_actions(session: AsyncSession) -> Sequence[Action]:
    """Every action, by key."""
    return (await session.execute(select(Action).order_by(col(Action.key)))).scalars().all()


async def find_action(session: AsyncSession, key: str) -> Action | None:
    """An action by its key."""
    return (await session.execute(select(Action).where(col(Action.key) == key))).scalar_one_or_none()


async def find_actions(session: AsyncSession, keys: Collection[str]) -> Sequence[Action]:
    """Those of these actions that exist."""
    return (await session.execute(select(Action).where(col(Action.key).in_(keys)))).scalars().all()
