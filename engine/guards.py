"""What built-in functions may be asked to do: checked before they are called, because the library allocates first.

A guard sees the arguments of one call, by position. It raises EXPRESSION_LIMIT where the result would be out of all
proportion, and EXPRESSION_FAILED where the library would take the machine's clock or time zone.
"""

import re
from collections.abc import Callable
from typing import Final

from engine.bounds import MAX_ITEMS, MAX_TEXT, failed, limit
from engine.tokens import MAX_EXACT_INTEGER

MAX_DISTINCT: Final = 2_000
MAX_MEMBERS: Final = 3_000
MAX_PICTURE: Final = 500
MAX_ROMAN: Final = 100_000
MAX_REPLACEMENT_WORK: Final = 16 * MAX_TEXT

_WIDE = re.compile(r"\[[^\]]*[,-]\s*[0-9]{4,}")
_YEAR = re.compile(r"\[\s*[YX]")
_ZONED = re.compile(r"[^T]*|.*(?:Z|[+-][0-9]{2}:?[0-9]{2})", re.DOTALL)


def guard(name: str, *arguments: object) -> None:
    """Called before the built-in `name` is. Raises EXPRESSION_LIMIT or EXPRESSION_FAILED."""
    _CHECKS[name](arguments)


def _guard_pad(arguments: tuple[object, ...]) -> None:
    for width in arguments:
        if isinstance(width, int | float) and abs(width) > MAX_TEXT:
            raise limit(f"$pad beyond {MAX_TEXT} characters")


def _guard_join(arguments: tuple[object, ...]) -> None:
    items = arguments[0]
    if isinstance(items, list):
        separator = len(arguments[1]) if len(arguments) > 1 and isinstance(arguments[1], str) else 0
        if len(items) > MAX_ITEMS * 10:
            raise limit(f"$join of more than {MAX_ITEMS * 10} texts")
        if sum(len(item) for item in items if isinstance(item, str)) + separator * len(items) > MAX_TEXT:
            raise limit(f"$join beyond {MAX_TEXT} characters")


def _guard_replace(arguments: tuple[object, ...]) -> None:
    text, _, replacement = arguments[:3]
    if isinstance(text, str) and isinstance(replacement, str):
        # one more match than there are characters is the most there can be; $1 copies at most the whole text
        if (len(text) + 1) * max(1, len(replacement)) > MAX_REPLACEMENT_WORK:
            raise limit("$replace of too long a text by too long a text")
    elif isinstance(text, str) and len(text) > MAX_TEXT:
        raise limit(f"$replace in more than {MAX_TEXT} characters")


def _guard_split(arguments: tuple[object, ...]) -> None:
    text, separator = arguments[:2]
    if not isinstance(text, str):
        return
    if len(text) > MAX_TEXT:
        raise limit(f"$split of more than {MAX_TEXT} characters")
    pieces = text.count(separator) + 1 if isinstance(separator, str) else 1
    most = arguments[2] if len(arguments) > 2 and isinstance(arguments[2], int) else pieces
    if min(pieces, most) > MAX_ITEMS:
        raise limit(f"$split into more than {MAX_ITEMS} texts")


def _guard_distinct(arguments: tuple[object, ...]) -> None:
    if isinstance(arguments[0], list) and len(arguments[0]) > MAX_DISTINCT:
        raise limit(f"$distinct of more than {MAX_DISTINCT} items, each of which is compared with all others")


def _guard_members(arguments: tuple[object, ...]) -> None:
    items = arguments[0] if isinstance(arguments[0], list) else [arguments[0]]
    if sum(len(item) for item in items if isinstance(item, dict)) > MAX_MEMBERS:
        raise limit(f"$keys and $spread of more than {MAX_MEMBERS} members, which the library compares with each other")


def _check_picture(picture: object) -> None:
    if isinstance(picture, str) and (len(picture) > MAX_PICTURE or _WIDE.search(picture)):
        raise limit(f"a picture is longer than {MAX_PICTURE} characters or asks for a width above 999")


def _guard_format_integer(arguments: tuple[object, ...]) -> None:
    number, picture = arguments[:2]
    if isinstance(number, int | float) and isinstance(picture, str):
        if len(picture) > MAX_PICTURE:
            raise limit(f"a picture is longer than {MAX_PICTURE} characters")
        if "i" in picture.lower() and abs(number) > MAX_ROMAN:
            raise limit(f"a roman numeral above {MAX_ROMAN}")
        if abs(number) > MAX_EXACT_INTEGER:
            raise failed("$formatInteger cannot format a number above 2^53")


def _guard_format_number(arguments: tuple[object, ...]) -> None:
    if isinstance(arguments[1], str) and len(arguments[1]) > MAX_PICTURE:
        raise limit(f"a picture is longer than {MAX_PICTURE} characters")


def _guard_from_millis(arguments: tuple[object, ...]) -> None:
    for picture in arguments[1:]:
        _check_picture(picture)


def _guard_to_millis(arguments: tuple[object, ...]) -> None:
    text = arguments[0]
    picture = arguments[1] if len(arguments) > 1 else None
    if not isinstance(text, str):
        return
    if len(text) > MAX_PICTURE:
        raise limit(f"$toMillis of more than {MAX_PICTURE} characters")
    if isinstance(picture, str):
        _check_picture(picture)
        if not _YEAR.search(picture):
            raise failed("$toMillis needs a picture with the year; the library would take today's")
    elif not _ZONED.fullmatch(text):
        raise failed("$toMillis needs a time zone; the library would take the machine's")


_CHECKS: Final[dict[str, Callable[[tuple[object, ...]], None]]] = {
    "pad": _guard_pad,
    "join": _guard_join,
    "replace": _guard_replace,
    "split": _guard_split,
    "distinct": _guard_distinct,
    "keys": _guard_members,
    "spread": _guard_members,
    "formatInteger": _guard_format_integer,
    "formatNumber": _guard_format_number,
    "fromMillis": _guard_from_millis,
    "toMillis": _guard_to_millis,
}
