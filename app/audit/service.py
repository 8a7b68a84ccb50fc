"""The audit: who did what, written before it is done and completed with what came of it.

Written first, so that nothing is done unseen: when PostgreSQL is away, nothing is done, and when this process dies
in between, the event stays, with PENDING as its result.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import insert, literal, or_, select, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.canonical import canonical_json, digest
from app.contracts import readable
from app.db.session import Database
from app.db.tables import AuditEvent, new_id
from app.errors import AppError, Conflict, Unavailable
from app.untrusted import made_storable

log = structlog.get_logger(__name__)

PENDING = "PENDING"
DONE = "DONE"
UNKNOWN = "UNKNOWN"
# Bytes of JSON. A larger document is kept as its size and hash: the audit proves, it does not archive.
LARGEST_DOCUMENT = 16 * 1024

# What came of what was done, or may have been done: every other result is the code of a refusal.
_SETTLED = (DONE, "APPLIED", "UNCHANGED", "DELIVERED", "BUFFERED")
_OPEN = (PENDING, UNKNOWN)
_MAYBE = "%\\_UNAVAILABLE"


@dataclass(slots=True)
class Deed:
    """What somebody is about to do, and what comes of it; set `result`, `before` and `after` while it is done.

    `action` is a verb in upper case (CANCEL), `entity_kind` what it is done to (EXECUTION). `key` makes repetitions of
    it one: see `find_done`.
    """

    action: str
    entity_kind: str
    entity_id: str | None
    actor: str | None
    execution_id: UUID | None = None
    request: dict[str, Any] | None = None
    reason: str | None = None
    key: str | None = None
    result: str = DONE
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    id: UUID = field(default_factory=new_id)


def of_execution(
    action: str,
    execution_id: UUID,
    actor: str | None,
    request: dict[str, Any] | None = None,
    reason: str | None = None,
    key: str | None = None,
) -> Deed:
    """A deed on an execution."""
    return Deed(action, "EXECUTION", str(execution_id), actor, execution_id, request, reason, key)


async def find_done(database: Database, deed: Deed) -> AuditEvent | None:
    """The event of the same deed, done before under the same key; None when it is still to be done.

    Raises IDEMPOTENCY_CONFLICT when the key was used for something else. What was refused does not use a key up.
    """
    if deed.key is None:
        return None
    async with database.transaction() as session:
        return await find_done_in(session, deed)


async def find_done_in(session: AsyncSession, deed: Deed) -> AuditEvent | None:
    """Like `find_done`, in a transaction that is there already."""
    result = col(AuditEvent.result)
    # The database compares: it writes 1e30 as another number than it was given, which is equal to it there alone.
    asked = literal(_recorded(deed.request), JSONB(none_as_null=True))
    statement = (
        select(AuditEvent, col(AuditEvent.request).is_distinct_from(asked))
        .where(
            col(AuditEvent.execution_id) == deed.execution_id,
            col(AuditEvent.idempotency_key) == deed.key,
            or_(result.in_((*_SETTLED, *_OPEN)), result.like(_MAYBE)),
        )
        .order_by(col(AuditEvent.id))
    )
    found = (await session.execute(statement)).all()
    if any(differs for _, differs in found):
        raise Conflict("IDEMPOTENCY_CONFLICT", "The key was used for another request.")
    return next((event for event, _ in found if event.result in _SETTLED), None)


async def record(session: AsyncSession, deed: Deed) -> None:
    """Writes the event of a deed into the transaction that does it."""
    await session.execute(insert(AuditEvent).values(**_values(deed), id=deed.id, result=deed.result))


async def find_repeated(database: Database, deed: Deed) -> AuditEvent | None:
    """Like `find_done`; that somebody has asked again is audited, with what came of it the first time."""
    done = await find_done(database, deed)
    if done is not None:
        deed.result, deed.before, deed.after = done.result, done.before, done.after
        async with database.transaction() as session:
            await record(session, deed)
    return done


@asynccontextmanager
async def audited(database: Database, deed: Deed) -> AsyncIterator[Deed]:
    """Writes the event, lets the block do the deed, and writes what came of it: a refusal's code, too.

    Raises `Unavailable` before anything is done when the event cannot be written.
    """
    async with database.transaction() as session:
        await session.execute(insert(AuditEvent).values(**_values(deed), id=deed.id, result=PENDING))
    known = False
    try:
        yield deed
        known = True
    except AppError as error:
        known = True
        deed.result = error.code
        deed.reason = deed.reason or readable(error.message)
        raise
    finally:
        if not known:
            # A bug, or the caller has gone: nobody can say what came of it.
            deed.result = UNKNOWN
        await _complete(database, deed)


async def _complete(database: Database, deed: Deed) -> None:
    try:
        async with database.transaction() as session:
            statement = update(AuditEvent).where(col(AuditEvent.id) == deed.id)
            await session.execute(statement.values(**_values(deed), result=deed.result))
    except Unavailable as error:
        # The deed is done and its event exists; refusing it now would be a lie.
        log.warning("audit_event_left_pending", audit_event_id=str(deed.id), code=error.code)


def _values(deed: Deed) -> dict[str, Any]:
    return {
        "actor": deed.actor,
        "action": deed.action,
        "entity_kind": deed.entity_kind,
        "entity_id": deed.entity_id,
        "execution_id": deed.execution_id,
        "request": _recorded(deed.request),
        "before": _recorded(deed.before),
        "after": _recorded(deed.after),
        "reason": None if deed.reason is None else readable(deed.reason),
        "idempotency_key": deed.key,
    }


def _recorded(document: dict[str, Any] | None) -> dict[str, Any] | None:
    if document is None:
        return None
    size = len(canonical_json(document).encode(errors="replace"))
    if size > LARGEST_DOCUMENT:
        return {"omitted": True, "bytes": size, "sha256": digest(made_storable(document))}
    plain: dict[str, Any] = made_storable(document)
    return plain
