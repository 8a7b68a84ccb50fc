"""A figure: what was measured, what stands beside it, and whether the goal was reached."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the table. `reached` is None where there is no goal; `numbers` go into the result file."""

    part: str
    case: str
    millrace: str
    beside: str = ""
    ratio: str = ""
    goal: str = ""
    reached: bool | None = None
    numbers: dict[str, Any] = field(default_factory=dict)


Say = Callable[[str], None]
