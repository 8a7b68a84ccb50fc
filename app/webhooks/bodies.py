"""What a webhook's request becomes: one JSON document, without what is secret in it."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from app.db.statuses import WebhookScheme
from app.errors import AppError
from app.untrusted import JsonRefused, read_json

Headers = Mapping[str, str]

FORM = "application/x-www-form-urlencoded"
_MOST_FIELDS = 1_000
# A header whose name has one of these says something that only sender and receiver may know.
_SECRET_WORDS = ("authorization", "cookie", "token", "secret", "password", "api-key", "apikey", "signature")
# They send JSON in a form, as its only field.
_WRAPPED = {WebhookScheme.GITHUB: "payload", WebhookScheme.SLACK: "payload"}


def read_body(body: bytes, content_type: str, scheme: WebhookScheme) -> Any:
    """JSON as it is; a form as an object of texts, with lists for repeated fields; other text as `{text}`.

    None where there is no body. What does not say what it is, is JSON if it can be. Raises `AppError`: JSON_INVALID and
    others of `read_json`, FORM_INVALID, BODY_NOT_TEXT.
    """
    if not body:
        return None
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == "application/json" or media_type.endswith("+json"):
        return read_json(body)
    if media_type == FORM:
        return _form(body, _WRAPPED.get(scheme))
    if not media_type:
        try:
            return read_json(body)
        except JsonRefused:
            pass
    try:
        return {"text": body.decode()}
    except UnicodeDecodeError as error:
        raise AppError("BODY_NOT_TEXT", 415, "The body is neither JSON nor a form nor text in UTF-8.") from error


def gathered(pairs: Iterable[tuple[str, str]]) -> dict[str, str | list[str]]:
    """An object of the pairs; a name that comes several times has a list."""
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def joined_headers(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers by their names in lower case; of several with one name the values have commas between them."""
    joined: dict[str, str] = {}
    for name, value in pairs:
        key = name.lower()
        joined[key] = f"{joined[key]}, {value}" if key in joined else value
    return joined


def without_secrets(headers: Headers, hidden: frozenset[str]) -> dict[str, str]:
    """The headers but for `hidden` ones (in lower case), and those that sound like a secret."""
    return {
        name: value
        for name, value in headers.items()
        if name.lower() not in hidden and not any(word in name.lower() for word in _SECRET_WORDS)
    }


def event_kind(scheme: WebhookScheme, headers: Headers, body: Any) -> str | None:
    """What the sender calls this kind of event: `github push`, `stripe invoice.paid`; None when it says nothing."""
    member = body if isinstance(body, dict) else {}
    match scheme:
        case WebhookScheme.GITHUB:
            kind: Any = headers.get("x-github-event")
        case WebhookScheme.SLACK:
            event = member.get("event")
            kind = event.get("type") if isinstance(event, dict) else member.get("command") or member.get("type")
        case WebhookScheme.STRIPE | WebhookScheme.STANDARD:
            kind = member.get("type")
        case _:
            return None
    if not isinstance(kind, str) or not kind:
        return None
    return kind if scheme == WebhookScheme.STANDARD else f"{scheme.value.lower()} {kind}"


def scheme_id(scheme: WebhookScheme, headers: Headers, body: Any) -> str | None:
    """The id that a sender of this scheme gives to a delivery; a repetition has the same."""
    member = body if isinstance(body, dict) else {}
    match scheme:
        case WebhookScheme.STANDARD:
            return headers.get("webhook-id")
        case WebhookScheme.GITHUB:
            return headers.get("x-github-delivery")
        case WebhookScheme.STRIPE:
            return as_id(member.get("id"))
        case WebhookScheme.SLACK:
            # Commands have no id, but the time they were sent at is in their signature.
            signature = headers.get("x-slack-signature", "")
            return as_id(member.get("event_id")) or hashlib.sha256(signature.encode()).hexdigest()
        case _:
            return headers.get("idempotency-key")


def as_id(value: Any) -> str | None:
    """A value as an id: text that is not empty, or a number."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return str(value) or None


def _form(body: bytes, wrapped: str | None) -> Any:
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict")
    except ValueError as error:
        raise AppError("FORM_INVALID", 400, "The body is no form, or one of too many fields.") from error
    fields = gathered(pairs)
    only = fields.get(wrapped) if wrapped is not None and len(fields) == 1 else None
    return read_json(only.encode()) if isinstance(only, str) else fields
