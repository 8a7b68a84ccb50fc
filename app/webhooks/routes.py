"""`/webhook-endpoints`: the addresses at which webhooks come in."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query
from sqlalchemy.ext.asyncio import AsyncSession

from app.addresses import id_of
from app.db.event_tables import WebhookEndpoint, WebhookTally
from app.dependencies import Actor, CallerPart, Cursor, Limit, SessionPart, SettingsPart, VaultPart
from app.problem_details import problem_responses
from app.templates.queries import find_slugs
from app.trigger_keys import DESCRIPTION as TRIGGER_KEY
from app.webhooks import service
from app.webhooks.paths import HOOKS_ADDRESS
from app.webhooks.queries import list_endpoints, list_tallies
from app.webhooks.receiving import ACCEPTED, REPEATED
from app.webhooks.schemas import Deliveries, EndpointChange, EndpointCreate, EndpointView, SecretRotation
from app.wire import Page, encode_cursor, read_id_cursor

router = APIRouter(prefix="/webhook-endpoints", tags=["webhooks"], responses=problem_responses(422, 503))

EndpointId = Annotated[UUID, id_of("webhook endpoint"), Path(alias="endpoint", description="the endpoint's id")]
NOT_FOUND = problem_responses(404)
STATE = problem_responses(404, 409)


@router.post("", status_code=201, summary="Create an endpoint", responses=STATE, name="createWebhookEndpoint")
async def create(
    request: EndpointCreate, session: SessionPart, vault: VaultPart, settings: SettingsPart, caller: CallerPart
) -> EndpointView:
    """Its trigger is made, where there is none. A repetition with the same `Idempotency-Key` is answered with what the
    first has made.

    Codes: PATH_INVALID, PATH_TAKEN, SECRET_INVALID, SECRETS_KEY_MISSING, VALUE_INVALID, WEBHOOK_LIMIT,
    TEMPLATE_NOT_FOUND, IDEMPOTENCY_CONFLICT.
    """
    made = await service.create_endpoint(session, vault, settings, request, caller.actor, caller.key)
    return await _answer(session, made)


@router.get("", summary="List endpoints", name="listWebhookEndpoints")
async def list_(
    session: SessionPart,
    trigger_key: Annotated[str | None, Query(alias="triggerKey", max_length=200, description=TRIGGER_KEY)] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[EndpointView]:
    """The newest first."""
    before = read_id_cursor(cursor)
    found = await list_endpoints(session, trigger_key=trigger_key, before=before, limit=limit + 1)
    following = encode_cursor(str(found[limit - 1].id)) if len(found) > limit else None
    return Page(items=await _views(session, found[:limit]), next_cursor=following)


@router.get("/{endpoint}", summary="Read an endpoint", responses=NOT_FOUND, name="getWebhookEndpoint")
async def get(endpoint: EndpointId, session: SessionPart) -> EndpointView:
    """Codes: WEBHOOK_ENDPOINT_NOT_FOUND."""
    return await _answer(session, await service.get_endpoint(session, endpoint))


@router.patch("/{endpoint}", summary="Change an endpoint", responses=STATE, name="changeWebhookEndpoint")
async def change(
    endpoint: EndpointId,
    request: EndpointChange,
    session: SessionPart,
    vault: VaultPart,
    settings: SettingsPart,
    actor: Actor = None,
) -> EndpointView:
    """What is left out stays. Codes as for creating one, and WEBHOOK_ENDPOINT_NOT_FOUND."""
    given = request.model_dump(mode="json", include=request.model_fields_set)
    return await _answer(session, await service.change_endpoint(session, vault, settings, endpoint, given, actor))


@router.post(
    "/{endpoint}/rotate-secret", summary="Replace an endpoint's secret", responses=STATE, name="rotateWebhookSecret"
)
async def rotate(
    endpoint: EndpointId, request: SecretRotation, session: SessionPart, vault: VaultPart, caller: CallerPart
) -> EndpointView:
    """Both are good for a while. A repetition with the same `Idempotency-Key` rotates nothing.

    Codes: SECRET_INVALID, SECRETS_KEY_MISSING, WEBHOOK_ENDPOINT_NOT_FOUND, IDEMPOTENCY_CONFLICT.
    """
    rotated = await service.rotate_secret(session, vault, endpoint, request, caller.actor, caller.key)
    return await _answer(session, rotated)


@router.delete(
    "/{endpoint}", status_code=204, summary="Delete an endpoint", responses=NOT_FOUND, name="deleteWebhookEndpoint"
)
async def delete(endpoint: EndpointId, session: SessionPart, actor: Actor = None) -> None:
    """Its events, its trigger and the subscriptions to it stay. Codes: WEBHOOK_ENDPOINT_NOT_FOUND."""
    await service.delete_endpoint(session, endpoint, actor)


async def _answer(session: AsyncSession, endpoint: WebhookEndpoint) -> EndpointView:
    return (await _views(session, [endpoint]))[0]


async def _views(session: AsyncSession, endpoints: Sequence[WebhookEndpoint]) -> list[EndpointView]:
    tallies: dict[UUID, list[WebhookTally]] = defaultdict(list)
    for tally in await list_tallies(session, [endpoint.id for endpoint in endpoints]):
        tallies[tally.endpoint_id].append(tally)
    owners = {endpoint.template_id for endpoint in endpoints if endpoint.template_id is not None}
    slugs = await find_slugs(session, owners)
    return [_view(endpoint, slugs, tallies[endpoint.id]) for endpoint in endpoints]


def _view(endpoint: WebhookEndpoint, slugs: Mapping[UUID, str], tallies: Sequence[WebhookTally]) -> EndpointView:
    fields = endpoint.model_dump(include=set(EndpointView.model_fields))
    return EndpointView(
        **fields
        | {
            "template": None if endpoint.template_id is None else slugs.get(endpoint.template_id),
            "address": f"{HOOKS_ADDRESS}/{endpoint.path}",
            "response": {"mode": endpoint.response_mode} | endpoint.response,
            "verification": {"scheme": endpoint.scheme} | endpoint.verification,
            "required_headers": {name: value is not None for name, value in endpoint.required_headers.items()},
            "secret_set": endpoint.secret is not None,
            "deliveries": _deliveries(tallies),
        }
    )


def _deliveries(tallies: Sequence[WebhookTally]) -> Deliveries:
    """The counts of an endpoint, the earliest first."""
    counts = {tally.result: tally.count for tally in tallies}
    return Deliveries(
        received=sum(counts.values()),
        accepted=counts.pop(ACCEPTED, 0),
        repeated=counts.pop(REPEATED, 0),
        refused=counts,
        last_at=tallies[-1].last_at if tallies else None,
        last_result=tallies[-1].result if tallies else None,
    )
