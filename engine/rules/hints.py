"""Suggestions for a name that is not there."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

MOST_COMPARISONS = 20_000


class Hints:
    """Finds similar names. Comparing costs, so one validation makes only so many comparisons, then gives no hints."""

    def __init__(self) -> None:
        self._left = MOST_COMPARISONS
        self._known: dict[tuple[str, str], str] = {}

    def similar(self, kind: str, name: str, names: Sequence[str] | Mapping[str, Any]) -> str:
        """`; did you mean "x"?` or nothing. `kind` tells apart what is named; its names never change."""
        key = (kind, name)
        if key not in self._known:
            self._known[key] = self._worked_out(name, names)
        return self._known[key]

    def _worked_out(self, name: str, names: Sequence[str] | Mapping[str, Any]) -> str:
        if len(names) > self._left:
            return ""
        self._left -= len(names)
        matches = get_close_matches(name[:100], names, n=1, cutoff=0.6)
        return f'; did you mean "{matches[0]}"?' if matches else ""


def listed(names: Iterable[str], most: int = 10) -> str:
    """Names in a sentence, at most so many of them."""
    every = list(names)
    shown = ", ".join(every[:most])
    return f"{shown} and {len(every) - most} more" if len(every) > most else shown
