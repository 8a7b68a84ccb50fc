"""Rules about the steps and fields of `the_rest()`: what breaks them there, and what comes close and does not."""

from engine.problems import Severity
from tests.documents import Document, expr
from tests.engine.definitions import const, edge, find, write
from tests.engine.rule_examples import (
    Broken,
    Change,
    add_edge,
    add_step,
    both,
    drop_edge,
    drop_step,
    nothing,
    of,
    of_edge,
    step,
    top,
)

WARNING = Severity.WARNING
NUMBERS = {"type": "EXPRESSION", "expr": {"src": "[1, 2]"}}
SOURCE = {"alias": "a", "dataSourceId": "http.request", "params": {"method": "GET", "url": "x"}}
UNDO = {"actionKey": "payment.refund", "parameters": {"amount": 1}}


def without(step_id: str, *fields: str) -> Change:
    """Takes fields of a step away."""

    def change(document: Document) -> None:
        for name in fields:
            del find(document, step_id)[name]

    return change


def joined(**join: object) -> Change:
    return of("settle", join=join)


def each(**fields: object) -> Change:
    return lambda document: find(document, "each")["forEach"].update(fields)


def fetch(**fields: object) -> Change:
    return lambda document: find(document, "each")["dataSources"][0].update(fields)


def accepting(*patterns: str) -> Change:
    return lambda document: find(document, "papers")["documents"][0].update(accept=list(patterns))


def detour(target: str, *steps: Document) -> Change:
    """The branch of `fan` with `poll` leads to the join or somewhere else."""
    return both(
        add_step(step("x", "GATEWAY_EXCLUSIVE_SPLIT"), *steps),
        lambda document: drop_edge(document, "poll-settle"),
        add_edge(edge("poll", "x"), edge("x", "settle", isDefault=True), edge("x", target, condition="true")),
    )


SHARED = both(lambda document: drop_edge(document, "poll-settle"), add_edge(edge("poll", "each")))
LOOP = both(
    lambda document: drop_edge(document, "settle-tell"),
    add_step(step("again", "GATEWAY_EXCLUSIVE_SPLIT")),
    add_edge(edge("settle", "again"), edge("again", "tell", isDefault=True), edge("again", "heard", condition="true")),
)

THE_REST: dict[str, tuple[Broken | Change, ...]] = {
    "STEP_CAN_REACH_END": (
        Broken(lambda document: drop_edge(document, "charge-settle"), "steps[12]"),
        Broken(lambda document: drop_step(document, "stop"), "steps[3]"),
        nothing,
    ),
    "TERMINATE_STEP_NO_OUTGOING": (Broken(add_edge(edge("stop", "heard")), "steps[5]"), nothing),
    "SPECIAL_STEPS_ENABLED": (
        Broken(of("pick", activationPolicy={"defaultStatus": "DISABLED"}), "steps[7].activationPolicy.defaultStatus"),
        Broken(of("stop", activationPolicy={"defaultStatus": "DISABLED"}), "steps[5].activationPolicy.defaultStatus"),
        of("refuse", activationPolicy={"defaultStatus": "DISABLED"}),
        of("pick", activationPolicy={"defaultStatus": "IN_PROGRESS"}),
    ),
    "TRANSITIONS_UNIQUE": (
        Broken(of_edge("took-too-long", on="ERROR"), "stepTransitions[19]"),
        Broken(add_edge({**edge("pick", "sign", branchKey="sign"), "id": "more"}), "stepTransitions[25]"),
        add_edge({**edge("pick", "sign", branchKey="other"), "id": "more"}),
    ),
    "ONLY_SPLIT_GATEWAY_CAN_FAN_OUT": (
        Broken(of_edge("declined", on="SUCCESS"), "steps[12]"),
        add_edge(edge("poll", "refuse", on="ERROR")),
        add_edge(edge("pick", "heard", branchKey="again")),
    ),
    "CONDITIONAL_SPLIT_SINGLE_DEFAULT": (
        Broken(of_edge("first-ask", isDefault=True), "stepTransitions[1].isDefault", WARNING),
        of_edge("pick-sign", isDefault=True),
    ),
    "ONLY_EXCLUSIVE_INCLUSIVE_STEP_HAVE_CONDITION": (
        Broken(of_edge("pick-sign", condition="true"), "stepTransitions[9].condition"),
        Broken(of_edge("declined", condition="true"), "stepTransitions[18].condition"),
        nothing,
    ),
    "ROUTE_KEYS_UNIQUE": (
        Broken(of_edge("pick-sign", branchKey="upload"), "stepTransitions[9].branchKey"),
        Broken(lambda document: document["stepTransitions"][9].pop("branchKey"), "stepTransitions[9]"),
        Broken(of_edge("pick-sign", isDefault=True), "stepTransitions[10].isDefault"),
        Broken(of_edge("first-ask", branchKey="x"), "stepTransitions[1].branchKey", WARNING),
        of_edge("pick-picked", branchKey="none"),
        lambda document: drop_edge(document, "pick-picked"),
    ),
    "EVENT_SPLIT_TARGETS": (
        Broken(add_edge(edge("first", "charge")), "stepTransitions[25]"),
        Broken(add_edge(edge("pick", "late", branchKey="x")), "stepTransitions[3]"),
        Broken(of("ask", retry={"maxAttempts": 2}), "stepTransitions[1]"),
        Broken(of("called", skipIf="true"), "stepTransitions[2]"),
        Broken(of("called", forEach={"iterable": NUMBERS}), "stepTransitions[2]"),
        Broken(of("called", repeat={"until": "true", "maxIterations": 2}), "stepTransitions[2]"),
        Broken(of("late", activationPolicy={"defaultStatus": "DISABLED"}), "stepTransitions[3]"),
        of("ask", timeout="P1D", enabledWhile="true"),
    ),
    "JOIN_POLICY_IN_RANGE": (
        Broken(joined(policy="N_OF_M"), "steps[16].join"),
        Broken(joined(policy="N_OF_M", n=4), "steps[16].join.n"),
        Broken(joined(policy="ANY", n=1), "steps[16].join.n"),
        Broken(joined(policy="ALL", cancelRemaining=True), "steps[16].join.cancelRemaining", WARNING),
        joined(policy="N_OF_M", n=3),
        joined(policy="ANY", cancelRemaining=True),
    ),
    "JOIN_NEEDS_REGION": (
        Broken(detour("tell"), "steps[16].join"),
        Broken(detour("fan"), "steps[16].join"),
        Broken(SHARED, "steps[16].join"),
        Broken(add_edge(edge("picked", "settle")), "steps[16].join"),
        Broken(of("fan", type="GATEWAY_EXCLUSIVE_SPLIT"), "steps[16].join"),
        both(joined(policy="ALL"), SHARED),
        of("fan", type="GATEWAY_INCLUSIVE_SPLIT"),
        detour("halt", step("halt", "SYS_TERMINATE", outcome="FAILED")),
    ),
    "ERROR_TRANSITION_FROM_WORK_STEP": (
        Broken(add_edge(edge("refuse", "tell", on="ERROR")), "stepTransitions[25].on"),
        Broken(add_edge(edge("late", "stop", on="TIMEOUT")), "stepTransitions[25].on"),
        Broken(of_edge("took-too-long", errorCodes=["A"]), "stepTransitions[19].errorCodes"),
        Broken(of_edge("charge-settle", errorCodes=["A"]), "stepTransitions[17].errorCodes"),
        Broken(add_edge(edge("papers", "heard", on="TIMEOUT")), "stepTransitions[25].on", WARNING),
        Broken(
            add_edge(edge("each", "refuse", on="ERROR"), edge("each", "stop", on="ERROR")),
            "stepTransitions[26].on",
            WARNING,
        ),
        add_edge(edge("sign", "heard", on="TIMEOUT")),
        add_edge(edge("each", "refuse", on="ERROR", errorCodes=["A"]), edge("each", "stop", on="ERROR")),
    ),
    "DATASOURCE_ALIASES_UNIQUE": (
        Broken(of("sign", dataSources=[SOURCE, SOURCE]), "steps[9].dataSources[1].alias"),
        of("sign", dataSources=[SOURCE, {**SOURCE, "alias": "b"}]),
    ),
    "NO_GROUP_FOR_SPECIAL_NODES": (
        Broken(of("pick", group={"groupId": "g"}), "steps[7].group"),
        Broken(of("settle", group={"groupId": "g"}), "steps[16].group"),
        of("late", group={"groupId": "g"}),
    ),
    "LEGACY_SERVICE_REQUEST_TASK_ONLY_ON_HUMAN_STEP": (
        Broken(of("called", legacyServiceRequestTaskKey="verify"), "steps[3].legacyServiceRequestTaskKey"),
        both(*(of(name, legacyServiceRequestTaskKey=name) for name in ("ask", "papers", "sign"))),
    ),
    "SCHEMA_VALID": (
        Broken(of("poll", outputSchema={"type": "objekt"}), "steps[14].outputSchema"),
        Broken(of("ask", form={"schema": {"pattern": "(?=a)"}}), "steps[2].form.schema"),
        of("ask", form={"schema": {"type": "object", "properties": {"a": {"type": "string"}}}, "uiSchema": {"a": {}}}),
    ),
    "DOCUMENTS_VALID": (
        Broken(
            of("papers", documents=[{"key": "id", "label": "a"}, {"key": "id", "label": "b"}]),
            "steps[8].documents[1].key",
        ),
        Broken(accepting("image/*", "pdf"), "steps[8].documents[0].accept[1]"),
        Broken(accepting("image/p*"), "steps[8].documents[0].accept[0]"),
        Broken(accepting("*.pdf"), "steps[8].documents[0].accept[0]"),
        accepting("*/*", ".tar.gz", "application/vnd.ms-excel"),
    ),
    "DELAY_VALID": (
        Broken(of("late", until="2030-01-31T09:00:00Z"), "steps[4]"),
        Broken(without("late", "duration"), "steps[4]"),
        Broken(of("late", duration="2 days"), "steps[4].duration"),
        Broken(of("late", duration=const(-1)), "steps[4].duration"),
        Broken(both(without("late", "duration"), of("late", until="2030-01-31T09:00:00")), "steps[4].until"),
        both(without("late", "duration"), of("late", until="2030-01-31T09:00:00+01:00")),
        of("late", duration=expr("__context__.pause")),
        of("late", duration=0),
        of("late", duration={"type": "const"}),
    ),
    "REPEAT_VALID": (
        Broken(of("poll", repeat={"maxIterations": 5}), "steps[14].repeat"),
        of("poll", repeat={"maxIterations": 5, "while": "__iteration__ < 3"}),
    ),
    "FAILURE_POLICY_VALID": (
        Broken(each(failurePolicy={"type": "TOLERATE"}), "steps[15].forEach.failurePolicy"),
        Broken(
            each(failurePolicy={"type": "TOLERATE", "count": 1, "percent": 1}),
            "steps[15].forEach.failurePolicy",
        ),
        Broken(each(failurePolicy={"type": "COLLECT", "count": 1}), "steps[15].forEach.failurePolicy"),
        Broken(of("tell", failurePolicy="TOLERATE"), "steps[17].failurePolicy"),
        each(failurePolicy={"type": "TOLERATE", "count": 0}),
        each(failurePolicy="COLLECT"),
    ),
    "DATASOURCE_PLACED": (
        Broken(of("settle", dataSources=[SOURCE]), "steps[16].dataSources[0]"),
        Broken(of("start", dataSources=[SOURCE]), "steps[0].dataSources[0]"),
        Broken(of("sign", dataSources=[{**SOURCE, "scope": "per-item"}]), "steps[9].dataSources[0].scope"),
        of("late", dataSources=[SOURCE]),
    ),
    "EXPRESSION_COMPILES": (
        Broken(of("charge", skipIf="(1"), "steps[12].skipIf"),
        Broken(each(completionCondition="(1"), "steps[15].forEach.completionCondition"),
        each(iterable={"type": "EXPRESSION"}),
    ),
    "REFERENCE_EXISTS": (
        Broken(of("refuse", assignments=[write("a", expr("__steps__.fan"))]), "steps[13].assignments[0].value.expr"),
        Broken(
            of("refuse", assignments=[write("a", expr("__steps__.ask.code"))]), "steps[13].assignments[0].value.expr"
        ),
        Broken(
            of("refuse", assignments=[write("a", expr("__error__.status"))]),
            "steps[13].assignments[0].value.expr",
        ),
        Broken(each(completionCondition="__counts__.done > 1"), "steps[15].forEach.completionCondition"),
        Broken(each(completionCondition="__each__ > 1"), "steps[15].forEach.completionCondition"),
        Broken(of("charge", skipIf="__iteration__ > 1"), "steps[12].skipIf"),
        Broken(of("pick", select=expr("__datasources__.oder")), "steps[7].select.expr"),
        Broken(of("sign", url=expr("__datasources__.order")), "steps[9].url.expr"),
        Broken(
            of("each", outputMapping=[write("a", expr("__datasources__.place"))]),
            "steps[15].outputMapping[0].value.expr",
        ),
        Broken(each(iterable={"type": "DATASOURCE", "alias": "place"}), "steps[15].forEach.iterable"),
        top(output=expr("[__steps__.ask.data, __steps__.papers.documents, __steps__.sign.data] ?? 1")),
        both(
            fetch(scope="per-step", params={}), each(iterable={"type": "DATASOURCE", "alias": "place", "select": "a"})
        ),
    ),
    "REFERENCE_BEFORE_AVAILABLE": (
        Broken(top(output=expr("__error__.code")), "output.expr"),
        Broken(of("tell", childWorkflowName=expr("__error__.code")), "steps[17].childWorkflowName.expr", WARNING),
        Broken(of("poll", parameters={"a": expr("__error__.code")}), "steps[14].parameters.a.expr"),
        Broken(top(output=expr("__steps__.tell")), "output.expr", WARNING),
        of("refuse", assignments=[write("a", expr("__error__.stepId"))]),
        of("tell", childWorkflowName=expr("__error__.code ?? 'none'")),
    ),
    "ACTION_EXISTS": (
        Broken(of("charge", compensate={**UNDO, "actionKey": "payment.refnud"}), "steps[12].compensate.actionKey"),
        of("charge", compensate=UNDO),
    ),
    "ACTION_PARAMETERS_VALID": (
        Broken(
            of("charge", compensate={"actionKey": "payment.refund"}),
            "steps[12].compensate.parameters",
        ),
        Broken(fetch(params={"method": "GET"}), "steps[15].dataSources[0].params"),
        Broken(fetch(params={"method": "PUT", "url": "x"}), "steps[15].dataSources[0].params.method"),
        of("charge", compensate=UNDO),
    ),
    "ACTION_TIMEOUT_IN_RANGE": (
        Broken(of("charge", timeout="PT301S"), "steps[12].timeout"),
        Broken(of("charge", compensate={**UNDO, "timeout": "PT1H"}), "steps[12].compensate.timeout"),
        of("charge", timeout="PT5M"),
    ),
    "DATASOURCE_EXISTS": (
        Broken(fetch(dataSourceId="http.requets"), "steps[15].dataSources[0].dataSourceId"),
        fetch(dataSourceId="report.build"),
    ),
    "ITERABLE_VALID": (
        Broken(each(iterable={"type": "DATASOURCE"}), "steps[15].forEach.iterable"),
        Broken(each(iterable={**NUMBERS, "alias": "place"}), "steps[15].forEach.iterable"),
        Broken(
            of("tell", mode="BATCH", iterable=NUMBERS, forEach={"iterable": NUMBERS}),
            "steps[17].forEach",
        ),
        Broken(of("tell", completionCondition="true"), "steps[17].completionCondition"),
        of("tell", mode="BATCH", iterable=NUMBERS),
        of("tell", forEach={"iterable": NUMBERS}),
    ),
    "DETACHED_CHILD_HAS_NO_RESULT": (
        Broken(of("tell", contextProjection=[write("a", 1)]), "steps[17].contextProjection"),
        Broken(of("tell", compensate=UNDO), "steps[17].compensate"),
        Broken(of("tell", mode="BATCH", iterable=NUMBERS, completionCondition="true"), "steps[17].completionCondition"),
        of("tell", outputMapping=[write("a", 1)]),
        of("tell", contextProjection=[write("a", 1)], wait=True),
    ),
    "CONTEXT_WRITE_RACE": (
        Broken(
            both(of("charge", outputMapping=[write("a.b", 1)]), of("poll", outputMapping=[write("a", 1)])),
            "steps[14].outputMapping[0].targetPath",
            WARNING,
        ),
        Broken(
            of("poll", outputMapping=[{**write("refused", 1), "mode": "append"}]),
            "steps[14].outputMapping[0].targetPath",
            WARNING,
        ),
        Broken(
            both(LOOP, of("charge", outputMapping=[write("a", 1)]), of("poll", outputMapping=[write("a", 1)])),
            "steps[14].outputMapping[0].targetPath",
            WARNING,
        ),
        both(of("charge", outputMapping=[write("a.b", 1)]), of("poll", outputMapping=[write("a.c", 1)])),
        both(of("charge", outputMapping=[write("a", 1)]), of("refuse", assignments=[write("a", 1)])),
        both(of("charge", outputMapping=[write("a", 1)]), of("tell", outputMapping=[write("a", 1)])),
        both(of("ask", outputMapping=[write("a", 1)]), of("late", outputMapping=[write("a", 1)])),
        both(*(of(name, outputMapping=[{**write("a", 1), "mode": "append"}]) for name in ("poll", "each"))),
    ),
    "HUMAN_STEP_WITHOUT_DUE": (
        Broken(without("sign", "timeout"), "steps[9]", WARNING),
        Broken(without("papers", "dueIn"), "steps[8].escalation", WARNING),
        nothing,
    ),
    "LOOP_WITHOUT_LIMIT": (
        Broken(both(LOOP, top(limits={"maxSteps": 10})), "steps[6]", WARNING),
        Broken(of("poll", repeat={"until": "true"}), "steps[14].repeat", WARNING),
        LOOP,
        top(limits={}),
    ),
    "UNSAFE_ACTION_NOT_COMPENSABLE": (
        Broken(without("charge", "compensate"), "steps[12]", WARNING),
        both(without("charge", "compensate"), lambda document: drop_step(document, "tell")),
    ),
}
