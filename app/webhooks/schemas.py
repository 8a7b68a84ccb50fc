"""Endpoints of webhooks on the wire."""

import re
from collections import Counter
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, Field, SecretStr, StringConstraints, field_validator, model_validator

from app.db.statuses import WebhookResponse, WebhookScheme
from app.trigger_keys import TriggerKey
from app.webhooks.signatures import TOLERANCE, Algorithm, Encoding
from app.wire import Given, Name, Taken

DEFAULT_TIMEOUT = 30.0
MOST_HEADERS = 30
# A proxy or the server itself says these.
_NOT_OURS = frozenset({"connection", "content-length", "date", "server", "set-cookie", "transfer-encoding", "upgrade"})

# HTTP gives them no body, whatever the sender wants to say.
WITHOUT_BODY = frozenset({204, 205, 304})
_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_MEDIA_TYPE = re.compile(rf'{_TOKEN}/{_TOKEN}((?:[ \t]*;[ \t]*{_TOKEN}=(?:{_TOKEN}|"[^"\\]*"))*)')
# Bodies are sent in UTF-8.
_CHARSET = re.compile(r'charset="?([^";\s]*)', re.IGNORECASE)

Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$")]
HeaderValue = Annotated[str, StringConstraints(max_length=1_000, pattern=r"^[\x20-\x7e]*$")]
Path = Annotated[str, Field(max_length=500, description="`orders`, `orders/{id}`, `shop-*/orders`, `git/**`")]
Methods = Annotated[list[Method], Field(min_length=1, max_length=6), AfterValidator(lambda value: sorted(set(value)))]
Required = Annotated[
    dict[HeaderName, HeaderValue | None],
    Field(max_length=MOST_HEADERS, description="the value that each must have, or null for any"),
]
MaxBytes = Annotated[int, Field(ge=1)]
Template = Annotated[str, Field(min_length=1, max_length=100, description="its id or slug")]
Secret = Annotated[SecretStr, Field(min_length=1, max_length=1_000)]
Description = Annotated[str, StringConstraints(max_length=10_000)]


class VerificationSpec(Taken):
    """How senders prove who they are. NONE must be asked for.

    HMAC needs a `header`; TOKEN without one takes `Authorization: Bearer`.
    """

    scheme: WebhookScheme
    header: HeaderName | None = None
    algorithm: Algorithm = Algorithm.SHA256
    encoding: Encoding = Encoding.HEX
    prefix: Annotated[str, StringConstraints(max_length=50)] = ""
    tolerance_seconds: int = Field(default=TOLERANCE, ge=1, le=3600)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        ours = {
            WebhookScheme.HMAC: {"header", "algorithm", "encoding", "prefix"},
            WebhookScheme.TOKEN: {"header", "prefix"},
            WebhookScheme.STANDARD: {"tolerance_seconds"},
            WebhookScheme.STRIPE: {"tolerance_seconds"},
            WebhookScheme.SLACK: {"tolerance_seconds"},
        }.get(self.scheme, set())
        foreign = {name for name in self.model_fields_set - {"scheme"} - ours if getattr(self, name) is not None}
        if foreign:
            raise ValueError(f"the scheme {self.scheme} has no {', '.join(sorted(foreign))}")
        if self.scheme == WebhookScheme.HMAC and self.header is None:
            raise ValueError("the scheme HMAC needs a header")
        return self


class ResponseSpec(Taken):
    """What senders are told. `status`, `headers` and `body` are CUSTOM's, `timeoutSeconds` is SYNC's.

    `body` is a value over the request (`__trigger__`): text is sent as it is, anything else as JSON. Statuses that have
    no body in HTTP (204, 205, 304) have none here.
    """

    mode: WebhookResponse = WebhookResponse.ASYNC
    timeout_seconds: float = Field(default=DEFAULT_TIMEOUT, gt=0)
    status: int = Field(default=200, ge=200, le=599)
    headers: dict[HeaderName, HeaderValue] = Field(default={}, max_length=MOST_HEADERS)
    body: Any = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        ours = {WebhookResponse.SYNC: {"timeout_seconds"}, WebhookResponse.CUSTOM: {"status", "headers", "body"}}
        foreign = self.model_fields_set - {"mode"} - ours.get(self.mode, set())
        if foreign:
            raise ValueError(f"the mode {self.mode} has no {', '.join(sorted(foreign))}")
        described = any(name.lower() == "content-type" for name in self.headers)
        if self.status in WITHOUT_BODY and (self.body is not None or described):
            raise ValueError(f"an answer with the status {self.status} has no body and no Content-Type")
        return self

    @field_validator("headers")
    @classmethod
    def _can_be_sent(cls, headers: dict[str, str]) -> dict[str, str]:
        names = Counter(name.lower() for name in headers)
        refused = sorted(names.keys() & _NOT_OURS)
        if refused:
            raise ValueError(f"an endpoint does not set {', '.join(refused)}")
        repeated = sorted(name for name, count in names.items() if count > 1)
        if repeated:
            raise ValueError(f"a header is there once: {', '.join(repeated)}")
        for name, value in headers.items():
            if name.lower() == "content-type":
                _check_media_type(value)
        return headers


def _check_media_type(value: str) -> None:
    if _MEDIA_TYPE.fullmatch(value) is None:
        raise ValueError("a Content-Type is a type and a subtype, and parameters after semicolons")
    charset = _CHARSET.search(value)
    if charset is not None and charset[1].lower() not in ("utf-8", "utf8"):
        raise ValueError("a body is sent in UTF-8, so its Content-Type names no other charset")


class DedupeSpec(Taken):
    """Where a delivery's id is: in a `header`, or a `value` over the request. What has the same id is one event."""

    header: HeaderName | None = None
    value: Any = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.header is None) == (self.value is None):
            raise ValueError("an id is in a header or is a value, one of them")
        return self


class RateLimit(Taken):
    """So many requests in so many seconds, all at once or one after the other."""

    requests: int = Field(ge=1, le=1_000_000)
    seconds: float = Field(default=60, gt=0, le=86_400)


class EndpointCreate(Taken):
    """A new endpoint. Until it has a secret, where its scheme needs one, it refuses everything."""

    name: Name
    path: Path
    verification: VerificationSpec
    secret: Secret | None = None
    description: Description | None = None
    methods: Methods = ["POST"]
    required_headers: Required = {}
    max_bytes: MaxBytes = 1024 * 1024
    response: ResponseSpec = ResponseSpec()
    trigger_key: TriggerKey | None = Field(default=None, description="made of the path unless it is given")
    template: Template | None = None
    dedupe: DedupeSpec | None = None
    rate_limit: RateLimit | None = None
    enabled: bool = True


class EndpointChange(Taken):
    """What may be changed; what is left out stays as it is. A secret is changed by `rotate-secret` alone."""

    name: Name = ""
    path: Path = ""
    verification: VerificationSpec = VerificationSpec(scheme=WebhookScheme.NONE)
    description: Description | None = None
    methods: Methods = []
    required_headers: Required = {}
    max_bytes: MaxBytes = 1
    response: ResponseSpec = ResponseSpec()
    trigger_key: TriggerKey = ""
    template: Template | None = None
    dedupe: DedupeSpec | None = None
    rate_limit: RateLimit | None = None
    enabled: bool = True


class SecretRotation(Taken):
    """The secret from now on; the one until now stays good for `keepPreviousFor` (ISO 8601 or seconds)."""

    secret: Secret
    keep_previous_for: timedelta = Field(default=timedelta(days=1), ge=timedelta(0), le=timedelta(days=30))


class Deliveries(Given):
    """What became of what came in. `refused` counts by reason; the reasons of 401 are more exact than the answers."""

    received: int = 0
    accepted: int = 0
    repeated: int = 0
    refused: dict[str, int] = {}
    last_at: datetime | None = None
    last_result: str | None = None


class EndpointView(Given):
    """An endpoint as users read it; secrets are only said to be there."""

    id: UUID
    name: str
    description: str | None
    path: str
    address: str
    methods: list[str]
    required_headers: dict[str, bool] = Field(
        description="by name: true where a value is demanded, which may be a secret and is not shown"
    )
    max_bytes: int
    response: dict[str, Any]
    verification: dict[str, Any]
    secret_set: bool
    previous_secret_until: datetime | None
    trigger_key: str
    template_id: UUID | None
    dedupe: Any
    rate_limit: dict[str, Any] | None
    enabled: bool
    deliveries: Deliveries
    created_at: datetime
    updated_at: datetime


class HookView(Given):
    """The event that a webhook is kept as."""

    event_record_id: UUID
