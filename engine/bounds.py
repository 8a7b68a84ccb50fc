"""How much an expression may do: counts, never the clock, so that a replay ends in the same place.

`Meter` belongs to one evaluation. The instrumented expression calls it: `tick` whenever a function is entered, `weigh`
with whatever is named, returned or built in a loop, `guard` before a built-in whose result could be out of all
proportion. What breaks a limit is remembered in `breach`, because the library only keeps an error's text.
"""

import re
from collections.abc import Callable
from typing import Final

from engine.errors import ExpressionError
from engine.tokens import MAX_EXACT_INTEGER

MAX_CALLS: Final = 50_000
MAX_RANGE: Final = 10_000
MAX_ITEMS: Final = 10_000
MAX_DISTINCT: Final = 2_000
MAX_NODES: Final = 100_000
MAX_TEXT: Final = 1_048_576
MAX_DEPTH: Final = 200
MAX_WORK: Final = 1_000_000
MAX_INPUT_NODES: Final = 250_000
MAX_INPUT_TEXT: Final = 8 * MAX_TEXT
MAX_PICTURE: Final = 500
MAX_REPLACEMENT_WORK: Final = 16 * MAX_TEXT
_MAX_ROMAN: Final = 100_000
_TEXT_PER_WORK = 64

_WIDE = re.compile(r"\[[^\]]*[,-]\s*[0-9]{4,}")
_YEAR = re.compile(r"\[\s*[YX]")
_ZONED = re.compile(r"[^T]*|.*(?:Z|[+-][0-9]{2}:?[0-9]{2})", re.DOTALL)


def limit(message: str) -> ExpressionError:
    """The error for a count that is exceeded."""
    return ExpressionError("EXPRESSION_LIMIT", message)


def failed(message: str) -> ExpressionError:
    """The error for an expression that cannot be carried out."""
    return ExpressionError("EXPRESSION_FAILED", message)


def measure(
    value: object, max_nodes: int, max_text: int, what: str, code: str = "EXPRESSION_RESULT"
) -> tuple[int, int]:
    """How many values there are in a JSON value, and how many characters in its texts and keys.

    Raises EXPRESSION_LIMIT, saying `what` is too large, beyond `max_nodes`, `max_text` or a depth of 200, and `code`
    for what is not JSON.
    """
    nodes = text = depth = 0
    level: list[object] = [value]
    while level:
        nodes += len(level)
        depth += 1
        below: list[object] = []
        for item in level:
            kind = type(item)
            if kind is str:
                text += len(item)  # type: ignore[arg-type]
            elif kind is dict:
                text += sum(map(len, item))  # type: ignore[call-overload]
                below.extend(item.values())  # type: ignore[attr-defined]
            elif kind is list:
                below.extend(item)  # type: ignore[arg-type]
            elif kind is float:
                if item - item != 0.0:  # type: ignore[operator]
                    raise ExpressionError(code, f"{what} holds a number that is not finite")
            elif item is not None and kind is not int and kind is not bool:
                raise ExpressionError(code, f"{what} holds a {kind.__name__}, which is not JSON")
        if nodes > max_nodes or nodes + len(below) > max_nodes:
            raise limit(f"{what} has more than {max_nodes} values")
        if text > max_text:
            raise limit(f"{what} has more than {max_text} characters")
        if below and depth >= MAX_DEPTH:
            raise limit(f"{what} is nested deeper than {MAX_DEPTH}")
        level = below
    return nodes, text


def check_integers(value: object) -> None:
    """Raises EXPRESSION_FAILED for a whole number above 2^53: the library would silently hand back another one."""
    level: list[object] = [value]
    while level:
        below: list[object] = []
        for item in level:
            if type(item) is int:
                if not -MAX_EXACT_INTEGER <= item <= MAX_EXACT_INTEGER:
                    raise failed(f"the number {item} is above 2^53 and cannot be kept exactly; pass it as a string")
            elif type(item) is dict:
                below.extend(item.values())
            elif type(item) is list:
                below.extend(item)
        level = below


class Meter:
    """What one evaluation has used so far."""

    __slots__ = ("breach", "calls", "work")

    def __init__(self) -> None:
        self.calls = 0
        self.work = 0
        self.breach: BaseException | None = None

    def tick(self) -> None:
        """One call of a function of the author's own. Raises EXPRESSION_LIMIT after 50,000."""
        self.calls += 1
        if self.calls > MAX_CALLS:
            raise limit(f"more than {MAX_CALLS} function calls")

    def weigh(self, value: object) -> None:
        """A value that may be used more than once from here on. Raises EXPRESSION_LIMIT when it is too large, or
        when all that was weighed in this evaluation is.
        """
        if type(value) in (int, bool, float, type(None)):
            self.work += 1
        else:
            nodes, text = measure(value, MAX_NODES, MAX_TEXT, "a value")
            self.work += nodes + text // _TEXT_PER_WORK
        if self.work > MAX_WORK:
            raise limit(f"the expression handles more than {MAX_WORK} values")

    def pick(self, indices: object) -> None:
        """A predicate's value. Raises EXPRESSION_LIMIT for a list that picks one item twice, or picks too many."""
        if not isinstance(indices, list):
            return
        self.weigh(indices)
        numbers = [index for index in indices if isinstance(index, int | float) and not isinstance(index, bool)]
        if len(numbers) > 1_000 or len({int(number) for number in numbers}) != len(numbers):
            raise limit("a list of positions picks an item twice, or more than 1000 items")

    def range(self, low: object, high: object) -> list[int]:
        """The whole numbers from `low` to `high`, none when either is missing.

        Raises EXPRESSION_LIMIT beyond 10,000 and EXPRESSION_FAILED when a bound is not a whole number.
        """
        if low is None or high is None:
            return []
        if type(low) is not int or type(high) is not int:
            raise failed("the bounds of a range are whole numbers")
        if high - low >= MAX_RANGE:
            raise limit(f"a range has more than {MAX_RANGE} items")
        self.work += max(0, high - low) + 1
        return list(range(low, high + 1))

    def guard(self, name: str, *arguments: object) -> None:
        """Called before the built-in `name` is, with its arguments. Raises EXPRESSION_LIMIT or EXPRESSION_FAILED."""
        _GUARDS[name](arguments)


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


def _check_picture(picture: object) -> None:
    if isinstance(picture, str) and (len(picture) > MAX_PICTURE or _WIDE.search(picture)):
        raise limit(f"a picture is longer than {MAX_PICTURE} characters or asks for a width above 999")


def _guard_format_integer(arguments: tuple[object, ...]) -> None:
    number, picture = arguments[:2]
    if isinstance(number, int | float) and isinstance(picture, str):
        if len(picture) > MAX_PICTURE:
            raise limit(f"a picture is longer than {MAX_PICTURE} characters")
        if "i" in picture.lower() and abs(number) > _MAX_ROMAN:
            raise limit(f"a roman numeral above {_MAX_ROMAN}")
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
    if isinstance(text, str) and len(text) > MAX_PICTURE:
        raise limit(f"$toMillis of more than {MAX_PICTURE} characters")
    if isinstance(picture, str):
        _check_picture(picture)
        if not _YEAR.search(picture):
            raise failed("$toMillis needs a picture with the year; the library would take today's")
    elif isinstance(text, str) and not _ZONED.fullmatch(text):
        raise failed("$toMillis needs a time zone; the library would take the machine's")


_GUARDS: Final[dict[str, Callable[[tuple[object, ...]], None]]] = {
    "pad": _guard_pad,
    "join": _guard_join,
    "replace": _guard_replace,
    "split": _guard_split,
    "distinct": _guard_distinct,
    "formatInteger": _guard_format_integer,
    "formatNumber": _guard_format_number,
    "fromMillis": _guard_from_millis,
    "toMillis": _guard_to_millis,
}
