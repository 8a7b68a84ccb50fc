"""What can go wrong inside the engine: one family, each error with a stable code and perhaps a definition path."""

from typing import Self


class EngineError(Exception):
    """A definition, an expression or an event is not usable. `path` points into the definition: `steps[3].name`;
    `faults` are what is wrong with what somebody gave: pairs of the path into that and a sentence.
    """

    def __init__(
        self, code: str, message: str, path: str | None = None, faults: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(message)
        self.faults = faults
        self.code = code
        self.message = message
        self.path = path

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message

    def at(self, path: str) -> Self:
        """The same error with a definition path; one that has a path already keeps it."""
        return self if self.path else type(self)(self.code, self.message, path, self.faults)


class ExpressionError(EngineError):
    """An expression does not compile, or has no acceptable result."""


class ClockExceeded(Exception):
    """An expression ran out of clock time.

    Not an `EngineError`: the clock would decide otherwise when history is replayed, so whoever drives the engine
    must first record that it happened.
    """

    def __init__(self, source: str) -> None:
        super().__init__(source)
        self.source = source
