"""How many executions may be started, and be open, at once: of a template, and of all.

Whoever writes an execution that a limit is about holds that limit's advisory lock until the commit, and counts rows
under it. So no two can take the last place, and there is no counter that could be wrong: a row that is closed, by
whatever, has made room. What no limit is about costs nothing.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from app.db.session import Connection
from app.db.statuses import AtRest
from app.errors import AppError, Postponed, TooMany
from app.executions.queries import Target
from app.inbox.queueing import QUEUED
from app.settings import LimitSettings

RATE_LIMITED = "RATE_LIMITED"
CONCURRENCY_LIMITED = "CONCURRENCY_LIMITED"
# Seconds. Nobody knows when an execution ends.
SOON = 5.0

LOCK = "SELECT pg_advisory_xact_lock($1)"
# Counting ends with the limit ($2 open, $3 started in the last minute): how many more there are does not matter.
COUNT = """
    SELECT
        (SELECT count(*) FROM (
            SELECT FROM workflow_execution
            WHERE {of_these} AND parent_id IS NULL AND status IN ('CREATED', 'STARTED') LIMIT $2
        ) AS open),
        count(*), extract(epoch FROM min(created_at) + interval '1 minute' - clock_timestamp())::float8
    FROM (
        SELECT created_at FROM workflow_execution
        WHERE {of_these} AND parent_id IS NULL AND created_at > now() - interval '1 minute'
        ORDER BY created_at DESC LIMIT $3
    ) AS recent
"""
COUNT_OF_TEMPLATE = COUNT.format(of_these="template_id = $1")
COUNT_OF_ALL = COUNT.format(of_these="$1::uuid IS NULL")
FIRST = f"SELECT event_id FROM trigger_delivery WHERE template_id = $1 AND {QUEUED} ORDER BY event_id LIMIT $2"


@dataclass(frozen=True, slots=True)
class Limits:
    """How many roots may start in a minute, and be open; None is any number. `when_full` is what becomes of others."""

    starts_per_minute: int | None = None
    open_executions: int | None = None
    when_full: AtRest = AtRest.REFUSE

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> "Limits":
        """Those of a template's column."""
        when_full = AtRest(stored.get("when_full") or AtRest.REFUSE)
        return cls(stored.get("starts_per_minute"), stored.get("open_executions"), when_full)

    @classmethod
    def of_all(cls, settings: LimitSettings) -> "Limits":
        """Those of all templates together."""
        return cls(settings.starts_per_minute, settings.open_executions, AtRest(settings.when_full))

    @property
    def limit(self) -> bool:
        """Whether they limit anything."""
        return self.starts_per_minute is not None or self.open_executions is not None


@dataclass(slots=True)
class Room:
    """What limits leave; None is any number. After `wait` seconds there is room for another start."""

    limits: Limits
    open_left: int | None
    starts_left: int | None
    wait: float

    def refusal(self, ahead: int, whose: str) -> TooMany | None:
        """What refuses one more when `ahead` others come first; None when there is room."""
        if self.open_left is not None and self.open_left <= ahead:
            message = f"{whose} may have {self.limits.open_executions} open execution(s)."
            return TooMany(CONCURRENCY_LIMITED, message, SOON)
        if self.starts_left is not None and self.starts_left <= ahead:
            message = f"{whose} may be started {self.limits.starts_per_minute} time(s) in a minute."
            return TooMany(RATE_LIMITED, message, self.wait)
        return None

    def least(self, most: int) -> int:
        """For how many there is room, at most."""
        return max(min(left for left in (self.open_left, self.starts_left, most) if left is not None), 0)

    def use(self, count: int) -> None:
        """So many have been started."""
        if self.open_left is not None:
            self.open_left -= count
        if self.starts_left is not None:
            self.starts_left -= count


async def read_room(connection: Connection, limits: Limits, template_id: UUID | None) -> Room:
    """What the limits of a template, or of all, leave at this moment."""
    most_open, most_starts = limits.open_executions, limits.starts_per_minute
    statement = COUNT_OF_ALL if template_id is None else COUNT_OF_TEMPLATE
    counted = await connection.fetchrow(statement, template_id, most_open or 0, most_starts or 0)
    assert counted is not None
    return Room(
        limits,
        None if most_open is None else most_open - counted[0],
        None if most_starts is None else most_starts - counted[1],
        counted[2] or 0.0,
    )


class Gate:
    """What one transaction starts goes through it: `lock` first, then `admit` for each, the oldest event first."""

    def __init__(self, connection: Connection, settings: LimitSettings) -> None:
        self._connection = connection
        self._of_all = Limits.of_all(settings)
        self._whole: Room | None = None
        self._rooms: dict[UUID, Room] = {}
        # The first of each template's queue, as many as there may be room for.
        self._queues: dict[UUID, list[UUID]] = {}

    def concerns(self, target: Target) -> bool:
        """Whether any limit is about the target."""
        return self._of_all.limit or target.limits is not None

    async def lock(self, targets: Iterable[Target]) -> None:
        """Takes the locks of the targets' limits, always in one order, and before any lock that is held for long."""
        limited = {target.template_id: target for target in targets if self.concerns(target)}
        if limited and self._of_all.limit:
            await self._connection.execute(LOCK, _number(None))
            self._whole = await read_room(self._connection, self._of_all, None)
        for template_id, target in sorted(limited.items()):
            if target.limits is not None:
                await self._connection.execute(LOCK, _number(template_id))
                limits = Limits.of(target.limits)
                self._rooms[template_id] = await read_room(self._connection, limits, template_id)
            most = max((room.least(_ANY) for room in self._found(template_id)), default=0)
            rows = await self._connection.fetch(FIRST, template_id, most)
            self._queues[template_id] = [row[0] for row in rows]

    def admit(self, target: Target, event_id: UUID) -> None:
        """Takes a place for a start.

        Raises RATE_LIMITED or CONCURRENCY_LIMITED when there is none, also when those that have waited for longer will
        need it; as `Postponed` where the start is to be queued.
        """
        if not self.concerns(target):
            return
        queue = self._queues[target.template_id]
        ahead = sum(each < event_id for each in queue)
        for room in self._found(target.template_id):
            whose = "All templates together" if room is self._whole else f"Template {target.template}"
            refusal = room.refusal(ahead, whose)
            if refusal is not None:
                raise self._as_wanted(target, refusal)
        for room in self._found(target.template_id):
            room.use(1)
        if event_id in queue:
            queue.remove(event_id)

    def _as_wanted(self, target: Target, refusal: AppError) -> AppError:
        limits = self._of_all if target.limits is None else Limits.of(target.limits)
        return Postponed(refusal) if limits.when_full is AtRest.QUEUE else refusal

    def _found(self, template_id: UUID) -> list[Room]:
        return [room for room in (self._rooms.get(template_id), self._whole) if room is not None]


_ANY = 1_000_000


def _number(template_id: UUID | None) -> int:
    digest = hashlib.sha256(f"limit of starts\n{template_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
