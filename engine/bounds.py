"""How much an expression may do: counts, never the clock, so that a replay ends in the same place.

`Meter` belongs to one evaluation. The instrumented expression calls it: `tick` whenever a function is entered, `weigh`
with whatever is named, returned or built in a loop.
"""

from dataclasses import dataclass
from typing import Any, Final

from engine.errors import ExpressionError
from engine.tokens import MAX_EXACT_INTEGER

MAX_CALLS: Final = 50_000
MAX_RANGE: Final = 10_000
MAX_ITEMS: Final = 10_000
MAX_GROUPED: Final = 5_000
MAX_NODES: Final = 100_000
MAX_TEXT: Final = 1_048_576
MAX_DEPTH: Final = 200
MAX_WORK: Final = 1_000_000
MAX_INPUT_NODES: Final = 250_000
MAX_INPUT_TEXT: Final = 8 * MAX_TEXT
_TEXT_PER_WORK = 64


def limit(message: str) -> ExpressionError:
    """The error for a count that is exceeded."""
    return ExpressionError("EXPRESSION_LIMIT", message)


def failed(message: str) -> ExpressionError:
    """The error for an expression that cannot be carried out."""
    return ExpressionError("EXPRESSION_FAILED", message)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How large a JSON value may be, what to call it when it is larger, and the code when it is not JSON at all.
    With `exact`, whole numbers above 2^53 are refused, because the library would silently hand back others.
    """

    what: str
    nodes: int
    text: int
    code: str = "EXPRESSION_RESULT"
    exact: bool = False


DATA: Final = Bounds("the data", MAX_INPUT_NODES, MAX_INPUT_TEXT, "EXPRESSION_FAILED", exact=True)
PASSED_ON: Final = Bounds("the result", MAX_INPUT_NODES, MAX_INPUT_TEXT)
RESULT: Final = Bounds("the result", MAX_NODES, MAX_TEXT)
_VALUE: Final = Bounds("a value", MAX_NODES, MAX_TEXT)


def measure(value: object, bounds: Bounds) -> tuple[int, int]:
    """How many values there are in a JSON value, and how many characters in its texts and keys.

    Raises EXPRESSION_LIMIT beyond the bounds or a depth of 200, and the bounds' code for what is not JSON.
    """
    nodes, text, depth = 1, 0, 0
    level: list[object] = [value]
    while level:
        below: list[object] = []
        text += _text_of(level, below, bounds)
        nodes += len(below)
        depth += 1
        if nodes > bounds.nodes:
            raise limit(f"{bounds.what} has more than {bounds.nodes} values")
        if text > bounds.text:
            raise limit(f"{bounds.what} has more than {bounds.text} characters")
        if depth > MAX_DEPTH:
            raise limit(f"{bounds.what} is nested deeper than {MAX_DEPTH}")
        level = below
    return nodes, text


def _text_of(level: list[Any], below: list[object], bounds: Bounds) -> int:
    """The characters at one depth; what is nested there goes to `below`."""
    text = 0
    for item in level:
        kind = type(item)
        if kind is str:
            text += len(item)
        elif kind is int:
            if bounds.exact and not -MAX_EXACT_INTEGER <= item <= MAX_EXACT_INTEGER:
                raise failed(f"{_shown(item)} is above 2^53 and cannot be kept exactly; pass it as a string")
        elif kind is dict:
            text += _key_text(item, bounds)
            below.extend(item.values())
        elif kind is list:
            below.extend(item)
        elif kind is float:
            if item - item != 0.0:
                raise ExpressionError(bounds.code, f"{bounds.what} holds a number that is not finite")
        elif item is not None and kind is not bool:
            raise ExpressionError(bounds.code, f"{bounds.what} holds a {kind.__name__}, which is not JSON")
    return text


def _shown(number: int) -> str:
    """A whole number for a message; Python does not write one of more than some thousand digits."""
    return f"the number {number}" if number.bit_length() <= 256 else f"a number of {number.bit_length()} bits"


def _key_text(item: dict[str, object], bounds: Bounds) -> int:
    try:
        return len("".join(item))
    except TypeError:
        raise ExpressionError(bounds.code, f"{bounds.what} holds a key that is not text") from None


class Meter:
    """What one evaluation has used so far."""

    __slots__ = ("calls", "grouped", "work")

    def __init__(self) -> None:
        self.calls = 0
        self.grouped = 0
        self.work = 0

    def tick(self) -> None:
        """One call of a function of the author's own. Raises EXPRESSION_LIMIT after 50,000."""
        self.calls += 1
        if self.calls > MAX_CALLS:
            raise limit(f"more than {MAX_CALLS} function calls")

    def group(self) -> None:
        """One item that is put into a group. Raises EXPRESSION_LIMIT after 5,000: the library copies a group for
        every item that joins it.
        """
        self.grouped += 1
        if self.grouped > MAX_GROUPED:
            raise limit(f"more than {MAX_GROUPED} items are grouped")

    def weigh(self, value: object) -> None:
        """A value that may be used more than once from here on. Raises EXPRESSION_LIMIT when it is too large, or
        when all that was weighed in this evaluation is.
        """
        if type(value) in (int, bool, float, type(None)):
            self._spend(1)
        else:
            nodes, text = measure(value, _VALUE)
            self._spend(nodes + text // _TEXT_PER_WORK)

    def _spend(self, work: int) -> None:
        self.work += work
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
        if type(low) not in (int, type(None)) or type(high) not in (int, type(None)):
            raise failed("the bounds of a range are whole numbers")
        if not isinstance(low, int) or not isinstance(high, int):
            return []
        if high - low >= MAX_RANGE:
            raise limit(f"a range has more than {MAX_RANGE} items")
        self._spend(max(0, high - low) + 1)
        return list(range(low, high + 1))
