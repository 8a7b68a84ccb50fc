"""How the command line speaks: tables for people, `--json` for programs, refusals on standard error."""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.errors import AppError

# Columns: what is piped or redirected is for programs, which need ids whole and a row on one line.
_UNLESS_TERMINAL = 100_000
# Characters of a structured value in a table: what is longer is for `--json`.
_LONGEST_VALUE = 400

out = Console(highlight=False, width=None if sys.stdout.isatty() else _UNLESS_TERMINAL)
err = Console(highlight=False, stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

_COLOURS = {
    "COMPLETED": "green",
    "STARTED": "cyan",
    "IN_PROGRESS": "cyan",
    "ACTION_REQUIRED": "yellow",
    "CREATED": "yellow",
    "NOT_STARTED": "dim",
    "FAILED": "red",
    "FAILED_TO_START": "red",
    "CANCELLED": "magenta",
    "TERMINATED": "magenta",
    "TIMED_OUT": "red",
    "ACTIVE": "green",
    "PUBLISHED": "green",
    "ERROR": "red",
    "WARNING": "yellow",
}


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    print_line(json.dumps(document, ensure_ascii=False, indent=2, default=str))


def print_line(text: str) -> None:
    """A line on standard output exactly as it is, however wide."""
    out.file.write(f"{text}\n")
    out.file.flush()


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], empty: str = "nothing") -> None:
    """Rows under their columns; statuses are coloured, None is a dash."""
    out.print(rows_table(columns, rows) if rows else Text(empty, style="dim"))


def rows_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    """Rows under their columns, not yet printed."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(styled(cell) for cell in row))
    return table


def print_fields(fields: Mapping[str, Any]) -> None:
    """Names and values, one a line; what is None or empty is left out."""
    out.print(fields_table(fields))


def fields_table(fields: Mapping[str, Any]) -> Table:
    """Names and values, not yet printed."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in fields.items():
        if value not in (None, "", [], {}):
            table.add_row(name, styled(value))
    return table


def styled(value: Any) -> Text:
    """A cell: structured values as JSON, statuses in their colour."""
    if value is None:
        return Text("-", style="dim")
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)
    return Text(compact(text), style=_COLOURS.get(text, ""))


def compact(text: str) -> str:
    """A text as long as a table has room for; it says when there was more."""
    if len(text) <= _LONGEST_VALUE:
        return text
    return f"{text[:_LONGEST_VALUE]}… ({len(text):,} characters; --json has them all)"


def print_refusal(error: AppError, as_json: bool) -> None:
    """Code, message and every finding, on standard error."""
    if as_json:
        document = {"code": error.code, "detail": error.message, "problems": list(error.problems)}
        if error.event_record_id is not None:
            document["eventRecordId"] = str(error.event_record_id)
        err.file.write(json.dumps(document, ensure_ascii=False, default=str) + "\n")
        return
    err.print(Text.assemble((error.code, "bold red"), f": {error.message}"), soft_wrap=True)
    for problem in error.problems:
        print_problem(problem, to=err)
    if error.event_record_id is not None:
        err.print(f"  The event is stored: millrace events show {error.event_record_id}", soft_wrap=True)


def print_problem(problem: Mapping[str, Any], to: Console = out) -> None:
    """One finding of validation, or one mistake in a request."""
    severity = str(problem.get("severity") or "ERROR")
    name = problem.get("rule") or problem.get("code") or ""
    to.print(
        Text.assemble(
            "  ",
            (severity, _COLOURS.get(severity, "dim")),
            f" {problem.get('path') or '(whole)'}: {problem.get('message')}",
            (f"  [{name}]" if name else "", "dim"),
        ),
        soft_wrap=True,
    )


def time_of_day(text: str | None) -> str | None:
    """An ISO 8601 time as people read it, in their own zone."""
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S") if text else None


def time_in_zone(text: str, zone: str) -> str:
    """An ISO 8601 time as it is in a time zone, with how far that is from UTC then."""
    there = datetime.fromisoformat(text).astimezone(ZoneInfo(zone))
    return f"{there:%Y-%m-%d %H:%M:%S} {there.isoformat()[-6:]}"


def duration(started: str | None, ended: str | None) -> str | None:
    """How long something took, from two ISO 8601 times; None while it is not over."""
    if not started or not ended:
        return None
    seconds = (datetime.fromisoformat(ended) - datetime.fromisoformat(started)).total_seconds()
    if seconds < 120:
        return f"{seconds:.2f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
