"""The five actions as somebody would write them with the Temporal SDK alone."""

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

BY_HAND = "bench-by-hand"
ADD = "bench.add_by_hand"
STEPS = ("first", "second", "third", "fourth", "fifth")


@workflow.defn(name=BY_HAND)
class ByHand:
    """Five activities, each with what the one before gave."""

    @workflow.run
    async def run(self, given: dict[str, int]) -> int:
        """Takes `{n}`, gives n + 5."""
        value = given["n"]
        for name in STEPS:
            output: dict[str, int] = await workflow.execute_activity(
                ADD,
                args=[value, 1],
                result_type=dict[str, int],
                start_to_close_timeout=timedelta(seconds=10),
                retry_policy=RetryPolicy(maximum_attempts=3, maximum_interval=timedelta(seconds=60)),
                summary=name,
            )
            value = output["value"]
        return value
