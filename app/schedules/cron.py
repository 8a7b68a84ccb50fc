"""Cron as Temporal reads it, checked without Temporal: a mistake is told at once, also while it is away."""

import re
from collections.abc import Mapping

Field = tuple[str, int, int, Mapping[str, int]]

_MONTHS = {
    name: number
    for number, name in enumerate(
        ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"), start=1
    )
}
_DAYS = {name: number for number, name in enumerate(("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"))}
_SECOND: Field = ("second", 0, 59, {})
_YEAR: Field = ("year", 2000, 2100, {})
_FIVE: tuple[Field, ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of the month", 1, 31, {}),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 7, _DAYS),
)
_FIELDS = {5: _FIVE, 6: (*_FIVE, _YEAR), 7: (_SECOND, *_FIVE, _YEAR)}
_NAMED = frozenset({"@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"})
_PART = re.compile(r"(?:\*|(?P<start>\w+)(?:-(?P<end>\w+))?)(?:/(?P<step>\d+))?")


def cron_fault(text: str) -> str | None:
    """What is wrong with a cron expression of 5, 6 (with the year last) or 7 fields (with the second first as well).

    None when nothing is. Names (`@daily`) are taken; a zone of its own, or `@every`, is not: the schedule has them.
    """
    words = text.partition("#")[0].split()
    if len(words) == 1 and words[0] in _NAMED:
        return None
    if words and words[0].startswith(("TZ=", "CRON_TZ=")):
        return "the zone is the schedule's timeZone"
    if words and words[0].startswith("@every"):
        return "write it as one of the schedule's intervals"
    fields = _FIELDS.get(len(words))
    if fields is None:
        return f"it has {len(words)} fields: 5, 6 with the year last, or 7 with the second first and the year last"
    for word, (name, low, high, names) in zip(words, fields, strict=True):
        if word == "?" and name.startswith("day"):
            continue
        for part in word.split(","):
            if not _is_part(part, low, high, names):
                return f"{part!r} is no {name}: a number from {low} to {high}, a range a-b, *, each with /step"
    return None


def _is_part(part: str, low: int, high: int, names: Mapping[str, int]) -> bool:
    found = _PART.fullmatch(part)
    if found is None or found["step"] == "0":
        return False
    if found["start"] is None:
        return True
    start = _number(found["start"], names)
    end = start if found["end"] is None else _number(found["end"], names)
    return start is not None and end is not None and low <= start <= end <= high


def _number(word: str, names: Mapping[str, int]) -> int | None:
    return int(word) if word.isdecimal() else names.get(word.upper())
