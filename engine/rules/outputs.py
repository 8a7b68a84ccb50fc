"""What the output of a step is, as far as it is known before anything runs."""

from collections.abc import Mapping

from engine.steps import (
    ChildStep,
    ConfirmStep,
    FormStep,
    HumanStep,
    JoinStep,
    RedirectStep,
    Step,
    UploadStep,
    WorkStep,
)

ANSWERED = ("outcome", "comment", "completedBy", "completedAt")
_MORE: Mapping[type[HumanStep], tuple[str, ...]] = {
    ConfirmStep: (),
    FormStep: ("data",),
    RedirectStep: ("data",),
    UploadStep: ("documents",),
}


def has_output(step: Step) -> bool:
    """Whether a step of this kind has an output when it has completed."""
    return isinstance(step, WorkStep) or (isinstance(step, JoinStep) and step.join.policy == "ALL_SETTLED")


def members_of_output(step: Step) -> tuple[str, ...] | None:
    """The names in a step's output; None where they are not known, or where the output is a list."""
    if not isinstance(step, HumanStep) or step.for_each is not None or step.repeat is not None:
        return None
    return (*ANSWERED, *_MORE[type(step)])


def is_disabled(step: Step) -> bool:
    """Whether tokens pass a step by."""
    return step.activation_policy is not None and step.activation_policy.default_status == "DISABLED"


def may_be_left_out(step: Step) -> bool:
    """Whether a token can go on from a step without an output of it."""
    return is_disabled(step) or (
        isinstance(step, WorkStep) and (step.skip_if is not None or step.enabled_while is not None)
    )


def runs_over_items(step: Step) -> bool:
    """Whether a step is done once per item of a list, which may be empty."""
    return isinstance(step, WorkStep) and (
        step.for_each is not None or (isinstance(step, ChildStep) and step.mode == "BATCH")
    )
