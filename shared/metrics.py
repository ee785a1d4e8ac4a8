"""Every metric of Baton, declared once: type, labels, meaning. The runner emits them, handlers do not."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector


class Seconds:
    """The buckets of one stage."""

    __slots__ = ("_bounds", "counts", "total_s")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total_s = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self._bounds, seconds)] += 1
        self.total_s += seconds


class StageSeconds(Collector):
    """A histogram by stage that one thread fills, several times for each record: the library's own takes two locks and a walk
    through the buckets each time, four times as long."""

    def __init__(
        self, name: str, documentation: str, buckets: Sequence[float], registry: CollectorRegistry = REGISTRY
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._bounds = tuple(buckets)
        self._stages: dict[str, Seconds] = {}
        registry.register(self)

    def labels(self, stage: str) -> Seconds:
        return self._stages.setdefault(stage, Seconds(self._bounds))

    def collect(self) -> Iterator[HistogramMetricFamily]:
        family = HistogramMetricFamily(self._name, self._documentation, labels=("stage",))
        bounds = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        for stage, seconds in self._stages.items():
            family.add_metric((stage,), list(zip(bounds, accumulate(seconds.counts), strict=True)), seconds.total_s)
        yield family


_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_HANDLE_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.01, 0.05, 0.25, 1, 5, 10, 30, 60, 120)

RECORDS_IN = Counter("baton_records_in_total", "Records taken from a topic.", ["stage", "topic"])
RECORDS_OUT = Counter("baton_records_out_total", "Records written to a topic.", ["stage", "topic"])
OUTCOMES = Counter("baton_outcomes_total", "What became of records: emit, hold, drop, reject.", ["stage", "outcome", "reason"])
HANDLE_SECONDS = StageSeconds("baton_handle_seconds", "From taking a record to its outcome.", _HANDLE_SECONDS)
IN_FLIGHT = Gauge("baton_in_flight", "Records taken and not finished.", ["stage"])
LAG_RECORDS = Gauge("baton_lag_records", "Records in a partition behind which the stage is.", ["stage", "topic", "partition"])
LAG_SECONDS = Gauge("baton_lag_seconds", "Age of the oldest unfinished record.", ["stage"])
END_TO_END_SECONDS = StageSeconds("baton_end_to_end_seconds", "From acceptance to the end of this stage.", _SECONDS)
WAIT_SECONDS = Gauge("baton_wait_seconds", "How long what is accepted now will wait for what stands before it.", ["lane"])
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
