"""`/hooks/…`: where webhooks come in."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from starlette.requests import ClientDisconnect

from app.dependencies import DatabasePart, SettingsPart, TemporalPart, VaultPart
from app.problem_details import problem_response, problem_responses
from app.webhooks.answering import answer
from app.webhooks.paths import HOOKS_ADDRESS
from app.webhooks.receiving import Receiver, Refused, receive
from app.webhooks.schemas import HookView

router = APIRouter(prefix=HOOKS_ADDRESS, tags=["webhooks"])

OTHER_METHODS = ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"]


@router.post(
    "/{path:path}",
    status_code=202,
    summary="A webhook",
    responses={
        **problem_responses(401, 403, 404, 405, 415, 422, 429, 503),
        200: {"model": HookView, "description": "taken before; or the execution's output, or what the endpoint says"},
        202: {"model": HookView},
    },
    name="receiveWebhook",
)
@router.api_route("/{path:path}", methods=OTHER_METHODS, include_in_schema=False, name="receiveOtherWebhook")
async def hook(
    path: Annotated[str, Path(description="what stands below `/hooks/`: an endpoint's pattern matches it")],
    request: Request,
    database: DatabasePart,
    temporal: TemporalPart,
    settings: SettingsPart,
    vault: VaultPart,
) -> Response:
    """Any method that the endpoint takes. 202 `{eventRecordId}`; 200 with the same id when it was taken before.

    Codes: ORIGIN_REFUSED, BODY_TOO_LARGE, WEBHOOK_NOT_FOUND, METHOD_NOT_ALLOWED, RATE_LIMITED, HEADER_REQUIRED,
    SIGNATURE_INVALID, SECRET_UNREADABLE, JSON_INVALID, JSON_TOO_DEEP, JSON_MEMBER_REPEATED, FORM_INVALID,
    BODY_NOT_TEXT, EXECUTION_FAILED.
    """
    try:
        delivery = await receive(Receiver(database, settings, vault), request, path)
    except Refused as refused:
        return problem_response(refused.error, refused.headers)
    except ClientDisconnect:
        # Nobody is there to be told.
        return Response(status_code=400)
    return await answer(delivery, database, temporal, settings)
