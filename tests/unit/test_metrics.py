"""The runner's own histogram says what the metrics library's would."""

from prometheus_client import CollectorRegistry, Histogram, generate_latest

from shared import metrics

BUCKETS = (0.0001, 0.00025, 0.001, 0.25, 1, 5, 120)
OBSERVED = (0.0, 0.0001, 0.00011, 0.001, 0.2, 0.25, 3, 5, 120, 121, 1e9)


def test_a_histogram_by_stage_reads_as_the_librarys() -> None:
    registry, theirs = CollectorRegistry(), CollectorRegistry()
    ours = metrics.StageSeconds("lab_seconds", "How long.", BUCKETS, registry)
    usual = Histogram("lab_seconds", "How long.", ["stage"], buckets=BUCKETS, registry=theirs)
    for stage in ("router", "output"):
        for seconds in OBSERVED:
            ours.labels(stage=stage).observe(seconds)
            usual.labels(stage=stage).observe(seconds)
    assert _lines(registry) == _lines(theirs)


def _lines(registry: CollectorRegistry) -> list[str]:
    """Without the library's time of creation."""
    return sorted(line for line in generate_latest(registry).decode().splitlines() if "_created" not in line)
