"""The keys of triggers: one rule for whatever names one, because what is made in one place is named in all others."""

import re
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

LONGEST: Final = 200
RULE: Final = (
    f"a trigger's key has 1 to {LONGEST} characters, no slash and no control character among them, "
    "and no space at either end"
)
# The address of a trigger ends with its key, so that it can have no slash.
_UNFIT: Final = "/\x00-\x1f\x7f-\x9f\u2028\u2029"
_PATTERN: Final = re.compile(rf"[^\s{_UNFIT}]([^{_UNFIT}]*[^\s{_UNFIT}])?")
_SCHEMA: Final[dict[str, Any]] = {"minLength": 1, "maxLength": LONGEST, "pattern": r"^[^\s/]([^/]*[^\s/])?$"}


def _checked(key: str) -> str:
    if len(key) > LONGEST or _PATTERN.fullmatch(key) is None:
        raise PydanticCustomError("trigger_key_invalid", RULE)
    return key


TriggerKey = Annotated[str, AfterValidator(_checked), Field(json_schema_extra=_SCHEMA, description=RULE)]


def as_trigger_key(text: str) -> str:
    """A key made of a text that is not empty, such as a table's name, in which anything may stand."""
    return re.sub(f"[{_UNFIT}]", "_", text).strip()[:LONGEST].strip() or "_"
