"""What the paths of executions name."""

from typing import Annotated
from uuid import UUID

from fastapi import Depends, Path

from app.errors import NotFound
from app.versions.queries import as_uuid


async def execution_id(
    execution: Annotated[str, Path(json_schema_extra={"format": "uuid"}, description="the execution's id")],
) -> UUID:
    """An execution's id; what is none is the id of no execution. Raises EXECUTION_NOT_FOUND."""
    found = as_uuid(execution)
    if found is None:
        raise NotFound("execution", execution[:100])
    return found


ExecutionId = Annotated[UUID, Depends(execution_id)]
StepId = Annotated[str, Path(alias="step", max_length=100)]
