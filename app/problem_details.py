"""RFC 9457: how every refusal looks on the wire, and which exceptions become which."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any
from uuid import UUID

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from app.errors import AppError

MEDIA_TYPE = "application/problem+json"


class Finding(BaseModel):
    """One of the reasons; `path` points into the document or the request. Programs decide on `code`.

    Those of a definition have `rule`, `severity`, `stepIds` and `transitionIds`, too.
    """

    model_config = ConfigDict(extra="allow")

    path: str
    code: str
    message: str


class ProblemDetails(BaseModel):
    """A refusal or a failure (RFC 9457). Programs decide on `code`; `detail` is for people and may change."""

    type: str = Field(examples=["urn:millrace:problem:version-exists"])
    title: str = Field(examples=["Conflict"])
    status: int = Field(examples=[409])
    detail: str
    code: str = Field(examples=["VERSION_EXISTS"])
    problems: list[Finding] | None = Field(default=None, description="every finding, where there are several")
    event_record_id: UUID | None = Field(
        default=None,
        alias="eventRecordId",
        description="the event that was refused or has failed, where one was stored: it can be read and redelivered",
    )


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route says in OpenAPI about the refusals it can give."""
    schema = {"$ref": f"#/components/schemas/{ProblemDetails.__name__}"}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in statuses
    }


def problem_response(error: AppError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The response to an `AppError`."""
    body: dict[str, Any] = {
        "type": "urn:millrace:problem:" + error.code.lower().replace("_", "-"),
        "title": HTTPStatus(error.status).phrase,
        "status": error.status,
        "detail": error.message,
        "code": error.code,
    }
    if error.problems:
        body["problems"] = list(error.problems)
    if error.event_record_id is not None:
        body["eventRecordId"] = str(error.event_record_id)
    return JSONResponse(body, error.status, {**error.headers, **(headers or {})}, media_type=MEDIA_TYPE)


def internal_error() -> AppError:
    """What is said of a bug: nothing but that there is one."""
    return AppError("INTERNAL", 500, "Something went wrong in Millrace. The log says what.")


def answer_with_problems(app: FastAPI) -> None:
    """Registers the handlers that turn exceptions into problem details."""

    async def refused(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, AppError)
        return problem_response(error)

    async def invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return problem_response(_invalid_request(error.errors(), error.body))

    async def by_framework(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        code = HTTPStatus(error.status_code).name
        message = f"{error.detail}." if error.detail else HTTPStatus(error.status_code).phrase
        return problem_response(AppError(code, error.status_code, message), error.headers)

    app.add_exception_handler(AppError, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, by_framework)


def _invalid_request(errors: Sequence[Any], body: Any) -> AppError:
    findings = [
        # Pydantic puts the kind of exception before what a validator of ours says.
        {
            "path": location(_place(error, body)),
            "message": str(error["msg"]).removeprefix("Value error, "),
            "code": str(error["type"]).upper(),
        }
        for error in errors
    ]
    if any(finding["code"] == "JSON_INVALID" for finding in findings):
        return AppError("JSON_INVALID", 400, "The body is not JSON.", findings)
    return AppError("REQUEST_INVALID", 422, "The request is not valid.", findings)


def _place(error: Mapping[str, Any], body: Any) -> list[str | int]:
    """Where in the request something is wrong. Where a shape is one of several, pydantic says after its place which one
    it was taken for, and that is no part of the body. What is wrong inside a value is said by its check, as `below`.
    """
    parts = list(error["loc"])
    below = error.get("ctx", {}).get("below", ())
    if parts[:1] != ["body"]:
        return [*parts, *below]
    kept, here = parts[:1], body
    for at, part in enumerate(parts[1:], 1):
        there = isinstance(part, int) or (isinstance(here, Mapping) and part in here)
        if there or (error["type"] == "missing" and at == len(parts) - 1):
            kept.append(part)
            here = _member(here, part)
    return [*kept, *below]


def _member(here: Any, part: str | int) -> Any:
    try:
        return here[part]
    except (TypeError, LookupError):
        return None


def location(parts: Sequence[str | int]) -> str:
    """`("body", "steps", 3, "id")` → `body.steps[3].id`."""
    path = ""
    for part in parts:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += f".{part}" if path else part
    return path
