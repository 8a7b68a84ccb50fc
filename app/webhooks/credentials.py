"""What senders of an endpoint prove themselves with: the headers that nobody is shown, wherever a request is kept."""

from collections.abc import Iterable
from typing import Any

from app.db.event_tables import WebhookEndpoint
from app.db.statuses import WebhookScheme
from app.webhooks.bodies import without_secrets
from app.webhooks.signatures import Algorithm, Encoding, Verification


def verification_of(endpoint: WebhookEndpoint) -> Verification:
    """How the endpoint's senders sign."""
    spec = dict(endpoint.verification)
    if "toleranceSeconds" in spec:
        spec["tolerance"] = spec.pop("toleranceSeconds")
    if "algorithm" in spec:
        spec |= {"algorithm": Algorithm(spec["algorithm"]), "encoding": Encoding(spec["encoding"])}
    return Verification(WebhookScheme(endpoint.scheme), **spec)


def hidden_headers(endpoint: WebhookEndpoint) -> frozenset[str]:
    """The names, in lower case, of headers that prove something: signatures, and those whose value is demanded, which
    may be a secret that is shared; since it is always the same, nobody misses it.
    """
    demanded = {name.lower() for name, value in endpoint.required_headers.items() if value is not None}
    return verification_of(endpoint).signed_headers() | demanded


def without_credentials(payload: Any, endpoints: Iterable[WebhookEndpoint]) -> Any:
    """A payload that somebody made by hand, perhaps of a real request, as the endpoints would have kept it."""
    headers = payload.get("headers") if isinstance(payload, dict) else None
    if not isinstance(headers, dict):
        return payload
    hidden = frozenset[str]().union(*(hidden_headers(endpoint) for endpoint in endpoints))
    return payload | {"headers": without_secrets(headers, hidden)}
