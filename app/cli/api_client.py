"""The HTTP API as the command line sees it: found, called, and its refusals turned into ours."""

import getpass
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

import httpx
import typer

from app.errors import AppError, Invalid, Unavailable
from app.settings import Settings

PREFIX = "/api/v1"
DEV_FILE = "dev.json"

ApiUrl = Annotated[
    str | None,
    typer.Option(
        "--api",
        envvar="MILLRACE_API_URL",
        help="Where the API is; without it, the running `millrace dev` of this folder.",
    ),
]


class Api:
    """A running API, called as the user of this machine.

    Every call raises `AppError` with the API's code, or API_UNREACHABLE.
    """

    def __init__(self, url: str, timeout: float = 90.0) -> None:
        self.url = url.rstrip("/")
        # Who does it goes with every call, so that no command can forget it. Names may be in any script.
        who = httpx.Headers(acting(), encoding="utf-8")
        self._client = httpx.Client(base_url=self.url, timeout=timeout, trust_env=False, headers=who)

    def __enter__(self) -> "Api":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str, **query: Any) -> Any:
        """The document at a path below the API's prefix; parameters that are None are left out."""
        given = {name: value for name, value in query.items() if value is not None}
        return self._call("GET", path, params=given)

    def post(
        self,
        path: str,
        body: Any = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        content: str | None = None,
    ) -> Any:
        """What the API answers to a POST; `content` is JSON as text, for bodies that are no object."""
        # Names of people and keys may be in any script; httpx would take ASCII alone.
        given = httpx.Headers(headers, encoding="utf-8")
        if content is not None:
            given["Content-Type"] = "application/json"
            return self._call("POST", path, content=content, params=query, headers=given)
        return self._call("POST", path, json={} if body is None else body, params=query, headers=given)

    def put(self, path: str, body: Any) -> Any:
        """What the API answers to a PUT."""
        return self._call("PUT", path, json=body)

    def patch(self, path: str, body: Any) -> Any:
        """What the API answers to a PATCH."""
        return self._call("PATCH", path, json=body)

    def delete(self, path: str, **query: Any) -> Any:
        """What the API answers to a DELETE; parameters that are None are left out."""
        given = {name: value for name, value in query.items() if value is not None}
        return self._call("DELETE", path, params=given)

    def pages(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        """Every item of a list, page by page."""
        cursor = None
        while True:
            page = self.get(path, cursor=cursor, **query)
            yield from page["items"]
            cursor = page.get("nextCursor")
            if cursor is None:
                return

    def first(self, limit: int, path: str, **query: Any) -> list[dict[str, Any]]:
        """The first items of a list."""
        return list(islice(self.pages(path, limit=min(limit, 100), **query), limit))

    @contextmanager
    def stream(self, path: str, last_event_id: str | None, silence: float) -> Iterator[httpx.Response]:
        """An event stream; one that says nothing for `silence` seconds is lost: `httpx.TransportError`."""
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_event_id} if last_event_id else {})
        timeout = httpx.Timeout(silence, connect=10.0)
        with self._client.stream("GET", f"{PREFIX}{path}", headers=headers, timeout=timeout) as response:
            if not response.is_success:
                response.read()
                raise _refusal(response)
            yield response

    def _call(self, method: str, path: str, **request: Any) -> Any:
        try:
            response = self._client.request(method, f"{PREFIX}{path}", **request)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise Unavailable("API_UNREACHABLE", f"The API at {self.url} does not answer: {error}") from error
        if response.is_success:
            return response.json() if response.content else None
        raise _refusal(response)


def segment(text: str) -> str:
    """A text as one segment of a path."""
    return quote(text, safe="")


def acting(key: str | None = None) -> dict[str, str]:
    """The headers that say who does this, the user of this machine, and by which key a repetition is known."""
    keyed = {} if key is None else {"Idempotency-Key": key}
    try:
        return {"X-Millrace-Actor": getpass.getuser()} | keyed
    except (KeyError, OSError):
        return keyed


def open_api(url: str | None, timeout: float = 90.0) -> Api:
    """The API at `url`, or the one that `millrace dev` runs for this folder.

    Raises `Unavailable` API_UNKNOWN when neither is there.
    """
    found = url or read_dev_file(Settings().home).get("api")
    if not isinstance(found, str):
        raise Unavailable(
            "API_UNKNOWN",
            "No API is known here. Start one with `millrace dev`, or name one by --api or MILLRACE_API_URL.",
        )
    return Api(found, timeout)


def read_dev_file(home: Path) -> dict[str, Any]:
    """What a running `millrace dev` says about itself; nothing when there is none."""
    try:
        document = json.loads((home / DEV_FILE).read_text())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def with_own_database(settings: Settings) -> Settings:
    """The settings, with the database of a `millrace dev` that runs in the same home where they name none."""
    url = read_dev_file(settings.home).get("database")
    if settings.database.url is not None or not url:
        return settings
    named = settings.database.model_validate({**settings.database.model_dump(), "url": url})
    return settings.model_copy(update={"database": named})


def read_json(text: str) -> Any:
    """JSON as it stands, or `@FILE`. Raises `Invalid` JSON_INVALID, FILE_NOT_READABLE."""
    try:
        content = Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text
        return json.loads(content)
    except OSError as error:
        raise Invalid("FILE_NOT_READABLE", f"{text[1:]}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise Invalid("JSON_INVALID", f"{text[:200]} is not JSON: {error}.") from error


def read_json_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises `Invalid` FILE_NOT_READABLE or FILE_NOT_JSON."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise Invalid("FILE_NOT_READABLE", f"{file}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise Invalid("FILE_NOT_JSON", f"{file}: {error}") from error
    if not isinstance(document, dict):
        raise Invalid("FILE_NOT_JSON", f"{file} holds no JSON object.")
    return document


def _refusal(response: httpx.Response) -> AppError:
    try:
        document = response.json()
    except ValueError:
        document = None
    if not isinstance(document, dict) or "code" not in document:
        return AppError(
            "API_ANSWER_UNKNOWN",
            response.status_code,
            f"The API answered {response.status_code} and no reason.",
        )
    refusal = AppError(
        str(document["code"]),
        response.status_code,
        str(document.get("detail") or document.get("title") or ""),
        document.get("problems") or (),
    )
    stored = document.get("eventRecordId")
    refusal.event_record_id = None if stored is None else UUID(stored)
    return refusal
