"""Paths into the event: `after.status`, `{{variable.items[0].id}}`, `payload["first name"]`.

One rule of scope: a filter sees the event's payload and nothing else. `payload`, `trigger`, `variable` and
`__trigger__` as a first name all mean the payload itself, always; any other first name is a member of it. So what a
path means does not depend on the data, and a member that is really called `variable` is `payload.variable`.
"""

import json
import re
from dataclasses import dataclass
from typing import Final

from engine.json_types import JSON

ROOTS: Final = frozenset({"payload", "trigger", "variable", "__trigger__"})
LONGEST_PATH: Final = 500
MOST_MEMBERS: Final = 50

_NAME = r"""[^\s.\[\]{}()"'`*]+"""
_PLAIN = re.compile(_NAME)
_PART = re.compile(
    rf"""\.(?P<name>{_NAME})|\[(?P<index>[0-9]+)\]"""
    r"""|\[(?P<quoted>"(?:[^"\\]|\\.)*")\]|\['(?P<single>[^']*)'\]"""
)
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True)
class Path:
    """Members to follow from the payload on; a whole number steps into a list."""

    members: tuple[str, ...]

    def __str__(self) -> str:
        """As a path that reads back as this one, and begins with `payload`."""
        return "payload" + "".join(map(_written, self.members))

    @property
    def short(self) -> str:
        """For people: without the root where it is clear without."""
        written = str(self)
        return written.removeprefix("payload.") if self.members[:1] and self.members[0] not in ROOTS else written


def _written(member: str) -> str:
    return f".{member}" if _PLAIN.fullmatch(member) else f"[{json.dumps(member)}]"


def parse_path(text: str) -> Path | str:
    """The path that a text is, braces around it or not; or why it is none."""
    if len(text) > LONGEST_PATH:
        return f"a path has at most {LONGEST_PATH} characters"
    inner = text.strip()
    if inner.startswith("{{") and inner.endswith("}}") and len(inner) >= 4:
        inner = inner[2:-2].strip()
    if not inner:
        return "a path is empty"
    members = _members(inner)
    if isinstance(members, str):
        return members
    if members[0] in ROOTS and not inner.startswith("["):
        members = members[1:]
    return Path(tuple(members)) if len(members) <= MOST_MEMBERS else f"a path has at most {MOST_MEMBERS} members"


def _members(text: str) -> list[str] | str:
    members: list[str] = []
    rest = text if text.startswith("[") else f".{text}"
    at = 0
    while at < len(rest):
        part = _PART.match(rest, at)
        if part is None:
            return (
                f'a path is names with dots between them, [0] for an item and ["…"] for other names; '
                f"this one cannot be read from {rest[at : at + 20]!r} on"
            )
        if (quoted := part["quoted"]) is not None:
            try:
                members.append(json.loads(quoted))
            except ValueError:
                return f"{quoted[:40]} is not a name in quotes"
        else:
            members.append(part["name"] or part["index"] or part["single"] or "")
        at = part.end()
    return members


def follow(path: Path, payload: JSON) -> JSON:
    """What stands at a path; null where nothing does."""
    found = payload
    for member in path.members:
        if type(found) is dict:
            found = found.get(member)
        elif type(found) is list and _INDEX.fullmatch(member) and int(member) < len(found):
            found = found[int(member)]
        else:
            return None
    return found
