"""From which revision of the engine on a run behaves how; 1 is the spine.

A run goes on as it began: `ENGINE_REVISION` is what new ones get.
"""

from engine.holding import COUNTS_RESULTS

# Human tasks and incidents have rows; a child tells its parent what would undo it, and outlives its parent's
# continue-as-new.
RECORDS_STEPS = REPORTS = SURVIVES = 2

# What is withdrawn is awaited; a request is judged also by those that wait before it, and answers and signals that come
# to nothing are refused; rows of steps are never given up.
AWAITS = FORESEES = INSISTS = 3

# Waits for signals under a correlation key have rows.
RECORDS_WAITS = 4

# What a run may hold is counted, and one that holds too much fails instead of standing still.
BOUNDED = COUNTS_RESULTS
