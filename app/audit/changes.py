"""The audit of what is changed in rows: written by the transaction that changes them, so that neither is without the
other. What is refused changes nothing, and is not here.
"""

from typing import Any

from pydantic.alias_generators import to_camel
from sqlalchemy.ext.asyncio import AsyncSession

from app.audit.service import Deed, record

Facts = dict[str, Any]


async def record_change(
    session: AsyncSession,
    action: str,
    subject: tuple[str, object],
    actor: str | None,
    before: Facts | None,
    after: Facts | None,
) -> None:
    """Writes down a change of a subject (its kind, its id): what there was `before` and is there `after`, by the names
    of columns, None for what was not there. Of a subject that stays only what has changed is kept, and nothing is
    written when nothing has.
    """
    if before is not None and after is not None:
        differing = {name for name in before | after if before.get(name) != after.get(name)}
        if not differing:
            return
        before = {name: value for name, value in before.items() if name in differing}
        after = {name: value for name, value in after.items() if name in differing}
    kind, subject_id = subject
    await record(
        session, Deed(action, kind, str(subject_id), actor, before=on_the_wire(before), after=on_the_wire(after))
    )


def on_the_wire(facts: Facts | None) -> Facts | None:
    """Facts by the names that users know."""
    return None if facts is None else {to_camel(name): value for name, value in facts.items()}
