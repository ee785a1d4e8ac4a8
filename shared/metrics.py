"""Every metric of Baton, declared once: type, labels, meaning. The runner emits them, handlers do not."""

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_HANDLE_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.01, 0.05, 0.25, 1, 5, 10, 30, 60, 120)

RECORDS_IN = Counter("baton_records_in_total", "Records taken from a topic.", ["stage", "topic"])
RECORDS_OUT = Counter("baton_records_out_total", "Records written to a topic.", ["stage", "topic"])
OUTCOMES = Counter("baton_outcomes_total", "What became of records: emit, hold, drop, reject.", ["stage", "outcome", "reason"])
HANDLE_SECONDS = Histogram(
    "baton_handle_seconds", "From taking a record to its outcome.", ["stage"], buckets=_HANDLE_SECONDS
)
IN_FLIGHT = Gauge("baton_in_flight", "Records taken and not finished.", ["stage"])
LAG_RECORDS = Gauge("baton_lag_records", "Records in a partition behind which the stage is.", ["stage", "topic", "partition"])
LAG_SECONDS = Gauge("baton_lag_seconds", "Age of the oldest unfinished record.", ["stage"])
END_TO_END_SECONDS = Histogram(
    "baton_end_to_end_seconds", "From acceptance to the end of this stage.", ["stage"], buckets=_SECONDS
)
SESSIONS = Counter("baton_sessions_total", "Sessions begun with the broker; more than one means it was away.", ["stage"])
REBALANCES = Counter("baton_rebalances_total", "Assignments received from the group.", ["stage"])
PAUSED_PARTITIONS = Gauge("baton_paused_partitions", "Partitions not read because of back-pressure.", ["stage"])

PLANS_WAITING = Gauge("baton_plans_waiting", "Plans of this executor that wait for a backend with a place.", ["lane"])
BACKEND_PLACES = Gauge("baton_backend_places", "Calls that may be on their way: the adaptive limit.", ["backend"])
BACKEND_IN_FLIGHT = Gauge("baton_backend_in_flight", "Calls on their way from this executor.", ["backend"])
BACKEND_CIRCUIT = Gauge("baton_backend_circuit", "State of a backend's circuit: 0 closed, 0.5 half-open, 1 open.", ["backend"])
BACKEND_SHARE = Gauge("baton_backend_share", "Part of its traffic that a backend may take now.", ["backend"])
BACKEND_GATED_UNTIL = Gauge(
    "baton_backend_gated_until_seconds", "Epoch time until which nobody may call a backend; 0: anybody may.", ["backend"]
)
BACKEND_CHANGES = Counter("baton_backend_changes_total", "Changes of circuits and gates, as in the alerts.", ["backend", "kind"])
