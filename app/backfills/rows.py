"""Sources of a backfill, read row by row: what cannot be read is a bad row with its place, and the rest goes on.

Nothing here knows where the lines come from. A row's number is the line that it begins on (the ordinal, for queries),
so that whoever reads the same source again finds the same numbers.
"""

import csv
import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from app.errors import AppError, Invalid
from app.untrusted import check_json, first_unstorable, made_storable, storable

# Characters of a cell, and of what is kept of a row that could not be read.
LONGEST_CELL = 1024 * 1024
LONGEST_RAW = 4_000
MOST_NAMED = 20
LONGEST_NAMED = 60
# Bytes: as large as a context may be, and a little more.
LARGEST_ROW = 1_200_000
# Characters of a line of NDJSON, which is not read when it is longer: with every letter escaped, a row that may be is
# shorter.
LONGEST_LINE = 4 * 1024 * 1024
DELIMITERS = ",;\t|"


@dataclass(frozen=True, slots=True)
class SourceRow:
    """A row as its source says it: JSON values by column."""

    number: int
    cells: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be started, and why; `raw` is what it said, cut where it is long."""

    number: int
    code: str
    message: str
    raw: Any = None


Read: TypeAlias = SourceRow | BadRow


def csv_rows(lines: Iterable[str], delimiter: str | None, needed: Collection[str] = ()) -> Iterator[Read]:
    """The rows of a CSV text whose first line names the columns; every cell is text.

    `lines` keep their line ends (a quoted cell may have some). Without a delimiter, the one of `,;|` and tab that the
    first line has most of. Raises `Invalid` HEADER_INVALID, COLUMN_UNKNOWN when one of the `needed` is not there.
    """
    csv.field_size_limit(LONGEST_CELL)
    following = iter(lines)
    first = next((line for line in following if line.strip()), None)
    if first is None:
        return
    reader = csv.reader(_rest(first, following), delimiter=delimiter or _delimiter_of(first), strict=True)
    header = _header(reader)
    check_columns(header, needed)
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield BadRow(number, "CSV_INVALID", f"The line is no CSV: {error}.")
            continue
        if cells:
            yield _csv_row(number, header, cells)


def ndjson_rows(lines: Iterable[str]) -> Iterator[Read]:
    """The rows of a text with a JSON object on each line; empty lines are passed over."""
    for number, line in enumerate(lines, start=1):
        if len(line) > LONGEST_LINE:
            message = f"A line may have {LONGEST_LINE} characters."
            yield BadRow(number, "ROW_TOO_LARGE", message, clipped(line))
            continue
        if not line.strip():
            continue
        try:
            check_json(line.encode())
            document = json.loads(line)
        except UnicodeEncodeError:
            yield _badly_encoded(number, line)
            continue
        except AppError as error:
            message = error.message.replace("The body", "The line", 1)
            yield BadRow(number, error.code, message, clipped(line.rstrip("\r\n")))
            continue
        if isinstance(document, dict):
            yield SourceRow(number, document)
        else:
            yield BadRow(number, "NOT_AN_OBJECT", "The line is JSON, and no object.", clipped(line.rstrip("\r\n")))


def query_row(number: int, columns: dict[str, Any]) -> Read:
    """A row of a query's result."""
    odd = first_unstorable(columns)
    if odd is not None:
        message = f"The column {odd} has NUL characters or lone surrogates."
        return BadRow(number, "TEXT_INVALID", message, clipped(columns))
    return SourceRow(number, columns)


def check_columns(header: Collection[str], needed: Collection[str]) -> None:
    """Raises `Invalid` COLUMN_UNKNOWN when one of the columns that are asked for is not there."""
    for name in needed:
        if name not in header:
            raise Invalid("COLUMN_UNKNOWN", f"There is no column {name}; there are {_named(header)}.")


def clipped(value: Any) -> Any:
    """What is kept of a bad row: storable, and not longer than people read."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return made_storable(value if len(text) <= LONGEST_RAW else text[:LONGEST_RAW])


def _named(header: Collection[str]) -> str:
    """Columns as a message has them. A file without line ends, as `curl -d @file` sends it, is one long first line."""
    names = [str(made_storable(name[:LONGEST_NAMED])) for name in [*header][:MOST_NAMED]]
    more = len(header) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")


def _rest(first: str, following: Iterator[str]) -> Iterator[str]:
    yield first
    yield from following


def _delimiter_of(line: str) -> str:
    return max(DELIMITERS, key=line.count)


def _header(reader: Iterator[list[str]]) -> list[str]:
    try:
        header = [name.strip() for name in next(reader)]
    except csv.Error as error:
        raise Invalid("HEADER_INVALID", f"The first line is no CSV: {error}.") from error
    if "" in header or len({*header}) < len(header) or not all(map(storable, header)):
        message = f"The first line must name every column, each differently; it has {_named(header)}."
        raise Invalid("HEADER_INVALID", message)
    return header


def _csv_row(number: int, header: list[str], cells: list[str]) -> Read:
    if len(cells) != len(header):
        message = f"The header has {len(header)} columns, this row {len(cells)}."
        return BadRow(number, "COLUMNS_WRONG", message, clipped(cells))
    if not all(map(storable, cells)):
        return _badly_encoded(number, cells)
    return SourceRow(number, dict(zip(header, cells, strict=True)))


def _badly_encoded(number: int, said: Any) -> BadRow:
    return BadRow(number, "TEXT_INVALID", "The row is not UTF-8, or has NUL characters.", clipped(said))
