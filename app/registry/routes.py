"""`/registry`: what workers can run."""

from typing import Annotated

from fastapi import APIRouter, Path

from app.db.tables import Action
from app.dependencies import SessionPart
from app.errors import NotFound
from app.problem_details import problem_responses
from app.registry.queries import find_action, list_actions
from app.registry.schemas import ActionList, ActionView

router = APIRouter(prefix="/registry", tags=["registry"], responses=problem_responses(422, 503))


@router.get("/actions", summary="List actions", name="listActions")
async def list_(session: SessionPart) -> ActionList:
    """By key."""
    return ActionList(items=[_view(action) for action in await list_actions(session)])


@router.get("/actions/{key}", summary="Read an action", responses=problem_responses(404), name="getAction")
async def get(key: Annotated[str, Path(max_length=200)], session: SessionPart) -> ActionView:
    """Codes: ACTION_NOT_FOUND."""
    action = await find_action(session, key)
    if action is None:
        raise NotFound("action", key)
    return _view(action)


def _view(action: Action) -> ActionView:
    return ActionView(**action.model_dump(exclude={"id", "created_at"}))
