"""What can be done with endpoints of webhooks."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import count
from typing import Any
from uuid import UUID

from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.audit.changes import Facts, record_change
from app.audit.repeating import Asked, find_made, fingerprint, record_made
from app.audit.words import EntityKind
from app.db.event_tables import WebhookEndpoint
from app.db.statuses import EventSource, TriggerCategory, WebhookResponse, WebhookScheme
from app.errors import Conflict, Invalid, NotFound
from app.registry.entries import Entry, Variable
from app.registry.triggers import ensure_trigger
from app.secrets import Vault
from app.settings import Settings
from app.templates.service import get_template
from app.webhooks.paths import read_pattern
from app.webhooks.queries import find_endpoint, find_keys
from app.webhooks.schemas import EndpointCreate, SecretRotation
from app.webhooks.signatures import secret_problem
from app.webhooks.values import check_value

SAMPLE = {
    "method": "POST",
    "path": "/hooks/orders",
    "params": {},
    "query": {},
    "headers": {"content-type": "application/json"},
    "body": {"id": 1},
}
VARIABLES = [
    {"path": "method", "type": "string", "description": "of the request"},
    {"path": "path", "type": "string", "description": "of the request, below /api/v1"},
    {"path": "params", "type": "object", "description": "what stands in the path for {name}"},
    {"path": "query", "type": "object", "description": "a text for each parameter, a list of them for a repeated one"},
    {"path": "headers", "type": "object", "description": "names in lower case; none that holds a secret"},
    {"path": "body", "type": "any", "description": "JSON, the fields of a form, or {text}; null when there is none"},
]
# The form of what subscriptions may narrow; it takes all methods, since several endpoints may share a trigger.
PROPERTIES: list[dict[str, Any]] = [
    {
        "name": "methods",
        "displayName": "Methods",
        "type": "multiOptions",
        "options": [{"name": word, "value": word} for word in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")],
        "hint": "All, unless some are chosen.",
    },
    {
        "name": "path",
        "displayName": "Path",
        "type": "string",
        "placeholder": "/hooks/orders/*",
        "validation": [{"type": "maxLength", "max": 500}],
    },
]
# What cannot be in an answer or in the audit.
_SECRET = {"secret", "previous_secret", "required_headers", "allowance", "shape", "segments", "wild", "open_ended"}


async def create_endpoint(
    session: AsyncSession,
    vault: Vault,
    settings: Settings,
    request: EndpointCreate,
    actor: str | None = None,
    key: str | None = None,
) -> WebhookEndpoint:
    """A new endpoint, and the entry of its trigger in the registry where there is none; or the endpoint that the same
    request with the same key has made.

    Raises PATH_INVALID, PATH_TAKEN, SECRET_INVALID, SECRETS_KEY_MISSING, VALUE_INVALID, WEBHOOK_LIMIT,
    TEMPLATE_NOT_FOUND, IDEMPOTENCY_CONFLICT.
    """
    asked = Asked("CREATE_WEBHOOK_ENDPOINT", "WEBHOOK_ENDPOINT", actor, key, await _fingerprint(request, key))
    made = await find_made(session, asked)
    if made is not None:
        return await get_endpoint(session, UUID(made))
    fields = request.model_dump(mode="json", exclude={"secret", "template_id", "response", "verification"})
    columns = {
        **fields,
        "trigger_key": request.trigger_key or await _free_key(session, request.path),
        "template_id": await _template_id(session, request.template_id),
        **_path_columns(request.path),
        **_response_columns(request.response.model_dump(mode="json")),
        **_verification_columns(request.verification.model_dump(mode="json")),
    }
    endpoint = WebhookEndpoint(**columns)
    if request.secret is not None:
        endpoint.secret = _closed(vault, endpoint, request.secret.get_secret_value())
    _check(endpoint, settings)
    session.add(endpoint)
    await _flush(session, endpoint)
    await _register(session, endpoint, actor)
    await record_made(session, asked, endpoint.id, _facts(endpoint))
    return endpoint


async def get_endpoint(session: AsyncSession, endpoint_id: UUID, *, lock: bool = False) -> WebhookEndpoint:
    """An endpoint. Raises WEBHOOK_ENDPOINT_NOT_FOUND."""
    endpoint = await find_endpoint(session, endpoint_id, lock=lock)
    if endpoint is None:
        raise NotFound("webhook endpoint", endpoint_id)
    return endpoint


async def change_endpoint(
    session: AsyncSession,
    vault: Vault,
    settings: Settings,
    endpoint_id: UUID,
    changes: Mapping[str, Any],
    actor: str | None = None,
) -> WebhookEndpoint:
    """Sets the fields given, as JSON. Raises what `create_endpoint` raises."""
    endpoint = await get_endpoint(session, endpoint_id, lock=True)
    before, demanded = _facts(endpoint), endpoint.required_headers
    columns = dict(changes)
    if "path" in columns:
        columns |= _path_columns(columns["path"])
    if "response" in columns:
        columns |= _response_columns(columns["response"])
    if "verification" in columns:
        columns |= _verification_columns(columns["verification"])
    if "template_id" in columns:
        columns["template_id"] = await _template_id(session, columns["template_id"])
    for name, value in columns.items():
        setattr(endpoint, name, value)
    _refit_secrets(vault, endpoint)
    _check(endpoint, settings)
    await _flush(session, endpoint)
    await _register(session, endpoint, actor)
    after = _with_replaced(_facts(endpoint), demanded, endpoint.required_headers)
    await record_change(session, "CHANGE_WEBHOOK_ENDPOINT", _subject(endpoint), actor, before, after)
    return endpoint


async def rotate_secret(
    session: AsyncSession,
    vault: Vault,
    endpoint_id: UUID,
    request: SecretRotation,
    actor: str | None = None,
    key: str | None = None,
) -> WebhookEndpoint:
    """Sets the secret; the one until now stays good for a while. Repeated with its key it leaves that one alone.

    Raises SECRET_INVALID, SECRETS_KEY_MISSING, IDEMPOTENCY_CONFLICT.
    """
    said = await _fingerprint(request, key)
    asked = Asked("ROTATE_WEBHOOK_SECRET", "WEBHOOK_ENDPOINT", actor, key, said, about=str(endpoint_id))
    if await find_made(session, asked) is not None:
        return await get_endpoint(session, endpoint_id)
    endpoint = await get_endpoint(session, endpoint_id, lock=True)
    closed = _closed(vault, endpoint, request.secret.get_secret_value())
    keep = request.keep_previous_for.total_seconds() > 0 and endpoint.secret is not None
    endpoint.previous_secret = endpoint.secret if keep else None
    endpoint.previous_secret_until = datetime.now(UTC) + request.keep_previous_for if keep else None
    endpoint.secret = closed
    await session.flush()
    # Each is a change, though what may be told of it can be the same as before.
    facts = {name: value for name, value in _facts(endpoint).items() if "secret" in name}
    await record_made(session, asked, endpoint.id, facts)
    return endpoint


async def delete_endpoint(session: AsyncSession, endpoint_id: UUID, actor: str | None = None) -> None:
    """Takes the endpoint away; its events and its trigger stay. Raises WEBHOOK_ENDPOINT_NOT_FOUND."""
    endpoint = await get_endpoint(session, endpoint_id, lock=True)
    await session.execute(delete(WebhookEndpoint).where(col(WebhookEndpoint.id) == endpoint_id))
    await record_change(session, "DELETE_WEBHOOK_ENDPOINT", _subject(endpoint), actor, _facts(endpoint), None)


async def _register(session: AsyncSession, endpoint: WebhookEndpoint, actor: str | None) -> None:
    """The entry of the endpoint's trigger in the registry; what is there already stays as it is."""
    entry = Entry(
        key=endpoint.trigger_key,
        name=endpoint.name,
        category=TriggerCategory.WEBHOOK,
        source=EventSource.WEBHOOK,
        properties=PROPERTIES,
        sample_payload=SAMPLE | {"method": endpoint.methods[0], "path": f"/hooks/{endpoint.path}"},
        variables=[Variable(**each) for each in VARIABLES],
    )
    await ensure_trigger(session, entry, actor)


def _check(endpoint: WebhookEndpoint, settings: Settings) -> None:
    """Raises `Invalid` for what the whole does not allow, though each part is right."""
    problems = []
    if endpoint.max_bytes > settings.webhooks.max_body_bytes:
        message = f"this installation takes {settings.webhooks.max_body_bytes} bytes at most"
        problems.append({"path": "body.maxBytes", "message": message})
    timeout = endpoint.response.get("timeoutSeconds", 0)
    if timeout > settings.api.longest_wait:
        message = f"this installation waits for {settings.api.longest_wait:g} seconds at most"
        problems.append({"path": "body.response.timeoutSeconds", "message": message})
    if problems:
        raise Invalid("WEBHOOK_LIMIT", "The endpoint allows more than this installation does.", problems)
    check_value(endpoint.response.get("body"), "body.response.body")
    if endpoint.dedupe is not None:
        check_value(endpoint.dedupe.get("value"), "body.dedupe.value")


def _path_columns(text: str) -> dict[str, Any]:
    pattern = read_pattern(text)
    return {
        "path": pattern.text,
        "shape": pattern.shape,
        "segments": len(pattern.segments),
        "wild": pattern.wild,
        "open_ended": pattern.open_ended,
    }


def _response_columns(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What the mode has use for, by the names of the wire."""
    match WebhookResponse(spec["mode"]):
        case WebhookResponse.SYNC:
            kept = {"timeoutSeconds": spec["timeout_seconds"]}
        case WebhookResponse.CUSTOM:
            kept = {name: spec[name] for name in ("status", "headers", "body")}
        case _:
            kept = {}
    return {"response_mode": spec["mode"], "response": kept}


def _verification_columns(spec: Mapping[str, Any]) -> dict[str, Any]:
    match WebhookScheme(spec["scheme"]):
        case WebhookScheme.HMAC:
            kept = {name: spec[name] for name in ("header", "algorithm", "encoding", "prefix")}
        case WebhookScheme.TOKEN:
            kept = {name: spec[name] for name in ("header", "prefix")}
        case WebhookScheme.NONE | WebhookScheme.GITHUB:
            kept = {}
        case _:
            kept = {"toleranceSeconds": spec["tolerance_seconds"]}
    return {"scheme": spec["scheme"], "verification": kept}


def _closed(vault: Vault, endpoint: WebhookEndpoint, secret: str) -> str:
    problem = secret_problem(WebhookScheme(endpoint.scheme), secret)
    if problem is not None:
        raise Invalid("SECRET_INVALID", "The secret is not valid.", [{"path": "body.secret", "message": problem}])
    return vault.close_in(secret)


def _refit_secrets(vault: Vault, endpoint: WebhookEndpoint) -> None:
    """The secret must be one of the scheme as it is now; with NONE there is none any more."""
    if endpoint.scheme == WebhookScheme.NONE:
        endpoint.secret = endpoint.previous_secret = endpoint.previous_secret_until = None
        return
    problem = endpoint.secret and secret_problem(WebhookScheme(endpoint.scheme), vault.open_up(endpoint.secret))
    if problem:
        message = f"the secret that is set is none of the scheme's: {problem}"
        raise Invalid("SECRET_INVALID", "The secret is not valid.", [{"path": "body.verification", "message": message}])


async def _template_id(session: AsyncSession, reference: str | None) -> UUID | None:
    return None if reference is None else (await get_template(session, reference)).id


async def _flush(session: AsyncSession, endpoint: WebhookEndpoint) -> None:
    taken = Conflict("PATH_TAKEN", f"There is an endpoint for the paths of {endpoint.path} already.")
    try:
        await session.flush()
    except IntegrityError as error:
        raise taken from error


async def _free_key(session: AsyncSession, path: str) -> str:
    """A key made of the path that no other endpoint has: what subscribes to one is not to hear of another."""
    stem = "webhook_" + (re.sub(r"[^A-Za-z0-9]+", "_", path).strip("_").lower() or "any")[:180]
    taken = await find_keys(session, stem)
    return next(key for number in count(1) if (key := stem if number == 1 else f"{stem}_{number}") not in taken)


async def _fingerprint(request: EndpointCreate | SecretRotation, key: str | None) -> dict[str, Any]:
    said = request.model_dump(mode="json", by_alias=True, exclude_unset=True)
    secret = None if request.secret is None else request.secret.get_secret_value()
    return await fingerprint(said | {"secret": secret}, key)


def _subject(endpoint: WebhookEndpoint) -> tuple[EntityKind, object]:
    return "WEBHOOK_ENDPOINT", endpoint.id


def _facts(endpoint: WebhookEndpoint) -> Facts:
    """What the audit says of an endpoint. Of a header's demanded value it says no more than that there is one."""
    facts = endpoint.model_dump(mode="json", exclude=_SECRET | {"id", "created_at", "updated_at"})
    required = {name: "ANY" if value is None else "DEMANDED" for name, value in endpoint.required_headers.items()}
    return facts | {"secret_set": endpoint.secret is not None, "required_headers": required}


def _with_replaced(facts: Facts, before: Mapping[str, str | None], after: Mapping[str, str | None]) -> Facts:
    """The facts, saying also which headers are to have another value now: it is a change, though it is not shown."""
    replaced = {
        name: "REPLACED" for name, value in after.items() if value and before.get(name) and before[name] != value
    }
    return facts | {"required_headers": facts["required_headers"] | replaced}
