"""What the engine finds in a filter or a value, as the findings of a refusal: path, code and message."""

from collections.abc import Iterable
from typing import Any

from app.errors import Invalid
from engine.filters.faults import FilterError
from engine.problems import Problem


def findings(problems: Iterable[Problem], below: str = "") -> list[dict[str, Any]]:
    """Each with the rule that it breaks as its code; paths begin with `below`."""
    return [
        {"path": f"{below}{problem.path}", "code": str(problem.rule), "message": problem.message}
        for problem in problems
    ]


def filter_invalid(error: FilterError, below: str = "") -> Invalid:
    """FILTER_INVALID, wherever a filter is saved."""
    return Invalid("FILTER_INVALID", "The filter is not valid.", findings(error.problems, below))
