"""What may be wrong with a filter, all of it told at once."""

from enum import StrEnum
from typing import Final, Self

from engine.errors import EngineError
from engine.problems import Problem

CODE: Final = "FILTER_INVALID"
MOST_PROBLEMS: Final = 500


class FilterRule(StrEnum):
    """The rules that a stored filter keeps; `docs/filters.md` says them in words."""

    SHAPE = "FILTER_SHAPE"
    SIZE = "FILTER_SIZE"
    PATH = "FILTER_PATH_VALID"
    OPERATOR = "FILTER_OPERATOR_EXISTS"
    TYPE = "FILTER_OPERATOR_FITS_TYPE"
    OPERAND = "FILTER_OPERAND_VALID"
    PATTERN = "FILTER_PATTERN_LINEAR"
    EXPRESSION = "FILTER_EXPRESSION_VALID"


class FilterError(EngineError):
    """A filter cannot be used: FILTER_INVALID. `problems` are all there are (of thousands, the first 500)."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        first = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(CODE, f"{first.message}{more}", first.path)
        self.problems = problems

    def at(self, path: str) -> Self:
        """Itself: its problems have paths already; `parse` takes where they begin."""
        return self


class Faults:
    """Collects what is wrong with one document."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def add(self, path: str, rule: FilterRule, message: str) -> None:
        """Notes a problem at a path of the document."""
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(Problem(rule, CODE, message, path))
