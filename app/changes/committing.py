"""Changes on their way into the inbox: events, counters and the position they are complete up to, in one commit."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

import structlog

from app.canonical import canonical_json
from app.changes.judging import Watched, event_of
from app.changes.row_changes import RowChange, lsn_text
from app.db.session import Database
from app.errors import Conflict
from app.inbox.storing import Incoming, Stored, store

log = structlog.get_logger(__name__)

# Events, and bytes of what they were read from, that are committed at once.
EVENTS = 500
BYTES = 4 * 1024 * 1024

_COUNT = """
    UPDATE change_source SET
        changes_seen = changes_seen + counted.seen, events_stored = events_stored + counted.stored,
        last_change_at = coalesce(counted.last_at, last_change_at),
        checkpoint = coalesce(counted.checkpoint, change_source.checkpoint), updated_at = now()
    FROM jsonb_to_recordset($1::text::jsonb)
        AS counted (id uuid, seen bigint, stored bigint, last_at timestamptz, checkpoint text)
    WHERE change_source.id = counted.id
"""


@dataclass(slots=True)
class _Counted:
    id: str
    seen: int = 0
    stored: int = 0
    last_at: str | None = None
    checkpoint: str | None = None


@dataclass(slots=True)
class Batch:
    """What is to be committed next, for sources by schema and table. A batch is used again after each commit."""

    sources: dict[tuple[str, str], Watched]
    events: list[Incoming] = field(default_factory=list)
    stored: list[Stored] = field(default_factory=list)
    _of: list[str] = field(default_factory=list)
    _counted: dict[str, _Counted] = field(default_factory=dict)
    _bytes: int = 0
    _complete_to: int = 0

    def take(self, change: RowChange, size: int = 0) -> None:
        """Adds a change, if a source asks for it and has not had it; `size` in bytes."""
        source = self.sources.get((change.schema, change.table))
        if source is None or change.commit_lsn < source.checkpoint:
            return
        counted = self._count(source)
        counted.seen += 1
        counted.last_at = change.at or counted.last_at
        event = event_of(source, change)
        if event is not None:
            self.events.append(event)
            self._of.append(str(source.id))
            self._bytes += size

    def complete(self, lsn: int) -> None:
        """Everything before this position of the log is in the batch, or committed."""
        self._complete_to = lsn

    def full(self) -> bool:
        """Whether it is time to commit."""
        return len(self.events) >= EVENTS or self._bytes >= BYTES

    async def commit(self, database: Database, *, refuse_conflicts: bool = False) -> None:
        """Stores the events, counts them, and notes how far every source is complete; then the batch is empty.

        Where somebody waits for the answer, two events with one key are refused: IDEMPOTENCY_CONFLICT, and nothing is
        stored.
        """
        if not self._counted and not self._complete_to:
            return
        if self._complete_to:
            for source in self.sources.values():
                self._count(source).checkpoint = lsn_text(self._complete_to)
        async with database.driver() as connection, connection.transaction():
            stored = await store(connection, self.events)
            if refuse_conflicts and any(one.conflicting for one in stored):
                raise Conflict("IDEMPOTENCY_CONFLICT", "The key was used for another change.")
            for owner, one in zip(self._of, stored, strict=True):
                self._counted[owner].stored += not one.repeated
            rows = [asdict(one) for one in sorted(self._counted.values(), key=lambda counted: counted.id)]
            await connection.execute(_COUNT, canonical_json(rows))
        _warn_of_conflicts(self.events, stored)
        self.stored += stored
        self.events, self._of, self._counted = [], [], {}
        self._bytes = self._complete_to = 0

    def _count(self, source: Watched) -> _Counted:
        return self._counted.setdefault(str(source.id), _Counted(str(source.id)))


def batch_of(sources: Iterable[Watched]) -> Batch:
    """An empty batch for these sources."""
    return Batch({(source.schema, source.table): source for source in sources})


def _warn_of_conflicts(events: list[Incoming], stored: list[Stored]) -> None:
    for event, one in zip(events, stored, strict=True):
        if one.conflicting:
            log.warning("row_change_conflicts", trigger=event.trigger_key, dedupe_key=event.dedupe_key)
