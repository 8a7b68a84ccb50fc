"""The queue of each template: deliveries that wait until it may be started again, and until there is room.

They wait until they are called. Only the dispatcher calls them (`calling`), in the order in which their events came,
and as soon as it sees that there is room for them; so it does not matter who makes room, nor who looks at the same
moment.
"""

from datetime import timedelta

from app.errors import AppError
from app.executions.schemas import ReadingProblem

# When what waits in a queue is looked at all the same: its template may have been deleted.
UNTIL_CALLED = timedelta(minutes=10)
QUEUED = "status = 'PENDING' AND code IN ('TEMPLATE_PAUSED', 'RATE_LIMITED', 'CONCURRENCY_LIMITED')"


def queued_problem(error: AppError) -> ReadingProblem:
    """What is said to whoever asked for what is queued."""
    return ReadingProblem(code=error.code, message=error.message)
