"""What happened to a row, whatever told of it: and how a transaction's messages become that.

Pure. A transaction may be larger than memory: changes are given one by one, and its end is told by itself.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeAlias

from app.canonical import canonical_json
from app.changes.pgoutput import (
    Begin,
    Cells,
    Commit,
    Delete,
    Insert,
    Message,
    PgoutputError,
    Relation,
    Unchanged,
    Update,
)
from app.connections.column_values import BUILT_IN, TypeTable, json_value

Row: TypeAlias = dict[str, Any]


class Operation(StrEnum):
    """What was done to a row."""

    INSERT = "INSERT"
    UPDATE = "UPDATE"
    DELETE = "DELETE"


@dataclass(frozen=True, slots=True)
class RowChange:
    """A committed change of one row.

    `before_whole` is false where of the old row only the key is known; `at` is None where nobody told when. `absent`
    names columns of `after` that nobody told the value of: large values that did not change. `key` tells the change
    from every other one of its source; `commit_lsn` is where in the log its transaction was committed.
    """

    operation: Operation
    schema: str
    table: str
    at: str | None
    before: Row | None
    after: Row | None
    key: str
    before_whole: bool = True
    absent: tuple[str, ...] = ()
    position: dict[str, Any] = field(default_factory=dict)
    commit_lsn: int = 0

    def changed_columns(self) -> list[str] | None:
        """The columns whose value an UPDATE changed, in the table's order; none for an INSERT or DELETE.

        None where it cannot be known, because the old row is not.
        """
        if self.operation is not Operation.UPDATE:
            return []
        if not self.before_whole or self.before is None or self.after is None:
            return None
        before, after = self.before, self.after
        return [name for name in after if name not in before or not _same(before[name], after[name])]


@dataclass(frozen=True, slots=True)
class TransactionEnd:
    """Everything before this has been told; `end_lsn` is where the log is to be read from next."""

    end_lsn: int


class Assembler:
    """Puts the messages of one session of decoding together.

    `types` knows the types of the server. Relations are remembered, as the server tells of each only once.
    """

    def __init__(self, types: TypeTable = BUILT_IN) -> None:
        self._types = types
        self._relations: dict[int, Relation] = {}
        self._begin: Begin | None = None
        self._last_lsn = -1
        self._repeated = 0

    def take(self, messages: Iterable[tuple[int, Message]]) -> Iterator[RowChange | TransactionEnd]:
        """Changes and the ends of their transactions, from messages with their positions in the log.

        Raises `PgoutputError` for a change outside a transaction or of a table that was not announced.
        """
        for lsn, message in messages:
            match message:
                case Begin():
                    self._begin = message
                    self._last_lsn = -1
                case Commit(end_lsn=end_lsn):
                    self._begin = None
                    yield TransactionEnd(end_lsn)
                case Relation():
                    self._relations[message.oid] = message
                case Insert() | Update() | Delete():
                    yield self._change(lsn, message)
                case _:
                    # Origins and types say nothing about rows; an emptied table is no change of a row.
                    pass

    def _change(self, lsn: int, message: Insert | Update | Delete) -> RowChange:
        relation = self._relations.get(message.relation)
        if relation is None or self._begin is None:
            raise PgoutputError(f"a change of table {message.relation} comes out of turn")
        # COPY writes many rows into one record of the log.
        self._repeated = self._repeated + 1 if lsn == self._last_lsn else 0
        self._last_lsn = lsn
        before, after, whole, absent = self._images(relation, message)
        return RowChange(
            operation=Operation[type(message).__name__.upper()],
            schema=relation.schema or "pg_catalog",
            table=relation.name,
            at=written(self._begin.at),
            before=before,
            after=after,
            key=f"{lsn_text(lsn)}/{self._repeated}",
            before_whole=whole,
            absent=absent,
            position={"lsn": lsn_text(lsn), "txid": self._begin.xid},
            commit_lsn=self._begin.commit_lsn,
        )

    def _images(
        self, relation: Relation, message: Insert | Update | Delete
    ) -> tuple[Row | None, Row | None, bool, tuple[str, ...]]:
        match message:
            case Insert(new=new):
                return None, self._row(relation, new), True, ()
            case Delete(old=old, whole=whole):
                return self._row(relation, old, keys_only=not whole), None, whole, ()
            case Update(old=old, whole=whole, new=new):
                after = self._row(relation, new)
                # An unsent key is the same as before.
                before = self._row(relation, new if old is None else old, keys_only=not whole)
                kept = [
                    column.name
                    for column, cell in zip(relation.columns, new, strict=True)
                    if isinstance(cell, Unchanged)
                ]
                for name in kept:
                    if name in before:
                        after[name] = before[name]
                ordered = {column.name: after[column.name] for column in relation.columns if column.name in after}
                return before, ordered, whole, tuple(name for name in kept if name not in after)

    def _row(self, relation: Relation, cells: Cells, *, keys_only: bool = False) -> Row:
        if len(cells) != len(relation.columns):
            raise PgoutputError(f"a row of {relation.name} has {len(cells)} columns instead of {len(relation.columns)}")
        return {
            column.name: None if cell is None else json_value(cell, column.type_oid, self._types)
            for column, cell in zip(relation.columns, cells, strict=True)
            if not isinstance(cell, Unchanged) and (column.key or not keys_only)
        }


def lsn_text(lsn: int) -> str:
    """A position in the log as PostgreSQL writes it: `16/B374D848`."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def lsn_number(text: str) -> int:
    """A position in the log as a number, which can be compared."""
    high, _, low = text.partition("/")
    return int(high, 16) << 32 | int(low, 16)


def written(at: datetime) -> str:
    """A time as payloads have it."""
    return at.isoformat()


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, dict | list):
        return canonical_json(one) == canonical_json(other)
    # Python takes true for 1.
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)
