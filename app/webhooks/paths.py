"""Which endpoint an address means: patterns of paths, and the one that says most about a path.

A pattern is segments with slashes between them. A segment is text, in which `*` is any characters and `?` is one, or
`{name}`, a whole segment that is handed on under its name; `**` as the last is one segment or more.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeVar

from app.errors import Invalid

# Where webhooks come in, and what stands before it.
HOOKS = "/hooks"
HOOKS_ADDRESS = f"/api/v1{HOOKS}"
LONGEST_PATTERN = 500
LONGEST_PATH = 2_000
_MOST_SEGMENTS = 20
# Each further one multiplies what a long segment costs to match.
_MOST_STARS = 2
_TEXT = re.compile(r"[A-Za-z0-9._~:@!$&'()+,;=*?-]+")
_NAME = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]{0,99})\}")
_REST = "**"

Found = TypeVar("Found")


class _Kind(IntEnum):
    """The lower, the more a segment says."""

    LITERAL = 0
    PARTLY = 1
    ANY = 2
    REST = 3


@dataclass(frozen=True, slots=True)
class _Segment:
    kind: _Kind
    text: str
    name: str | None = None

    def rank(self) -> tuple[int, int]:
        """Smaller for what says more: by kind, then by how many characters are fixed."""
        return self.kind, -len(self.text.replace("*", ""))

    def matches(self, given: str) -> bool:
        if self.kind == _Kind.LITERAL:
            return given == self.text
        if self.kind == _Kind.PARTLY:
            pattern = re.escape(self.text).replace(r"\*", ".*").replace(r"\?", ".")
            return re.fullmatch(pattern, given, re.DOTALL) is not None
        return bool(given)


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern that was read."""

    segments: tuple[_Segment, ...]

    @property
    def text(self) -> str:
        """How it is written, without outer slashes."""
        return "/".join(segment.text if segment.name is None else f"{{{segment.name}}}" for segment in self.segments)

    @property
    def shape(self) -> str:
        """The same for all patterns that match the same paths but for the names of their parameters."""
        return "/".join(segment.text for segment in self.segments)

    @property
    def wild(self) -> bool:
        """Whether it may match several paths."""
        return any(segment.kind != _Kind.LITERAL for segment in self.segments)

    @property
    def open_ended(self) -> bool:
        """Whether it matches paths of more segments than it has."""
        return self.segments[-1].kind == _Kind.REST

    def match(self, path: Sequence[str]) -> dict[str, str] | None:
        """The parameters of a path that it matches; None when it does not match."""
        if len(path) != len(self.segments) and not (self.open_ended and len(path) > len(self.segments)):
            return None
        if not all(path) or not all(map(_Segment.matches, self.segments, path)):
            return None
        return {segment.name: given for segment, given in zip(self.segments, path, strict=False) if segment.name}


def read_pattern(text: str) -> Pattern:
    """The pattern; outer slashes mean nothing. Raises `Invalid` PATH_INVALID."""
    parts = split_path(text)
    if len(text) > LONGEST_PATTERN or len(parts) > _MOST_SEGMENTS:
        raise _invalid(f"a path has at most {LONGEST_PATTERN} characters and {_MOST_SEGMENTS} segments")
    segments = tuple(_segment(part, last=index == len(parts) - 1) for index, part in enumerate(parts))
    names = [segment.name for segment in segments if segment.name is not None]
    if len(set(names)) < len(names):
        raise _invalid("two parameters have the same name")
    return Pattern(segments)


def split_path(path: str) -> list[str]:
    """The segments of a path; one slash at its beginning and one at its end mean nothing."""
    return path.removeprefix("/").removesuffix("/").split("/")


def choose(path: str, candidates: Iterable[tuple[str, Found]]) -> tuple[Found, dict[str, str]] | None:
    """Of the candidates (each with its pattern) the one that says most about the path, with the path's parameters.

    Segment by segment from the left, text is more than text with wildcards, that (the more fixed characters the more)
    than a whole segment, and that than `**`. Patterns of one shape are one, so that there is never a tie.
    """
    segments = split_path(path)
    best: tuple[list[tuple[int, int]], str] | None = None
    chosen = None
    for text, candidate in candidates:
        pattern = read_pattern(text)
        parameters = pattern.match(segments)
        if parameters is None:
            continue
        rank = ([segment.rank() for segment in pattern.segments], pattern.shape)
        if best is None or rank < best:
            best, chosen = rank, (candidate, parameters)
    return chosen


def _segment(text: str, *, last: bool) -> _Segment:
    if text == _REST:
        if not last:
            raise _invalid("** is the last segment")
        return _Segment(_Kind.REST, _REST)
    named = _NAME.fullmatch(text)
    if named is not None:
        return _Segment(_Kind.ANY, "*", named[1])
    if text in {".", ".."} or not _TEXT.fullmatch(text):
        raise _invalid(f"{text[:100]!r} is no segment: letters, digits, ._~:@!$&'()+,;=- and wildcards, or {{name}}")
    if text.count("*") > _MOST_STARS or _REST in text:
        raise _invalid(f"a segment has at most {_MOST_STARS} wildcards *, with something between them")
    if text == "*":
        return _Segment(_Kind.ANY, "*")
    return _Segment(_Kind.PARTLY if set("*?") & set(text) else _Kind.LITERAL, text)


def _invalid(message: str) -> Invalid:
    return Invalid(
        "PATH_INVALID", "The path of the endpoint is not valid.", [{"path": "body.path", "message": message}]
    )
