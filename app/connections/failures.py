"""What failures of users' databases mean, in our words, and never with a URL."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from asyncpg.exceptions import InterfaceError, PostgresError

from app.errors import AppError, Conflict, Invalid, Unavailable

# SQLSTATEs: connections, authorisation, no such database, resources, intervention.
_AWAY: Final = ("08", "28", "3D", "53", "57")
_CANCELLED: Final = "57014"
_NOT_PERMITTED: Final = "42501"
_LOCKED: Final = "55P03"

# Codes of what may be over in a while: nothing is wrong with what was asked.
PASSING: Final = frozenset({"CONNECTION_UNREACHABLE", "QUERY_TIMED_OUT", "TABLE_BUSY"})


@contextmanager
def told(name: str) -> Iterator[None]:
    """Raises what a failure of a user's database means.

    CONNECTION_UNREACHABLE and QUERY_TIMED_OUT (503), CONNECTION_NOT_PERMITTED, TABLE_BUSY. What means nothing to
    users passes as it is.
    """
    try:
        yield
    except AppError:
        raise
    except PostgresError as error:
        meaning = _meaning(name, error)
        if meaning is None:
            raise
        raise meaning from error
    except (OSError, TimeoutError, InterfaceError) as error:
        raise _unreachable(name, type(error).__name__) from error


@contextmanager
def judged(name: str) -> Iterator[None]:
    """Raises `Invalid` QUERY_REFUSED with what PostgreSQL says of SQL that is the user's, and what `told` raises."""
    with told(name):
        try:
            yield
        except PostgresError as error:
            if _meaning(name, error) is not None:
                raise
            raise Invalid("QUERY_REFUSED", f"PostgreSQL refuses the query: {error}") from error


def _meaning(name: str, error: PostgresError) -> AppError | None:
    state = str(error.sqlstate or "")
    if state == _CANCELLED:
        return Unavailable("QUERY_TIMED_OUT", f"The database of connection {name} called the query off: {error}.")
    if state.startswith(_AWAY):
        return _unreachable(name, type(error).__name__)
    if state == _NOT_PERMITTED:
        return Conflict("CONNECTION_NOT_PERMITTED", f"The database of connection {name} does not permit it: {error}.")
    if state == _LOCKED:
        return Conflict("TABLE_BUSY", f"The table is in use on the database of connection {name}; try again later.")
    return None


def _unreachable(name: str, why: str) -> Unavailable:
    return Unavailable("CONNECTION_UNREACHABLE", f"The database of connection {name} cannot be reached ({why}).")
