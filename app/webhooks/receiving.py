"""What comes in at an endpoint: refused, or kept as an event before its sender is told so.

The order is: how large it says it is, the endpoint and whether it is on, the method, the rate, the required headers,
the body's size, the signature, what the body is. So the cheap comes first, and what nobody vouches for is neither read
nor kept. Whoever is refused for his signature learns no more than that; the endpoint's counts say which it was.
"""

import hashlib
import hmac
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import structlog
from starlette.requests import Request

from app.db.event_tables import WebhookEndpoint
from app.db.session import Database
from app.db.statuses import EventSource, WebhookScheme
from app.db.tables import new_id
from app.errors import AppError, TooMany, Unavailable
from app.inbox.storing import Incoming, Stored, store
from app.secrets import Vault
from app.settings import Settings
from app.webhooks.bodies import (
    as_id,
    event_kind,
    gathered,
    joined_headers,
    read_body,
    scheme_id,
    without_secrets,
)
from app.webhooks.credentials import hidden_headers, verification_of
from app.webhooks.paths import HOOKS, LONGEST_PATH, choose, split_path
from app.webhooks.queries import count, find_candidates, take_allowance
from app.webhooks.signatures import verify
from app.webhooks.values import compute
from engine.errors import EngineError

log = structlog.get_logger(__name__)

ACCEPTED = "ACCEPTED"
REPEATED = "REPEATED"
# Longer ids are known by their hash, so that any fits into the key of an event.
_LONGEST_ID = 400


class Refused(Exception):
    """A request that is not taken: what its sender is told, and by which name it is counted."""

    def __init__(self, error: AppError, result: str | None = None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.result = result or error.code
        self.headers = headers


@dataclass(frozen=True, slots=True)
class Receiver:
    """What it takes to receive."""

    database: Database
    settings: Settings
    vault: Vault


@dataclass(frozen=True, slots=True)
class Delivery:
    """A request that was taken, as an event sees it (`payload`), and the event that it is."""

    endpoint: WebhookEndpoint
    payload: dict[str, Any]
    stored: Stored


@dataclass(frozen=True, slots=True)
class _Call:
    """A request on its way through the checks."""

    request: Request
    path: str
    params: dict[str, str]
    headers: dict[str, str]
    now: float = field(default_factory=time.time)


async def find_endpoint_of(receiver: Receiver, path: str) -> tuple[WebhookEndpoint, dict[str, str]]:
    """The endpoint that says most about the path, on or off, and the path's parameters. Raises `Refused` 404."""
    segments = split_path(path)
    if len(path) <= LONGEST_PATH:
        async with receiver.database.transaction() as session:
            found = await find_candidates(session, "/".join(segments), len(segments))
        chosen = choose(path, [(endpoint.path, endpoint) for endpoint in found])
        if chosen is not None:
            return chosen
    raise Refused(_not_found())


async def receive(receiver: Receiver, request: Request, path: str) -> Delivery:
    """Takes a request, as an event that is stored. Raises `Refused`, and `Unavailable` when nothing was stored."""
    if _claimed_size(request) > receiver.settings.webhooks.max_body_bytes:
        raise Refused(_too_large(receiver.settings.webhooks.max_body_bytes))
    endpoint, params = await find_endpoint_of(receiver, path)
    try:
        delivery = await _take(
            receiver, endpoint, _Call(request, path, params, joined_headers(request.headers.items()))
        )
    except Refused as refused:
        log.info("webhook_refused", endpoint=str(endpoint.id), result=refused.result)
        await _count(receiver, endpoint, refused.result)
        raise
    await _count(receiver, endpoint, REPEATED if delivery.stored.repeated else ACCEPTED)
    return delivery


async def _take(receiver: Receiver, endpoint: WebhookEndpoint, call: _Call) -> Delivery:
    await _check_manners(receiver, endpoint, call)
    body = await _read(call.request, min(endpoint.max_bytes, receiver.settings.webhooks.max_body_bytes))
    try:
        secrets = _live_secrets(receiver.vault, endpoint)
        fault = verify(verification_of(endpoint), secrets, call.headers, body, call.now)
        if fault is not None:
            raise Refused(_unbelieved(), fault.value)
        content = read_body(body, call.headers.get("content-type", ""), WebhookScheme(endpoint.scheme))
    except AppError as error:
        raise Refused(error) from error
    payload = {
        "method": call.request.method,
        "path": f"{HOOKS}/{call.path}",
        "params": call.params,
        "query": gathered(parse_qsl(call.request.url.query, keep_blank_values=True)),
        "headers": without_secrets(call.headers, hidden_headers(endpoint)),
        "body": content,
    }
    incoming = _incoming(endpoint, call, payload)
    async with receiver.database.driver() as connection, connection.transaction():
        [stored] = await store(connection, [incoming])
    return Delivery(endpoint, payload, stored)


async def _check_manners(receiver: Receiver, endpoint: WebhookEndpoint, call: _Call) -> None:
    """Everything that can be checked without the body."""
    if not endpoint.enabled:
        raise Refused(_not_found(), "WEBHOOK_DISABLED")
    if call.request.method not in endpoint.methods:
        error = AppError("METHOD_NOT_ALLOWED", 405, f"This webhook takes {', '.join(endpoint.methods)}.")
        raise Refused(error, headers={"Allow": ", ".join(endpoint.methods)})
    if endpoint.rate_limit is not None:
        async with receiver.database.driver() as connection:
            wait = await take_allowance(connection, endpoint.id, endpoint.rate_limit)
        if wait is not None:
            raise Refused(TooMany("RATE_LIMITED", "More came in than this webhook takes. Try again later.", wait))
    for name, value in endpoint.required_headers.items():
        given = call.headers.get(name.lower())
        # Some take a header with a fixed value for a password.
        if given is None or (value is not None and not hmac.compare_digest(given.encode(), value.encode())):
            message = "A header that this webhook requires is not there, or says something else."
            raise Refused(AppError("HEADER_REQUIRED", 400, message))


async def _read(request: Request, most: int) -> bytes:
    """The body. Raises `Refused` as soon as it is larger than it may be."""
    if _claimed_size(request) > most:
        raise Refused(_too_large(most))
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise Refused(_too_large(most))
    return bytes(body)


def _live_secrets(vault: Vault, endpoint: WebhookEndpoint) -> Sequence[str]:
    """The secrets that are good now, the current one first. Raises SECRET_UNREADABLE."""
    stored = [endpoint.secret]
    until = endpoint.previous_secret_until
    if until is not None and until > datetime.now(UTC):
        stored.append(endpoint.previous_secret)
    return [vault.open_up(one) for one in stored if one is not None]


def _incoming(endpoint: WebhookEndpoint, call: _Call, payload: dict[str, Any]) -> Incoming:
    event_id = new_id()
    scheme = WebhookScheme(endpoint.scheme)
    # Without an id a delivery is an event of its own: two orders may well be alike.
    identity = _identity(endpoint, call.headers, payload) or str(event_id)
    if len(identity) > _LONGEST_ID:
        identity = hashlib.sha256(identity.encode(errors="replace")).hexdigest()
    said = event_kind(scheme, call.headers, payload["body"]) or endpoint.name
    return Incoming(
        id=event_id,
        source=EventSource.WEBHOOK,
        trigger_key=endpoint.trigger_key,
        dedupe_key=f"{endpoint.id}:{identity}",
        summary=f"{call.request.method} {HOOKS}/{call.path} · {said}",
        payload=payload if endpoint.template_id is None else {"context": payload},
        template_id=endpoint.template_id,
    )


def _identity(endpoint: WebhookEndpoint, headers: Mapping[str, str], payload: dict[str, Any]) -> str | None:
    """What repetitions of a delivery have in common; None when nothing says."""
    if endpoint.dedupe is None:
        return scheme_id(WebhookScheme(endpoint.scheme), headers, payload["body"])
    if endpoint.dedupe.get("header") is not None:
        return headers.get(endpoint.dedupe["header"].lower())
    try:
        return as_id(compute(endpoint.dedupe["value"], payload, str(endpoint.id)))
    except EngineError as error:
        log.warning("webhook_id_not_computed", endpoint=str(endpoint.id), code=error.code, reason=error.message)
        return None


async def _count(receiver: Receiver, endpoint: WebhookEndpoint, result: str) -> None:
    """Counts; a count that is lost takes nothing away from what was answered."""
    try:
        async with receiver.database.driver() as connection:
            await count(connection, endpoint.id, result)
    except Unavailable as error:
        log.warning("webhook_not_counted", endpoint=str(endpoint.id), result=result, code=error.code)


def _claimed_size(request: Request) -> int:
    claimed = request.headers.get("content-length", "")
    return int(claimed) if claimed.isascii() and claimed.isdecimal() else 0


def _not_found() -> AppError:
    return AppError("WEBHOOK_NOT_FOUND", 404, "No webhook is taken here.")


def _too_large(most: int) -> AppError:
    return AppError("BODY_TOO_LARGE", 413, f"A body may have {most} bytes.")


def _unbelieved() -> AppError:
    return AppError("SIGNATURE_INVALID", 401, "The request is not signed as this webhook expects.")
