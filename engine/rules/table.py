"""Every rule with its name, its code and its function, in the order in which problems are listed.

The names and codes are a contract: programs and people branch on them. Documentation and tests read them from here.
"""

from engine.rules import children, document, expressions, gateways, graph, groups, ids, legacy, registry
from engine.rules.examined import Rule

# The two that look at the raw document before all others; `engine.rules.shape` has their functions.
SIZE_LIMIT = ("SIZE_LIMIT", "SIZE_INVALID")
DEFINITION_SHAPE = ("DEFINITION_SHAPE", "DEFINITION_INVALID")

RULES: tuple[Rule, ...] = (
    Rule("GRAPH_EXACTLY_ONE_START", "GRAPH_INVALID", graph.exactly_one_start),
    Rule("GRAPH_EXACTLY_ONE_END", "GRAPH_INVALID", graph.exactly_one_end),
    Rule("START_STEP_NO_INCOMING", "GRAPH_INVALID", graph.start_has_no_incoming),
    Rule("START_STEP_HAS_OUTGOING", "GRAPH_INVALID", graph.start_has_outgoing),
    Rule("END_STEP_SINGLE_INCOMING", "GRAPH_INVALID", graph.end_has_one_incoming),
    Rule("END_STEP_NO_OUTGOING", "GRAPH_INVALID", graph.end_has_no_outgoing),
    Rule("TRANSITION_ENDS_EXIST", "GRAPH_INVALID", graph.transition_ends_exist),
    Rule("TRANSITIONS_UNIQUE", "GRAPH_INVALID", graph.transitions_unique),
    Rule("NO_SELF_LOOPS", "GRAPH_INVALID", graph.no_self_loops),
    Rule("NO_ISOLATED_STEPS", "GRAPH_INVALID", graph.no_isolated_steps),
    Rule("STEP_REACHABLE_FROM_START", "GRAPH_INVALID", graph.reachable_from_start),
    Rule("STEP_CAN_REACH_END", "GRAPH_INVALID", graph.can_reach_end),
    Rule("ONLY_SPLIT_GATEWAY_CAN_FAN_OUT", "GRAPH_INVALID", gateways.only_splits_fan_out),
    Rule("JOIN_GATEWAY_MANY_IN_SINGLE_OUT", "GRAPH_INVALID", gateways.joins_many_in_one_out),
    Rule("CONDITIONAL_SPLIT_SINGLE_DEFAULT", "GRAPH_INVALID", gateways.conditional_split_single_default),
    Rule("EXCLUSIVE_SPLIT_TWO_OUTGOING", "GRAPH_INVALID", gateways.exclusive_split_two_outgoing),
    Rule(
        "ONLY_EXCLUSIVE_INCLUSIVE_STEP_HAVE_CONDITION",
        "GRAPH_INVALID",
        gateways.conditions_leave_conditional_splits,
    ),
    Rule("MISSING_BATCH_ITERATOR", "GRAPH_INVALID", children.missing_batch_iterator),
    Rule("STEP_IDS_UNIQUE", "ID_INVALID", ids.step_ids_unique),
    Rule("TRANSITION_IDS_UNIQUE", "ID_INVALID", ids.transition_ids_unique),
    Rule("STEP_GROUP_IDS_UNIQUE", "ID_INVALID", ids.step_group_ids_unique),
    Rule("VARIABLE_KEYS_UNIQUE", "ID_INVALID", ids.variable_keys_unique),
    Rule("NO_GROUP_FOR_SPECIAL_NODES", "GROUPING_INVALID", groups.no_group_for_special_nodes),
    Rule("GROUP_STEP_IDS_EXISTS", "GROUPING_INVALID", groups.group_step_ids_exist),
    Rule("STEP_BELONGS_TO_ONLY_ONE_GROUP", "GROUPING_INVALID", groups.step_in_one_group),
    Rule("STEP_GROUP_CANNOT_BE_EMPTY", "GROUPING_INVALID", groups.group_not_empty),
    Rule("LEGACY_SERVICE_REQUEST_REQUIRES_STEP_GROUPS", "GROUPING_INVALID", groups.legacy_type_requires_groups),
    Rule("LEGACY_SERVICE_REQUEST_TYPE_GROUP_TASK_UNIQUE", "LEGACY_CONFIG_INVALID", legacy.task_unique),
    Rule(
        "LEGACY_SERVICE_REQUEST_TASK_GROUP_EXISTS_IN_TEMPLATE",
        "LEGACY_CONFIG_INVALID",
        legacy.task_group_exists,
    ),
    Rule("LEGACY_SERVICE_REQUEST_TASK_EXISTS_IN_TEMPLATE", "LEGACY_CONFIG_INVALID", legacy.task_exists),
    Rule(
        "LEGACY_SERVICE_REQUEST_TASK_ONLY_ON_HUMAN_STEP",
        "LEGACY_CONFIG_INVALID",
        legacy.task_only_on_human_step,
    ),
    Rule("TARGET_PATH_VALID", "DEFINITION_INVALID", document.target_path_valid),
    Rule("VARIABLE_DEFAULT_FITS", "DEFINITION_INVALID", document.variable_default_fits),
    Rule("SCHEMA_VALID", "DEFINITION_INVALID", document.schema_valid),
    Rule("EXPRESSION_COMPILES", "EXPRESSION_INVALID", expressions.expression_compiles),
    Rule("REFERENCE_EXISTS", "EXPRESSION_INVALID", expressions.reference_exists),
    Rule("REFERENCE_BEFORE_AVAILABLE", "EXPRESSION_INVALID", expressions.reference_before_available),
    Rule("ACTION_EXISTS", "REGISTRY_INVALID", registry.action_exists),
    Rule("ACTION_PARAMETERS_VALID", "REGISTRY_INVALID", registry.action_parameters_valid),
    Rule("ACTION_TIMEOUT_IN_RANGE", "REGISTRY_INVALID", registry.action_timeout_in_range),
    Rule("ITERABLE_VALID", "CHILD_INVALID", children.iterable_valid),
    Rule("CHILD_REFERENCE_GIVEN", "CHILD_INVALID", children.child_reference_given),
    Rule("CHILD_EXISTS", "CHILD_INVALID", children.child_exists),
    Rule("CHILD_PUBLISHED", "CHILD_INVALID", children.child_published),
    Rule("CHILD_CYCLE_BOUNDED", "CHILD_INVALID", children.child_cycle_bounded),
)
