"""What can be known of a poll when it is saved: else its mistakes would come to light at its first time, at night."""

import asyncio
from collections.abc import Collection, Iterator
from typing import Final

from app.connections.failures import PASSING
from app.connections.opening import Connections
from app.connections.selecting import read_query, try_query
from app.errors import AppError, Invalid
from app.hosts import addresses_of, place_of, read_url, refused_address
from app.schedules.schemas import HttpSource, Poll, SqlSource
from app.settings import Settings
from engine.event_values import ROOT, read_event_value
from engine.syntax import Node, parse
from engine.values import Const

# Seconds that somebody who saves a poll waits for a database, or for the address of a host.
WITHIN: Final = 5.0
_PATH: Final = "body.poll"
_NAMES: Final = ("name", "quoted", "string")
# Where an expression provides for what is not there.
_GUARDS: Final = ("coalesce", "elvis", "condition")


class PollJudge:
    """Judges polls by what this installation is configured with."""

    def __init__(self, connections: Connections, settings: Settings) -> None:
        self._connections = connections
        self._settings = settings

    async def judge(self, poll: Poll) -> str | None:
        """Why a poll could not be judged to the end, because its source is away just now; None when it could be.

        Raises for what could never be asked: CONNECTION_UNKNOWN, CONNECTION_NOT_PERMITTED, QUERY_REFUSED,
        COLUMN_UNKNOWN, SECRET_UNKNOWN, HTTP_URL_INVALID, HTTP_ADDRESS_REFUSED.
        """
        if isinstance(poll.source, SqlSource):
            return await self._judge_query(poll, poll.source)
        return await self._judge_address(poll.source)

    async def _judge_query(self, poll: Poll, source: SqlSource) -> str | None:
        try:
            async with self._connections.reading(source.connection, WITHIN) as connection:
                columns = await try_query(connection, source.connection, read_query(source.query))
        except AppError as error:
            if error.code in PASSING:
                return f"{error.code}: {error.message} The query was not checked."
            part = "query" if error.code == "QUERY_REFUSED" else "connection"
            raise _at(error, f"source.{part}") from error
        problems = [
            {"path": f"{_PATH}.{part}", "message": f"the query has no column {name}; there are {', '.join(columns)}"}
            for part, expression in (("items", poll.items), ("id", poll.id), ("cursor", poll.cursor))
            for name in _columns_in(expression, ("response",) if poll.items else ("response", "items", "item"))
            if name not in columns
        ]
        if problems:
            raise Invalid("COLUMN_UNKNOWN", "The query has no such column.", problems)
        return None

    async def _judge_address(self, source: HttpSource) -> str | None:
        for header, name in source.secret_headers.items():
            if name not in self._settings.polling.secrets:
                unknown = Invalid("SECRET_UNKNOWN", f"No secret {name} is configured for polling.")
                raise _at(unknown, f"source.secretHeaders.{header}")
        written = read_event_value(source.url, "url")[0].value
        if not isinstance(written, Const):
            return None
        try:
            host, port = place_of(read_url(str(written.value)))
        except AppError as error:
            raise _at(error, "source.url") from error
        try:
            async with asyncio.timeout(WITHIN):
                addresses = await addresses_of(host, port)
        except (OSError, UnicodeError):
            return f"HTTP_HOST_UNKNOWN: {host} is not to be found. Its address was not checked."
        refused = refused_address(host, port, addresses, self._settings.http_action.allowed_private_hosts)
        if refused is not None:
            raise _at(Invalid("HTTP_ADDRESS_REFUSED", f"{refused}."), "source.url")
        return None


def _at(error: AppError, path: str) -> AppError:
    problems = [{"path": f"{_PATH}.{path}", "message": error.message}]
    return AppError(error.code, error.status, error.message, problems)


def _columns_in(expression: str | None, rows: Collection[str]) -> Iterator[str]:
    """The columns that an expression asks for without providing for their absence. `rows` are what rows, or a row,
    stand under.
    """
    pending = [] if expression is None else [parse(expression)]
    while pending:
        node = pending.pop()
        if node.kind in _GUARDS or (node.kind == "call" and node.parts[0].text == "exists"):
            continue
        if node.kind == "path" and len(node.parts) > 2:
            root, under, column = (_plain(part) for part in node.parts[:3])
            if root.text == ROOT and under.text in rows and column.kind in _NAMES:
                yield column.text
        pending += node.parts


def _plain(node: Node) -> Node:
    """What a predicate is about."""
    while node.kind in ("filter", "keep"):
        node = node.parts[0]
    return node
