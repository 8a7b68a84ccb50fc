"""What every request passes first: its size and its JSON are checked, its end is logged.

Plain ASGI, because a body that is too large must be refused while it streams in, whatever it claims to be.
"""

import time
from http import HTTPStatus
from urllib.parse import urlsplit

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import AppError, Invalid
from app.problem_details import problem_response
from app.settings import ApiSettings
from app.untrusted import check_json

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

log = structlog.get_logger(__name__)


class Intake:
    """Refuses what no route should see, and logs every request.

    Paths that begin with `left_alone` are served under any name, and their bodies are left to their route, which knows
    how large they may be and what they are. They too are refused to pages of other sites. The bodies of the paths that
    are `streamed` are left to their route, too, and nothing else is.
    """

    def __init__(
        self, app: ASGIApp, settings: ApiSettings, left_alone: str, streamed: frozenset[str] = frozenset()
    ) -> None:
        self._app = app
        self._left_alone = left_alone
        self._streamed = streamed
        self._max_body_bytes = settings.max_body_bytes
        self._hosts = None if settings.allow_remote else _LOOPBACK | {settings.host}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status: int | None = None

        async def noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._take(scope, receive, noting_status)
        except AppError as error:
            await problem_response(error)(scope, receive, noting_status)
        finally:
            log.info(
                "request_served",
                method=scope["method"],
                path=scope["path"],
                status=status or HTTPStatus.INTERNAL_SERVER_ERROR.value,
                milliseconds=round((time.perf_counter() - began) * 1000, 1),
            )

    async def _take(self, scope: Scope, receive: Receive, send: Send) -> None:
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            raise Invalid("TEXT_NOT_STORABLE", "The address must not contain NUL characters.")
        headers = Headers(scope=scope)
        if scope["path"].startswith(self._left_alone):
            _check_sender(scope["method"], headers, None)
            await self._app(scope, receive, send)
            return
        _check_sender(scope["method"], headers, self._hosts)
        if scope["path"] in self._streamed:
            await self._app(scope, receive, send)
            return
        body = await self._read(headers, receive)
        if body is None:
            return
        if body and _is_json(headers.get("content-type", "")):
            check_json(body)
        await self._app(scope, _replayed(body, receive), send)

    async def _read(self, headers: Headers, receive: Receive) -> bytes | None:
        """The whole body; None when the client has gone."""
        claimed = headers.get("content-length", "")
        if claimed.isdecimal() and int(claimed) > self._max_body_bytes:
            raise self._too_large()
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return None
            body += message.get("body", b"")
            if len(body) > self._max_body_bytes:
                raise self._too_large()
            if not message.get("more_body"):
                return bytes(body)

    def _too_large(self) -> AppError:
        return AppError("BODY_TOO_LARGE", 413, f"A body may have {self._max_body_bytes} bytes.")


def _check_sender(method: str, headers: Headers, hosts: frozenset[str] | None) -> None:
    """Refuses what a web page elsewhere makes a browser send: loopback keeps strangers out, not their pages.

    `hosts` are the names under which the API may be spoken to; None allows any.
    """
    host = headers.get("host", "")
    name = urlsplit(f"//{host}").hostname or ""
    if hosts is not None and name not in hosts:
        raise AppError("HOST_REFUSED", 403, f"The API is not to be found under the name {name[:100]}.")
    if method in _SAFE:
        return
    origin = headers.get("origin")
    foreign = origin is not None and urlsplit(origin).netloc != host
    if foreign or headers.get("sec-fetch-site") == "cross-site":
        raise AppError("ORIGIN_REFUSED", 403, "A page of another site may not change anything here.")


def _is_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == "application/json" or media_type.endswith("+json")


def _replayed(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
