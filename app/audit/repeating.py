"""Requests that make something, repeated with their key: it is made once, and found again in the audit of the first."""

import asyncio
import hashlib
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from app.audit.changes import Facts, on_the_wire
from app.audit.service import WAIT_FOR_FIRST, Deed, find_done_in, in_progress, record
from app.audit.words import Action, EntityKind
from app.canonical import canonical_json
from app.db.session import sqlstate

# The SQLSTATE of a lock that others have kept for too long.
_LOCKED = "55P03"


@dataclass(frozen=True, slots=True)
class Asked:
    """Somebody asks for something to be made, or changed so that doing it twice would not be the same.

    `action` is the audit's word, `kind` what comes of it, `about` what it is done to where that is there already.
    `request` has no secrets: of those there is a `fingerprint`.
    """

    action: Action
    kind: EntityKind
    actor: str | None
    key: str | None
    request: dict[str, Any]
    about: str | None = None

    def deed(self, subject_id: object = None, facts: Facts | None = None) -> Deed:
        """What the audit is told. Without a key the request is not kept: the facts say it."""
        made = None if subject_id is None else str(subject_id)
        deed = Deed(self.action, self.kind, made, self.actor, after=None if facts is None else on_the_wire(facts))
        if self.key is not None:
            deed.key = ":".join((self.action, *([] if self.about is None else [self.about]), self.key))
            deed.request = self.request
        return deed


async def find_made(session: AsyncSession, asked: Asked) -> str | None:
    """The id of what the same request, with the same key, has made before; None when it is still to be made.

    Of requests with one key that come together the second waits for the first. Raises IDEMPOTENCY_IN_PROGRESS when that
    takes too long, and IDEMPOTENCY_CONFLICT when the key was used for another request.

    What is made here is rows, in the caller's transaction: there is never half of it, and no event of the audit before.
    What goes on outside PostgreSQL is done under `audited_once` instead.
    """
    deed = asked.deed()
    if deed.key is None:
        return None
    await _take_turn(session, deed.key)
    done = await find_done_in(session, deed)
    return None if done is None else done.entity_id


async def _take_turn(session: AsyncSession, key: str) -> None:
    await session.execute(text(f"SET LOCAL lock_timeout = {round(WAIT_FOR_FIRST * 1000)}"))
    try:
        await session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(key, 0))))
    except DBAPIError as error:
        if sqlstate(error) != _LOCKED:
            raise
        raise in_progress() from error
    await session.execute(text("SET LOCAL lock_timeout = DEFAULT"))


async def record_made(session: AsyncSession, asked: Asked, subject_id: object, facts: Facts | None) -> None:
    """Writes down what was made, in the transaction that makes it; `facts` are by the names of columns."""
    await record(session, asked.deed(subject_id, facts))


async def fingerprint(request: dict[str, Any], key: str | None) -> dict[str, Any]:
    """What tells a request with secrets from another one, and not what the secrets are, even to who guesses them."""
    if key is None:
        return {}
    said, salt = canonical_json(request).encode(errors="replace"), key.encode(errors="replace")
    made = await asyncio.to_thread(hashlib.scrypt, said, salt=salt, n=2**14, r=8, p=1)
    return {"fingerprint": made.hex()}
