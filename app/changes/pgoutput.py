"""The messages of PostgreSQL's logical decoding plugin `pgoutput`, protocol version 1, without streaming.

Pure: bytes in, messages out. What a message means for a row is `row_changes`.
"""

import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, TypeAlias

_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)


class PgoutputError(ValueError):
    """The bytes are no message of this protocol."""


class Unchanged(StrEnum):
    """The one value of a column that was not sent, because it is stored apart (TOAST) and did not change."""

    TOAST = "TOAST"


# A column of a row: PostgreSQL's text, NULL, or not sent.
Cell: TypeAlias = str | Unchanged | None
Cells: TypeAlias = tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """A column as a relation announces it; `key` says that it is part of the replica identity."""

    name: str
    type_oid: int
    key: bool
    modifier: int = -1


@dataclass(frozen=True, slots=True)
class Begin:
    """The next messages are of one transaction, which has committed."""

    commit_lsn: int
    at: datetime
    xid: int


@dataclass(frozen=True, slots=True)
class Commit:
    """The transaction's messages are complete; `end_lsn` is behind its commit record."""

    commit_lsn: int
    end_lsn: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Origin:
    """The transaction came from another server by replication."""

    lsn: int
    name: str


@dataclass(frozen=True, slots=True)
class Relation:
    """A table and its columns, before its first change and after each change of its shape."""

    oid: int
    schema: str
    name: str
    identity: str
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class Type:
    """A type that PostgreSQL does not bring."""

    oid: int
    schema: str
    name: str


@dataclass(frozen=True, slots=True)
class Insert:
    """A new row."""

    relation: int
    new: Cells


@dataclass(frozen=True, slots=True)
class Update:
    """A changed row; `old` is the whole old row (`whole`), or its key alone, or nothing where the key is the same."""

    relation: int
    old: Cells | None
    whole: bool
    new: Cells


@dataclass(frozen=True, slots=True)
class Delete:
    """A row that has gone: the whole row, or its key."""

    relation: int
    old: Cells
    whole: bool


@dataclass(frozen=True, slots=True)
class Truncate:
    """Tables that were emptied at once."""

    relations: tuple[int, ...]
    options: int


Message: TypeAlias = Begin | Commit | Origin | Relation | Type | Insert | Update | Delete | Truncate


def decode(data: bytes) -> Message:
    """One message. Raises `PgoutputError` for what is none, cut off, or of a later protocol."""
    reader = _Reader(data)
    try:
        message = _message(reader)
    except (struct.error, IndexError, UnicodeDecodeError, OverflowError) as error:
        raise PgoutputError(f"a message {data[:1]!r} of {len(data)} bytes cannot be read") from error
    if not reader.done():
        raise PgoutputError(f"a message {data[:1]!r} has more than it should")
    return message


def _message(reader: "_Reader") -> Message:
    match reader.letter():
        case "B":
            return Begin(reader.int64(), reader.moment(), reader.int32())
        case "C":
            reader.int8()
            return Commit(reader.int64(), reader.int64(), reader.moment())
        case "O":
            return Origin(reader.int64(), reader.text())
        case "R":
            return Relation(reader.int32(), reader.text(), reader.text(), reader.letter(), reader.columns())
        case "Y":
            return Type(reader.int32(), reader.text(), reader.text())
        case "I":
            relation = reader.int32()
            reader.expect("N")
            return Insert(relation, reader.cells())
        case "U":
            return _update(reader)
        case "D":
            relation, kind = reader.int32(), reader.expect("KO")
            return Delete(relation, reader.cells(), kind == "O")
        case "T":
            count, options = reader.int32(), reader.int8()
            return Truncate(tuple(reader.int32() for _ in range(count)), options)
        case letter:
            raise PgoutputError(f"there is no message {letter!r} in protocol 1")


def _update(reader: "_Reader") -> Update:
    relation, kind = reader.int32(), reader.expect("KON")
    if kind == "N":
        return Update(relation, None, False, reader.cells())
    old = reader.cells()
    reader.expect("N")
    return Update(relation, old, kind == "O", reader.cells())


class _Reader:
    """The parts of a message, from the left."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def done(self) -> bool:
        return self._at == len(self._data)

    def letter(self) -> str:
        return chr(self.int8())

    def expect(self, letters: str) -> str:
        found = self.letter()
        if found not in letters:
            raise PgoutputError(f"one of {letters!r} should stand where {found!r} is")
        return found

    def int8(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def int16(self) -> int:
        return self._number("!H", 2)

    def int32(self) -> int:
        return self._number("!I", 4)

    def int64(self) -> int:
        return self._number("!Q", 8)

    def moment(self) -> datetime:
        return _EPOCH + timedelta(microseconds=self._number("!q", 8))

    def text(self) -> str:
        try:
            end = self._data.index(0, self._at)
        except ValueError as error:
            raise PgoutputError("a text has no end") from error
        found = self._data[self._at : end].decode()
        self._at = end + 1
        return found

    def columns(self) -> tuple[Column, ...]:
        return tuple(self._column() for _ in range(self.int16()))

    def cells(self) -> Cells:
        return tuple(self._cell() for _ in range(self.int16()))

    def _column(self) -> Column:
        flags, name, type_oid = self.int8(), self.text(), self.int32()
        return Column(name, type_oid, bool(flags & 1), self._number("!i", 4))

    def _cell(self) -> Cell:
        match self.expect("nut"):
            case "n":
                return None
            case "u":
                return Unchanged.TOAST
            case _:
                length = self.int32()
                content = self._data[self._at : self._at + length]
                if len(content) < length:
                    raise PgoutputError("a value is cut off")
                self._at += length
                return content.decode()

    def _number(self, form: str, size: int) -> int:
        (number,) = struct.unpack_from(form, self._data, self._at)
        self._at += size
        return int(number)
