"""The audit: who did what, written before it is done and completed with what came of it.

Written first, so that nothing is done unseen: when PostgreSQL is away, nothing is done, and when this process dies
in between, the event stays, with PENDING as its result.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import func, insert, literal, or_, select, text, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.audit.words import Action, EntityKind
from app.canonical import canonical_json, digest
from app.contracts import readable
from app.db.columns import OPEN_KEY, OPEN_KEYS
from app.db.session import Database
from app.db.tables import AuditEvent, new_id
from app.errors import AppError, Conflict, Unavailable
from app.untrusted import made_storable

log = structlog.get_logger(__name__)

PENDING = "PENDING"
DONE = "DONE"
UNKNOWN = "UNKNOWN"
REPEATED = "REPEATED"
# Bytes of JSON. A larger document is kept as its size and hash: the audit proves, it does not archive.
LARGEST_DOCUMENT = 16 * 1024

# What came of what was done, or may have been done: every other result is the code of a refusal.
_SETTLED = (DONE, "APPLIED", "UNCHANGED", "DELIVERED", "BUFFERED")
_OPEN = (PENDING, UNKNOWN)
_MAYBE = "%\\_UNAVAILABLE"

# Seconds until whoever repeats a request is told that the first is still being carried out.
WAIT_FOR_FIRST = 5.0
_SOON, _SELDOM = 0.02, 0.5
# No deed takes so long: what has begun before has died.
ABANDONED = timedelta(minutes=1)


@dataclass(slots=True)
class Deed:
    """What somebody is about to do, and what comes of it; set `result`, `before` and `after` while it is done.

    `action` is a verb in upper case (CANCEL), `entity_kind` what it is done to (EXECUTION). `key` makes repetitions of
    it one: see `audited_once`.
    """

    action: Action
    entity_kind: EntityKind
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
    action: Action,
    execution_id: UUID,
    actor: str | None,
    request: dict[str, Any] | None = None,
    reason: str | None = None,
    key: str | None = None,
) -> Deed:
    """A deed on an execution."""
    return Deed(action, "EXECUTION", str(execution_id), actor, execution_id, request, reason, key)


async def record(session: AsyncSession, deed: Deed) -> None:
    """Writes the event of a deed into the transaction that does it."""
    await session.execute(insert(AuditEvent).values(**_values(deed), id=deed.id, result=deed.result))


@asynccontextmanager
async def audited(database: Database, deed: Deed) -> AsyncIterator[Deed]:
    """Writes the event, lets the block do the deed, and writes what came of it: a refusal's code, too.

    Raises `Unavailable` before anything is done when the event cannot be written.
    """
    async with database.transaction() as session:
        await session.execute(insert(AuditEvent).values(**_values(deed), id=deed.id, result=PENDING))
    async with _completed(database, deed):
        yield deed


@asynccontextmanager
async def audited_once(database: Database, deed: Deed) -> AsyncIterator[AuditEvent | None]:
    """Like `audited`, for a deed that may have a key: what has the same key and is done to the same is done one after
    the other, and once. Hands the block None when it is to do the deed, or the event of the deed that was done before;
    that somebody has asked again is then in the audit already, as REPEATED.

    Whoever comes while it is being done waits for that. Raises IDEMPOTENCY_IN_PROGRESS when it takes too long, and
    IDEMPOTENCY_CONFLICT when the key was used for something else. What was refused does not use a key up.
    """
    if deed.key is None:
        async with audited(database, deed):
            yield None
        return
    done = await _claim(database, deed)
    if done is not None:
        yield done
        return
    async with _completed(database, deed):
        yield None


async def _claim(database: Database, deed: Deed) -> AuditEvent | None:
    """Writes the event, as the only one that is PENDING under its key; or finds that the deed was done before."""
    deadline, wait = time.monotonic() + WAIT_FOR_FIRST, _SOON
    while True:
        async with database.transaction() as session:
            claimed, done = await _try_to_claim(session, deed)
        if claimed:
            return done
        if time.monotonic() >= deadline:
            raise in_progress()
        await asyncio.sleep(wait)
        wait = min(wait * 2, _SELDOM)


def in_progress() -> Conflict:
    """What whoever repeats a request is told when the first takes too long."""
    return Conflict("IDEMPOTENCY_IN_PROGRESS", "A request with this key is being carried out. Ask again.")


async def _try_to_claim(session: AsyncSession, deed: Deed) -> tuple[bool, AuditEvent | None]:
    """Whether the key is the deed's now, and the event of the same deed that was done before."""
    mine = (
        col(AuditEvent.entity_kind) == deed.entity_kind,
        col(AuditEvent.entity_id) == deed.entity_id,
        col(AuditEvent.idempotency_key) == deed.key,
    )
    # Whoever began it has died over it: nobody can say what came of it.
    dead = (col(AuditEvent.result) == PENDING, col(AuditEvent.at) < func.now() - ABANDONED)
    await session.execute(update(AuditEvent).where(*mine, *dead).values(result=UNKNOWN))
    claim = (
        upsert(AuditEvent)
        .values(**_values(deed), id=deed.id, result=PENDING)
        .on_conflict_do_nothing(index_elements=OPEN_KEY, index_where=text(OPEN_KEYS))
        .returning(col(AuditEvent.id))
    )
    claimed = (await session.execute(claim)).scalar_one_or_none() is not None
    # Only now, when nobody else can be at it: a moment ago somebody might just have ended.
    done = await find_done_in(session, deed)
    if claimed and done is not None:
        again = {"result": REPEATED, "before": done.before, "after": done.after}
        await session.execute(update(AuditEvent).where(col(AuditEvent.id) == deed.id).values(**again))
    return claimed, done


async def find_done_in(session: AsyncSession, deed: Deed) -> AuditEvent | None:
    """The event of the same deed, done before under the same key; None when it is still to be done.

    Raises IDEMPOTENCY_CONFLICT when the key was used, or is being used, for something else.
    """
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


@asynccontextmanager
async def _completed(database: Database, deed: Deed) -> AsyncIterator[None]:
    """Writes what came of the deed, however the block ends."""
    known = False
    try:
        yield
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
