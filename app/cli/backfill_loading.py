"""Rows on their way from this machine to the API: in chunks, again and again until each has arrived."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from pydantic.alias_generators import to_camel
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from app.backfills.mapping import Loadable
from app.backfills.rows import LARGEST_ROW, BadRow
from app.cli.api_client import Api
from app.cli.output import err
from app.errors import Unavailable

# Of a chunk; its bytes stay well below what the API takes as a body.
MOST_ROWS = 500
MOST_BYTES = 500_000
# Seconds that the API may be away.
PATIENCE = 60.0

Answer = TypeVar("Answer")
Row = dict[str, Any]


@dataclass(slots=True)
class Checked:
    """What a dry run has found."""

    rows: int = 0
    valid: int = 0
    repeated: int = 0
    bad: list[Row] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)

    def note(self, row: Row, code: str, message: str) -> None:
        """A row that would not be started."""
        self.bad.append({**row, "code": code, "message": message})
        self.codes[code] += 1


def load(calls: Api, path: str, rows: Iterable[Loadable | BadRow], last: int, name: str) -> None:
    """Loads the rows after the one numbered `last` into the backfill at `path`."""
    columns = (TextColumn("loading {task.description}"), TextColumn("{task.completed:,} rows"), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(name, total=None)
        for chunk in _chunks(as_row(row) for row in rows if row.number > last):
            body = {"rows": chunk}
            patiently(lambda body=body: calls.post(f"{path}/rows", body))  # type: ignore[misc]
            bar.advance(task, len(chunk))


def check(calls: Api, target: dict[str, str], rows: Iterable[Loadable | BadRow]) -> Checked:
    """What would become of the rows."""
    found = Checked()
    events: set[str] = set()
    for chunk in _chunks(map(as_row, rows)):
        sent: list[Row] = []
        for row in chunk:
            found.rows += 1
            event = row.get("eventId")
            if "code" in row:
                found.note(row, row["code"], row["message"])
            elif event in events:
                found.note(row, "EVENT_REPEATED", f"The event {event} is in another row already.")
            else:
                sent.append(row)
            events |= {event} if event else set()
        _ask_about(calls, target, sent, found)
    return found


def patiently(call: Callable[[], Answer]) -> Answer:
    """What a call that may be repeated answers; while the API is away it is made again for a minute."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return call()
        except Unavailable:
            if time.monotonic() > until:
                raise
        time.sleep(0.5)


def as_row(row: Loadable | BadRow) -> Row:
    """A row as the API takes it."""
    sent = {to_camel(name): value for name, value in asdict(row).items() if value is not None}
    if len(json.dumps(sent, ensure_ascii=False).encode(errors="replace")) > LARGEST_ROW:
        return {"number": row.number, "code": "ROW_TOO_LARGE", "message": f"A row may have {LARGEST_ROW} bytes."}
    return sent


def as_sent(row: Row) -> Row:
    """What a row was to start, without what became of it."""
    return {name: row[name] for name in ("eventId", "entityId", "name", "context") if row.get(name) is not None}


def _ask_about(calls: Api, target: dict[str, str], sent: list[Row], found: Checked) -> None:
    if not sent:
        return
    answer = patiently(lambda: calls.post("/backfills/check", {**target, "rows": sent}))
    found.valid += answer["valid"]
    found.repeated += answer["repeated"]
    by_number = {row["number"]: row for row in sent}
    for problem in answer["problems"]:
        found.note(by_number[problem["number"]], problem["code"], problem["message"])


def _chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    chunk: list[Row] = []
    size = 0
    for row in rows:
        more = len(json.dumps(row).encode())
        if chunk and (len(chunk) == MOST_ROWS or size + more > MOST_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(row)
        size += more
    if chunk:
        yield chunk
