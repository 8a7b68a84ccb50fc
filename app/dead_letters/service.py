"""What can be done with dead letters, beside retrying the execution."""

from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from app.audit.service import Deed, record
from app.dead_letters.queries import count_dead_letters, delete_dead_letters, find_dead_letter_row
from app.dead_letters.schemas import PurgeRequest
from app.errors import Invalid, NotFound


async def check_dead_letter(session: AsyncSession, execution_id: UUID) -> None:
    """Raises DEAD_LETTER_NOT_FOUND unless the execution has left one."""
    if await find_dead_letter_row(session, execution_id) is None:
        raise NotFound("dead letter", f"of execution {execution_id}")


async def purge(session: AsyncSession, request: PurgeRequest, actor: str | None) -> int:
    """Deletes dead letters; how many. Their executions can then be retried only while Temporal remembers the run.

    Raises PURGE_UNBOUNDED when neither a time nor executions are named.
    """
    if request.created_before is None and request.execution_ids is None:
        raise Invalid("PURGE_UNBOUNDED", "Say which: createdBefore, executionIds, or both.")
    before = request.created_before or datetime.now(UTC)
    if request.dry_run:
        return await count_dead_letters(session, before, request.execution_ids)
    purged = await delete_dead_letters(session, before, request.execution_ids)
    said = request.model_dump(mode="json", by_alias=True, exclude={"reason", "dry_run"}, exclude_unset=True)
    deed = Deed("PURGE_DEAD_LETTERS", "DEAD_LETTER", None, actor, request=said, reason=request.reason)
    deed.after = {"purged": purged}
    await record(session, deed)
    return purged
