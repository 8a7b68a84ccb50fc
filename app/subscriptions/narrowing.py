"""Properties that mean the same for every trigger: they narrow down which events a subscription hears of.

`operations` and `columns` (unless `monitor_columns` is false) are about changes of rows, `methods` and `path` about
requests. What they ask for must be in the payload: an event without an operation is none of these operations.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

OPERATIONS: Final = "operations"
COLUMNS: Final = "columns"
MONITOR_COLUMNS: Final = "monitor_columns"
METHODS: Final = "methods"
PATH: Final = "path"


@dataclass(frozen=True, slots=True)
class Narrowed:
    """Whether one property lets an event pass, and why not."""

    property: str
    holds: bool
    reason: str | None = None


def narrowed(properties: Mapping[str, Any], payload: Any) -> Iterator[Narrowed]:
    """What each narrowing property that is given says of an event. Empty lists and texts narrow nothing."""
    members = payload if isinstance(payload, dict) else {}
    if properties.get(OPERATIONS):
        yield _among(OPERATIONS, properties[OPERATIONS], members.get("operation"))
    if properties.get(COLUMNS) and properties.get(MONITOR_COLUMNS, True) is not False:
        yield _columns(properties[COLUMNS], members)
    if properties.get(METHODS):
        yield _among(METHODS, properties[METHODS], members.get("method"))
    if properties.get(PATH):
        yield _path(str(properties[PATH]), members.get("path"))


def path_matches(pattern: str, path: str) -> bool:
    """Whether a path is like the pattern: `*` is any text, slashes included, `?` any one character.

    Takes at most the product of both lengths.
    """
    at, star, resume = 0, -1, 0
    place = 0
    while place < len(path):
        if at < len(pattern) and pattern[at] == "*":
            star, resume = at, place
            at += 1
        elif at < len(pattern) and pattern[at] in ("?", path[place]):
            at, place = at + 1, place + 1
        elif star >= 0:
            resume += 1
            at, place = star + 1, resume
        else:
            return False
    return not pattern[at:].strip("*")


def _among(name: str, wanted: Any, found: Any) -> Narrowed:
    words = {str(word).upper() for word in _listed(wanted)}
    if isinstance(found, str) and found.upper() in words:
        return Narrowed(name, True)
    said = f"{found!r:.60} is not" if isinstance(found, str) else "the event has none"
    return Narrowed(name, False, f"{said}: {', '.join(sorted(words))}"[:300])


def _columns(wanted: Any, payload: Mapping[str, Any]) -> Narrowed:
    """Of an update one of the columns must have changed; other operations concern every column."""
    operation = payload.get("operation")
    if not isinstance(operation, str) or operation.upper() != "UPDATE":
        return Narrowed(COLUMNS, True)
    columns = {str(column) for column in _listed(wanted)}
    if columns & _changed(payload):
        return Narrowed(COLUMNS, True)
    return Narrowed(COLUMNS, False, f"none of these columns has changed: {', '.join(sorted(columns))}"[:300])


def _changed(payload: Mapping[str, Any]) -> set[str]:
    listed = payload.get("changed_columns")
    if isinstance(listed, list):
        return {column for column in listed if isinstance(column, str)}
    before, after = payload.get("before"), payload.get("after")
    if not isinstance(before, dict) or not isinstance(after, dict):
        return set()
    missing = object()
    return {name for name in before | after if before.get(name, missing) != after.get(name, missing)}


def _path(pattern: str, path: Any) -> Narrowed:
    if not isinstance(path, str):
        return Narrowed(PATH, False, "the event has none")
    wanted, found = pattern.strip("/"), path.strip("/")
    if path_matches(wanted, found):
        return Narrowed(PATH, True)
    return Narrowed(PATH, False, f"/{found[:100]} is not like /{wanted[:100]}")


def _listed(wanted: Any) -> list[Any]:
    return wanted if isinstance(wanted, list) else [wanted]
