"""What validation says: one problem, with everything an author needs to find and mend it."""

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """ERROR stops a publish; WARNING and NOT_CHECKED do not."""

    ERROR = "ERROR"
    WARNING = "WARNING"
    NOT_CHECKED = "NOT_CHECKED"


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding. `path` points into the document: `steps[3].parameters.to`."""

    rule: str
    code: str
    message: str
    path: str
    severity: Severity = Severity.ERROR
    step_ids: tuple[str, ...] = ()
    transition_ids: tuple[str, ...] = ()
