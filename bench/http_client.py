"""A caller that costs little: HTTP/1.1 over connections that are kept, so that the server is what is measured.

A full client library spends about as long on a request as the API does.
"""

import asyncio
import json
from types import TracebackType
from typing import Any, Self


class _Connection:
    """One connection; one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def post(self, host: str, path: str, body: bytes) -> tuple[int, bytes]:
        """The status and the body of the answer."""
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self.writer.write(head.encode() + body)
        answer = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *rest = answer.split("\r\n")
        length = next(line for line in rest if line.lower().startswith("content-length:"))
        return int(first.split()[1]), await self.reader.readexactly(int(length.partition(":")[2]))


class Caller:
    """Posts JSON to one server. Opens as many connections as are needed at once, and keeps them."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._idle: list[_Connection] = []

    async def post(self, path: str, document: Any) -> tuple[int, Any]:
        """The status and the JSON of the answer."""
        connection = self._idle.pop() if self._idle else await self._connect()
        status, body = await connection.post(self._address[0], path, json.dumps(document).encode())
        self._idle.append(connection)
        return status, json.loads(body)

    async def _connect(self) -> _Connection:
        return _Connection(*await asyncio.open_connection(*self._address))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._idle:
            writer = self._idle.pop().writer
            writer.close()
            await writer.wait_closed()
