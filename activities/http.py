"""`http.request`: one HTTP call. Private, loopback and link-local addresses are refused, after resolution."""

import json
import math
import ssl
from collections.abc import Mapping
from typing import Any, Literal

import httpx
from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic.alias_generators import to_camel

from app.errors import AppError
from app.hosts import addresses_of, place_of, read_url, refused_address
from app.settings import HttpActionSettings
from millrace.actions import Action, ActionFailure, Call, action

_TRY_AGAIN = frozenset({408, 425, 429})


class HttpRequest(BaseModel):
    """What to send and what to expect; without `expectedStatus` any 2xx is fine."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid")

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"] = "GET"
    url: str = Field(min_length=1, max_length=8_192)
    headers: dict[str, str] = {}
    query: dict[str, str | int | float | bool] = {}
    body: JsonValue = None
    expected_status: list[int] | None = Field(default=None, min_length=1)
    timeout_seconds: float = Field(default=10.0, gt=0, le=300)


class HttpResponse(BaseModel):
    """What came back; `body` is the JSON when there is some, otherwise the text."""

    status: int
    headers: dict[str, str]
    body: JsonValue


class _GuardedTransport(httpx.AsyncHTTPTransport):
    """Connects only to the address that has been checked, so a name cannot resolve to another one afterwards."""

    def __init__(self, allowed: frozenset[str], context: ssl.SSLContext) -> None:
        super().__init__(verify=context)
        self._allowed = allowed

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        host, port = place_of(request.url)
        request.extensions = {**request.extensions, "sni_hostname": host}
        *others, last = await self._addresses(host, port)
        for address in others:
            request.url = request.url.copy_with(host=address)
            try:
                return await super().handle_async_request(request)
            except httpx.ConnectError:
                continue
        request.url = request.url.copy_with(host=last)
        return await super().handle_async_request(request)

    async def _addresses(self, host: str, port: int) -> list[str]:
        """Where a host is. Raises `ActionFailure` HTTP_ADDRESS_REFUSED when that is not public and not allowed."""
        try:
            addresses = await addresses_of(host, port)
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError(f"cannot resolve {host}") from error
        refused = refused_address(host, port, addresses, self._allowed)
        if refused is not None:
            raise ActionFailure("HTTP_ADDRESS_REFUSED", refused, retryable=False)
        return addresses


class HttpCalls:
    """HTTP calls of one worker, as far as this installation allows them."""

    def __init__(self, settings: HttpActionSettings) -> None:
        self._settings = settings
        self._allowed = frozenset(settings.allowed_private_hosts)
        self._context = httpx.create_ssl_context()  # made once: reading the certificates takes tens of milliseconds

    async def send(self, parameters: HttpRequest, headers: Mapping[str, str]) -> HttpResponse:
        """Makes one call with the `headers`, whatever those of the parameters are.

        Raises `ActionFailure`: HTTP_ADDRESS_REFUSED, HTTP_TIMED_OUT, HTTP_CONNECTION_FAILED, HTTP_SERVER_ERROR …
        """
        url = _url(parameters)
        try:
            async with (
                httpx.AsyncClient(
                    transport=_GuardedTransport(self._allowed, self._context),
                    timeout=parameters.timeout_seconds,
                    trust_env=False,
                ) as client,
                client.stream(
                    parameters.method,
                    url,
                    headers=headers,
                    json=parameters.body if "body" in parameters.model_fields_set else None,
                ) as response,
            ):
                content = await _content(response, self._settings.max_response_bytes)
        except httpx.TimeoutException as error:
            raise ActionFailure("HTTP_TIMED_OUT", f"{url.host} did not answer in time") from error
        except httpx.InvalidURL as error:
            raise ActionFailure("HTTP_URL_INVALID", str(error), retryable=False) from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise ActionFailure("HTTP_CONNECTION_FAILED", f"{url.host}: {error}") from error
        _check_status(response.status_code, parameters, url)
        return HttpResponse(status=response.status_code, headers=dict(response.headers), body=_body(response, content))


def http_request_action(settings: HttpActionSettings) -> Action:
    """The action, bound to what this installation allows."""
    calls = HttpCalls(settings)

    @action("http.request")
    async def request(parameters: HttpRequest, call: Call) -> HttpResponse:
        """Calls an HTTP address and gives back status, headers and body."""
        return await calls.send(parameters, {"Idempotency-Key": call.idempotency_key, **parameters.headers})

    return request


def _url(parameters: HttpRequest) -> httpx.URL:
    try:
        url = read_url(parameters.url)
        return url.copy_merge_params(_texts(parameters.query)) if parameters.query else url
    except AppError as error:
        raise ActionFailure(error.code, error.message, retryable=False) from error
    except (httpx.InvalidURL, UnicodeError) as error:
        raise ActionFailure("HTTP_URL_INVALID", str(error), retryable=False) from error


def _texts(query: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in query.items()}


def _check_status(status: int, parameters: HttpRequest, url: httpx.URL) -> None:
    expected = parameters.expected_status
    if status in expected if expected is not None else 200 <= status < 300:
        return
    message = f"{parameters.method} {url.host}{url.path} answered {status}"
    if status >= 500:
        raise ActionFailure("HTTP_SERVER_ERROR", message)
    if 400 <= status < 500:
        raise ActionFailure("HTTP_CLIENT_ERROR", message, retryable=status in _TRY_AGAIN)
    raise ActionFailure("HTTP_UNEXPECTED_STATUS", message, retryable=False)


async def _content(response: httpx.Response, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.aiter_bytes():
        size += len(chunk)
        if size > limit:
            raise ActionFailure("HTTP_RESPONSE_TOO_LARGE", f"the answer is larger than {limit} bytes", retryable=False)
        chunks.append(chunk)
    return b"".join(chunks)


def _body(response: httpx.Response, content: bytes) -> JsonValue:
    if not content:
        return None
    kind = response.headers.get("content-type", "").partition(";")[0].strip()
    text = content.decode(response.charset_encoding or "utf-8", errors="replace")
    if kind == "application/json" or kind.endswith("+json"):
        try:
            body: JsonValue = json.loads(content, parse_float=_finite, parse_constant=_finite)
        except ValueError as error:
            raise ActionFailure("HTTP_BODY_INVALID", "the answer is not the JSON it says", retryable=False) from error
        return body
    return text


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no number that JSON has")
    return number
