"""How much a run may hold. What is more is refused with a code: a run whose state takes its server longer to pass on
than a workflow task may last would stand still for ever.

Sizes are bytes of JSON. A step over items is counted as its results come; the state as a whole by the driver, when it
is about to be passed on to another run.
"""

from typing import Final

from pydantic_core import to_json

from engine.errors import EngineError
from engine.json_types import JSON
from engine.protocol import RunInput
from engine.state import Fan

# All that the items or iterations of a step give together, and what a chunk of a batch begins with.
LARGEST_OF_STEP: Final = 32 * 1024 * 1024

# What a run passes on when it continues as new, and what a dead letter keeps.
LARGEST_STATE: Final = 64 * 1024 * 1024

# What one call of the interpreter hands to actions and children before the server takes note of it: that is one
# workflow task. Whatever is handed over last may be more.
LARGEST_AT_ONCE: Final = 16 * 1024 * 1024

# The revision of the engine from which on results are counted.
COUNTS_RESULTS: Final = 5


def size_of(value: object) -> int:
    """The bytes of a value as JSON."""
    return len(to_json(value))


def counted(run: RunInput, held: int, more: JSON, whose: str) -> int:
    """What a step holds with one result more; always 0 in runs that began before results were counted.

    Raises RESULT_TOO_LARGE when that is too much.
    """
    if run.revision < COUNTS_RESULTS:
        return 0
    held += size_of(more)
    if held > LARGEST_OF_STEP:
        raise EngineError("RESULT_TOO_LARGE", f"{whose} would have {held} bytes; they may have {LARGEST_OF_STEP}")
    return held


def with_result(run: RunInput, fan: Fan, item: int, result: JSON) -> Fan:
    """A step over items with the result of one more. Raises RESULT_TOO_LARGE."""
    held = counted(run, fan.held, result, f"with item {item} the results of {fan.work.step_id}")
    return fan._replace(results=fan.results.set(item, result), held=held)


def handed_over(run: RunInput, value: object) -> int:
    """The bytes of what an action, a child or another run is given; 0 in runs that began before they were counted."""
    return size_of(value) if run.revision >= COUNTS_RESULTS else 0


def check_passed_on(run: RunInput, value: object, what: str, code: str) -> int:
    """The bytes of what another run is handed, or of the output of this one. Raises `EngineError` with the code."""
    size = handed_over(run, value)
    if size > LARGEST_OF_STEP:
        raise EngineError(code, f"{what} would have {size} bytes; there may be {LARGEST_OF_STEP}")
    return size
