"""All configuration, in one class, from the environment: `MILLRACE_<GROUP>__<NAME>`.

Entry points build it once and hand it down; nothing else reads the environment. Nothing set means the embedded
servers under `./.millrace/`.
"""

import base64
import binascii
import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.contracts import TASK_QUEUE

# The database of Millrace itself, where a connection is named.
OWN_CONNECTION = "millrace"

_CONNECTION_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_CONNECTION_VARIABLE = "MILLRACE_CONNECTIONS__"
_POSTGRES = ("postgresql://", "postgres://", "postgresql+asyncpg://")


class DatabaseSettings(BaseModel):
    """PostgreSQL 14 or newer. Without a URL the embedded server is used."""

    url: SecretStr | None = None

    @field_validator("url")
    @classmethod
    def _is_postgres(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not url.get_secret_value().startswith(_POSTGRES):
            raise ValueError("a database URL begins with postgresql://")
        return url

    pool_size: int = Field(default=20, ge=1, le=200, description="connections at most; they are kept open")
    connect_timeout: float = Field(default=5.0, gt=0, description="seconds")


class TemporalSettings(BaseModel):
    """A Temporal cluster or Temporal Cloud. Without an address the embedded server is used."""

    address: str | None = None
    namespace: str = "default"
    api_key: SecretStr | None = None
    tls: bool = False
    task_queue: str = TASK_QUEUE
    ui_url: str | None = Field(default=None, description="where people find Temporal's Web UI")
    connect_timeout: float = Field(default=5.0, gt=0, description="seconds")


class ApiSettings(BaseModel):
    """The HTTP API. It refuses to listen beyond loopback unless `allow_remote` is set."""

    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65535, description="0 takes a free port")
    allow_remote: bool = False
    max_body_bytes: int = Field(default=2 * 1024 * 1024, ge=1024)
    max_context_bytes: int = Field(default=1024 * 1024, ge=1024)
    longest_wait: float = Field(default=60.0, gt=0, description="seconds `?wait=` may ask for")
    heartbeat: float = Field(default=15.0, gt=0, description="seconds between the comments of a silent event stream")


class WorkerSettings(BaseModel):
    """How much one worker does at once."""

    actions: tuple[str, ...] = Field(default=(), description="modules whose actions the worker runs, beside its own")
    max_cached_workflows: int = Field(default=1000, ge=0)
    max_concurrent_activities: int = Field(default=100, ge=1)
    graceful_shutdown: float = Field(default=5.0, ge=0, description="seconds")


class HttpActionSettings(BaseModel):
    """What `http.request` may reach: hosts named here are allowed though they are private or loopback."""

    allowed_private_hosts: tuple[str, ...] = ()
    max_response_bytes: int = Field(default=1024 * 1024, ge=1024)


class PayloadSettings(BaseModel):
    """Where values are kept that are too large for history. Definitions are always kept in PostgreSQL."""

    store: Literal["postgres", "s3"] = "postgres"
    threshold: int = Field(default=64 * 1024, ge=1024, le=1_000_000, description="bytes; larger values are kept here")
    cache_bytes: int = Field(default=64 * 1024 * 1024, ge=0, description="of stored values kept in memory")
    keep_days: int = Field(default=45, ge=31, description="how long after its last use a value is kept at least")
    bucket: str | None = Field(default=None, description="of the S3-compatible store; it must exist")
    endpoint: str | None = Field(default=None, description="URL of an S3-compatible server; AWS without one")
    region: str | None = None
    prefix: str = Field(default="", description="before every key; must not change while runs are kept")
    access_key_id: str | None = Field(default=None, description="without it, what the AWS libraries find")
    secret_access_key: SecretStr | None = None

    @model_validator(mode="after")
    def _names_a_bucket(self) -> Self:
        if self.store == "s3" and self.bucket is None:
            raise ValueError("payloads in S3 need a bucket")
        return self


class ReconcilerSettings(BaseModel):
    """How often rows left CREATED are looked for, and how old they must be; seconds.

    `lost_after` is how long ago an execution must have started before its row is closed because Temporal has no run.
    Dead letters are kept for `dead_letter_days`.
    """

    interval: float = Field(default=10.0, gt=0)
    grace: float = Field(default=10.0, ge=0)
    lost_after: float = Field(default=600.0, ge=0)
    dead_letter_days: float = Field(default=30.0, gt=0)


class SecretsSettings(BaseModel):
    """What secrets are encrypted with at rest: Fernet keys with commas between them.

    The first encrypts; all of them decrypt, so that a new one can be put in front.
    """

    keys: SecretStr | None = None

    @field_validator("keys")
    @classmethod
    def _are_keys(cls, keys: SecretStr | None) -> SecretStr | None:
        for key in () if keys is None else key_list(keys):
            if not _is_key(key):
                raise ValueError("a key is 32 bytes in URL-safe base64; several have commas between them")
        return keys


def key_list(keys: SecretStr) -> list[str]:
    """The keys of the setting, the one that encrypts first."""
    return [key.strip() for key in keys.get_secret_value().split(",")]


def _is_key(key: str) -> bool:
    try:
        return len(base64.b64decode(key, altchars=b"-_", validate=True)) == 32
    except (binascii.Error, ValueError):
        return False


class WebhookSettings(BaseModel):
    """What webhooks may send, whatever their endpoints allow."""

    max_body_bytes: int = Field(default=10 * 1024 * 1024, ge=1024)


class ChangeSettings(BaseModel):
    """How row changes are read: how often is looked for them (seconds), and the lag that is warned of (bytes)."""

    interval: float = Field(default=0.5, gt=0)
    lag_warning_bytes: int = Field(default=1024 * 1024 * 1024, ge=1024)


class PollingSettings(BaseModel):
    """How sources are asked: texts that only headers of requests may hold, by name, and how much one answer may be."""

    secrets: dict[str, SecretStr] = {}
    max_items: int = Field(default=10_000, ge=1, description="of one answer")
    timeout: float = Field(default=30.0, gt=0, le=300, description="seconds that a source has to answer")


class BackfillSettings(BaseModel):
    """How large a file of rows may be that is sent at once, and for how long the rows of what is over are kept."""

    max_upload_bytes: int = Field(default=64 * 1024 * 1024, ge=1024)
    keep_days: float = Field(default=90.0, gt=0)


class InboxSettings(BaseModel):
    """How events are delivered and kept.

    `interval` is how often, in seconds, waiting events are looked for when nobody says that there are some. For
    `resume_within` seconds an event waits for the execution that it is to resume. Settled events are kept for
    `keep_days` after they were received last.
    """

    interval: float = Field(default=1.0, gt=0)
    batch: int = Field(default=50, ge=1, le=500)
    resume_within: float = Field(default=3600.0, ge=0)
    keep_days: float = Field(default=90.0, gt=0)


class LimitSettings(BaseModel):
    """How many executions of all templates may start in a minute, and be open; children do not count.

    `when_full` is what becomes of what would start more, where its template does not say.
    """

    starts_per_minute: int | None = Field(default=None, ge=1)
    open_executions: int | None = Field(default=None, ge=1)
    when_full: Literal["REFUSE", "QUEUE"] = "REFUSE"


class LogSettings(BaseModel):
    """How log lines look: `console` for people, `json` for machines."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["console", "json"] = "console"


class Settings(BaseSettings):
    """Everything that can be configured."""

    model_config = SettingsConfigDict(
        env_prefix="MILLRACE_", env_nested_delimiter="__", env_ignore_empty=True, extra="forbid"
    )

    home: Path = Path(".millrace")
    database: DatabaseSettings = DatabaseSettings()
    temporal: TemporalSettings = TemporalSettings()
    api: ApiSettings = ApiSettings()
    worker: WorkerSettings = WorkerSettings()
    http_action: HttpActionSettings = HttpActionSettings()
    payloads: PayloadSettings = PayloadSettings()
    reconciler: ReconcilerSettings = ReconcilerSettings()
    secrets: SecretsSettings = SecretsSettings()
    webhooks: WebhookSettings = WebhookSettings()
    changes: ChangeSettings = ChangeSettings()
    polling: PollingSettings = PollingSettings()
    inbox: InboxSettings = InboxSettings()
    limits: LimitSettings = LimitSettings()
    backfills: BackfillSettings = BackfillSettings()
    connections: dict[str, SecretStr] = Field(
        default_factory=dict,
        description="PostgreSQL URLs of other databases, by name: MILLRACE_CONNECTIONS__<NAME>; of the name MILLRACE,"
        " of Millrace's own for a user that may read what people may ask for",
    )
    log: LogSettings = LogSettings()

    @field_validator("connections")
    @classmethod
    def _name_databases(cls, connections: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, url in connections.items():
            if not _CONNECTION_NAME.fullmatch(name):
                raise ValueError("a connection's name has up to 40 letters, digits and underscores")
            if not url.get_secret_value().startswith(_POSTGRES):
                raise ValueError(f"the URL of connection {name} begins with postgresql://")
        return connections

    @model_validator(mode="after")
    def _know_every_variable(self) -> Self:
        """A mistyped name would silently mean the default, which may be another database."""
        known = known_variables()
        for name in sorted(os.environ):
            if name.startswith("MILLRACE_") and name not in known and not name.startswith(_CONNECTION_VARIABLE):
                near = get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise ValueError(f"there is no setting {name}{hint}")
        return self


def known_variables() -> frozenset[str]:
    """Every environment variable that means something, beside those of connections, whose names are the user's;
    MILLRACE_API_URL is the command line's own.
    """
    names = {"MILLRACE_API_URL"}
    for name, field in Settings.model_fields.items():
        group = field.annotation
        variable = f"MILLRACE_{name.upper()}"
        if isinstance(group, type) and issubclass(group, BaseModel):
            names |= {f"{variable}__{member.upper()}" for member in group.model_fields}
        names.add(variable)
    return frozenset(names)
