"""What senders of webhooks do: sign as each scheme has it, and send; and what became of it."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from app.db.event_tables import TriggerEvent
from app.db.session import Database
from tests.app.scenes import Json, ok

SECRET = "It's a Secret to Everybody"
STANDARD_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

Signer = Callable[[bytes, str, float], dict[str, str]]


def digest(key: bytes, message: bytes, algorithm: str = "sha256") -> str:
    return hmac.new(key, message, algorithm).hexdigest()


def standard(body: bytes, secret: str, now: float, message_id: str | None = None) -> dict[str, str]:
    message_id, sent = message_id or f"msg_{uuid4().hex}", str(int(now))
    key = base64.b64decode(secret.removeprefix("whsec_"))
    made = hmac.new(key, f"{message_id}.{sent}.".encode() + body, hashlib.sha256).digest()
    signature = f"v1,{base64.b64encode(made).decode()}"
    return {"webhook-id": message_id, "webhook-timestamp": sent, "webhook-signature": signature}


def github(body: bytes, secret: str, now: float) -> dict[str, str]:
    signature = f"sha256={digest(secret.encode(), body)}"
    return {"X-GitHub-Event": "push", "X-GitHub-Delivery": str(uuid4()), "X-Hub-Signature-256": signature}


def stripe(body: bytes, secret: str, now: float) -> dict[str, str]:
    return {"Stripe-Signature": f"t={int(now)},v1={digest(secret.encode(), f'{int(now)}.'.encode() + body)}"}


def slack(body: bytes, secret: str, now: float) -> dict[str, str]:
    signature = f"v0={digest(secret.encode(), f'v0:{int(now)}:'.encode() + body)}"
    return {"X-Slack-Request-Timestamp": str(int(now)), "X-Slack-Signature": signature}


def generic(body: bytes, secret: str, now: float) -> dict[str, str]:
    made = hmac.new(secret.encode(), body, hashlib.sha512).digest()
    return {"X-Signature": f"sha512={base64.b64encode(made).decode()}"}


def bearer(body: bytes, secret: str, now: float) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def named(body: bytes, secret: str, now: float) -> dict[str, str]:
    return {"X-Gitlab-Token": secret}


HMAC = {"scheme": "HMAC", "header": "X-Signature", "algorithm": "sha512", "encoding": "base64", "prefix": "sha512="}
SCHEMES: list[tuple[Json, Signer]] = [
    ({"scheme": "STANDARD"}, standard),
    ({"scheme": "GITHUB"}, github),
    ({"scheme": "STRIPE"}, stripe),
    ({"scheme": "SLACK"}, slack),
    (HMAC, generic),
    ({"scheme": "TOKEN"}, bearer),
    ({"scheme": "TOKEN", "header": "X-Gitlab-Token"}, named),
]
TIMED = [one for one in SCHEMES if one[0]["scheme"] in {"STANDARD", "STRIPE", "SLACK"}]
each_scheme = pytest.mark.parametrize(("verification", "sign"), SCHEMES, ids=lambda one: getattr(one, "__name__", ""))
each_timed = pytest.mark.parametrize(("verification", "sign"), TIMED, ids=lambda one: getattr(one, "__name__", ""))


def secret_of(verification: Json) -> str:
    return STANDARD_SECRET if verification["scheme"] == "STANDARD" else SECRET


def other_secret_of(verification: Json) -> str:
    return (
        "whsec_" + base64.b64encode(b"another key").decode() if verification["scheme"] == "STANDARD" else "another key"
    )


async def send(
    api: httpx.AsyncClient, endpoint: Json, body: Any = None, headers: Mapping[str, str] | None = None, **request: Any
) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps({} if body is None else body).encode()
    given = {"Content-Type": "application/json", **(headers or {})}
    method = request.pop("method", "POST")
    path = request.pop("path", None) or endpoint["path"]
    return await api.request(method, f"/hooks/{path}", content=content, headers=given, **request)


async def event_of(database: Database, response: httpx.Response) -> TriggerEvent:
    async with database.transaction() as session:
        event = await session.get(TriggerEvent, UUID(response.json()["eventRecordId"]))
    assert event is not None
    return event


async def deliveries(api: httpx.AsyncClient, endpoint: Json) -> Json:
    found: Json = (await ok(await api.get(f"/webhook-endpoints/{endpoint['id']}")))["deliveries"]
    return found
