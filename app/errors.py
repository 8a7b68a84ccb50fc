"""Errors that users of the API and the command line see: a stable code, a status, a sentence."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID


class AppError(Exception):
    """A refusal: `code` is stable and for programs, `message` for people, `problems` lists every finding.

    A finding is `{path, code, message}`; one that has no code of its own has that of the refusal.
    `event_record_id` is the event in the inbox that was refused, if it was stored: see `about_event`.
    """

    def __init__(self, code: str, status: int, message: str, problems: Sequence[dict[str, Any]] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.message = message
        self.problems = tuple({"code": code, **problem} for problem in problems)
        self.event_record_id: UUID | None = None

    @property
    def headers(self) -> Mapping[str, str]:
        """What the answer's headers say."""
        return {}


class NotFound(AppError):
    """404: there is no such thing."""

    def __init__(self, what: str, name: object) -> None:
        super().__init__(f"{what.upper().replace(' ', '_')}_NOT_FOUND", 404, f"There is no {what} {name}.")


class Conflict(AppError):
    """409: the state of things does not allow it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, 409, message)


class Invalid(AppError):
    """422: understood, and not acceptable."""

    def __init__(self, code: str, message: str, problems: Sequence[dict[str, Any]] = ()) -> None:
        super().__init__(code, 422, message, problems)


class Unavailable(AppError):
    """503: something this needs cannot be reached, and nothing was stored."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, 503, message)


class TooMany(AppError):
    """429: another time, after `wait` seconds as far as anybody can tell."""

    def __init__(self, code: str, message: str, wait: float) -> None:
        super().__init__(code, 429, message)
        self.wait = wait

    @property
    def headers(self) -> Mapping[str, str]:
        """`Retry-After` in whole seconds."""
        return {"Retry-After": str(max(math.ceil(self.wait), 1))}


class Postponed(AppError):
    """Not now, and not never: an event that asks for it is kept and tried again; others are refused with `error`."""

    def __init__(self, error: AppError) -> None:
        super().__init__(error.code, error.status, error.message, error.problems)
        self.error = error


@contextmanager
def about_event(event_id: UUID | None) -> Iterator[None]:
    """What is refused in the block names the event that was stored, if one was, so that it can be found and delivered
    again.
    """
    try:
        yield
    except AppError as error:
        error.event_record_id = error.event_record_id or event_id
        raise
