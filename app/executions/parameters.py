"""What the paths of executions name."""

from typing import Annotated
from uuid import UUID

from fastapi import Path

from app.addresses import id_of

ExecutionId = Annotated[UUID, id_of("execution"), Path(alias="execution", description="the execution's id")]
StepId = Annotated[str, Path(alias="step", max_length=100)]
