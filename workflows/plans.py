"""Compiled plans, shared by every run of a definition in this process.

A plan is frozen and depends on nothing but the definition's bytes, so sharing it
cannot make a run nondeterministic. A definition that comes from payload storage brings
the hash of its content along; one from an older history is hashed here.
"""

import hashlib
import threading
from collections import OrderedDict

from pydantic import ValidationError
from pydantic_core import from_json
from temporalio.api.common.v1 import Payload

from app.contracts import PAYLOAD_SHA256
from engine.compile import compile_document
from engine.errors import EngineError
from engine.plan import Plan

_KEPT = 512


class _Plans:
    def __init__(self) -> None:
        self._plans: OrderedDict[bytes, Plan] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, payload: Payload) -> Plan:
        digest = payload.metadata.get(PAYLOAD_SHA256) or hashlib.sha256(payload.data).digest()
        with self._lock:
            plan = self._plans.get(digest)
            if plan is not None:
                self._plans.move_to_end(digest)
                return plan
        plan = _compiled(payload.data)
        with self._lock:
            self._plans[digest] = plan
            if len(self._plans) > _KEPT:
                self._plans.popitem(last=False)
        return plan


_PLANS = _Plans()


def plan_of(payload: Payload) -> Plan:
    """The plan of the definition in a payload. Raises `EngineError` when it cannot be run."""
    return _PLANS.of(payload)


def _compiled(data: bytes) -> Plan:
    try:
        return compile_document(from_json(data))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(str(part) for part in first["loc"])
        raise EngineError("DEFINITION_INVALID", first["msg"], path) from error
