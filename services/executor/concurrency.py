"""How many calls one backend may have in flight from this replica: finds out where the backend begins to queue.

Pace is milliseconds per unit of answer (tokens out + 40), so that a long answer is not taken for a slow backend. Pure:
time is passed in, in milliseconds. It must never follow a single call: the latency of a model is lognormal with a heavy tail.
"""

from math import sqrt

# The figures without a source were found by simulating backends of 2 to 150 places behind a queue, and one without limit.
WINDOW = 20                    # calls per median, as Envoy judges by the p50 of a sample: its noise (16 %) stays within tolerance
TOLERANCE = 1.5                # Netflix Gradient2: so much slower than the floor is no queue yet
GRADIENT_MIN = 0.5             # Netflix Gradient2
SMOOTHING = 0.5                # Gradient2 takes 0.2 of every call; a median has been smoothed already
QUEUE_SHARE_MAX = 0.2          # of the limit: √limit alone would be most of a small one
START_FACTOR = 1.5             # per window until the backend is full: in steps of √limit, slow calls would take minutes to it
START_FULL = 0.8               # of the limit in use: else nobody knows whether the backend could bear more
DROP_FACTOR = 0.9              # Netflix AIMD
CALM_MIN, CALM_MAX = 5, 100    # calls per measurement of the floor: about a round trip of them, or only quick ones have ended
FLOOR_FELL = 0.8               # below this part of the known floor the true one may lie deeper still
DIP_EVERY_ROUND_TRIPS = 32     # costs 2 % of the throughput
DIP_AGAIN_ROUND_TRIPS = 2
DIP_PERIOD_BITS_MAX = 17       # 131 s
ROUND_TRIP_MS_MIN, ROUND_TRIP_MS_MAX = 50, 60_000


class Gradient:
    """An adaptive limit: Netflix concurrency-limits' `Gradient2Limit` with a floor that is measured, as Envoy's minRTT is.

    `limit' = (1 - s)·limit + s·(limit·g + √limit)` with `g = max(0.5, min(1, 1.5·floor / pace))`, once per window.
    Gradient2 compares with a long average, which in lasting overload learns the queue, and then the limit drifts up for
    ever. So the floor here is the pace of calls that began with at most half the limit in flight. Where there are none,
    the limit dips to half for about one round trip, every 32. Dips begin at round times of the clock: replicas dip
    together, or each would see the others' queue. Calls begun below half the limit never make it grow.
    """

    __slots__ = (
        "_calm", "_dip_at_ms", "_dips", "_floor_ms", "_high", "_is_found", "_limit", "_limit_max", "_limit_min", "_low",
        "_low_need", "_quiet_until_ms", "_round_trip_ms", "_since_ms", "_starts",
    )

    def __init__(self, limit_max: int, initial: int = 20, limit_min: int = 2) -> None:
        self._limit_max = max(limit_max, limit_min)
        self._limit_min = limit_min
        self._limit = float(min(max(initial, limit_min), self._limit_max))
        self._floor_ms = 0.0            # 0: never measured
        self._is_found = False          # whether half the load was about as fast: then this is the floor
        self._low: list[float] = []     # calls begun with at most `_calm` in flight
        self._high: list[float] = []    # all others
        self._since_ms = 0              # when the window of `_high` began
        self._round_trip_ms = 1_000.0
        self._quiet_until_ms = 0        # drops before it are of the same burst
        self._starts = True             # until the backend first shows that it is full
        self._dips = True               # the first calls are a dip: nothing is known yet
        self._dip_at_ms = 0
        self._calm = 1
        self._low_need = CALM_MIN
        self._stay_below(int(self._limit) // 2)

    @property
    def limit(self) -> int:
        """A call may start while fewer are in flight. At least one."""
        return self._calm if self._dips else int(self._limit)

    def set_max(self, limit_max: int) -> None:
        """The configuration changed."""
        self._limit_max = max(limit_max, self._limit_min)
        self._set(self._limit)
        self._calm = min(self._calm, int(self._limit))

    def observe(self, pace_ms: float, in_flight: int, now_ms: int) -> None:
        """Learn from a call that succeeded. `in_flight` is the count when it *began*, itself included."""
        if in_flight <= self._calm:
            self._low.append(pace_ms)
            if len(self._low) >= self._low_need:
                self._measure_floor(now_ms)
            return
        if now_ms >= self._dip_at_ms and not self._dips:
            self._dip()
        if not self._high:
            self._since_ms = now_ms
        self._high.append(pace_ms)
        if len(self._high) >= max(WINDOW, self._limit / 2):
            self._judge(in_flight, now_ms)

    def dropped(self, now_ms: int) -> None:
        """A call failed as overloaded, rate limited or timed out: less, once per round trip, for a burst is one signal."""
        if now_ms < self._quiet_until_ms:
            return
        self._quiet_until_ms = now_ms + int(self._round_trip_ms)
        self._high.clear()
        self._starts = False
        self._set(self._limit * DROP_FACTOR)
        if self._dips:
            self._calm = max(1, int(self._calm * DROP_FACTOR))

    def _judge(self, in_flight: int, now_ms: int) -> None:
        """A window of calls under load is complete."""
        pace_ms, count = max(_median(self._high), 1e-9), len(self._high)
        self._high.clear()
        # Little's law: what is in flight leaves at the rate of the window.
        round_trip_ms = in_flight * (now_ms - self._since_ms) / (count - 1)
        self._round_trip_ms = min(max(round_trip_ms, ROUND_TRIP_MS_MIN), ROUND_TRIP_MS_MAX)
        if self._dips:
            return              # these began before the dip
        self._low.clear()       # what trickles in under load are slow ones that began before it
        if pace_ms * 2 < self._floor_ms:
            self._floor_ms = (self._floor_ms + pace_ms) / 2   # faster under load: the floor is that of a slow period
        gradient = max(GRADIENT_MIN, min(1.0, TOLERANCE * self._floor_ms / pace_ms))
        self._starts = self._starts and gradient == 1.0
        if self._starts and in_flight > START_FULL * self._limit:
            self._set(self._limit * START_FACTOR)
            return
        wanted = self._limit * gradient + min(sqrt(self._limit), QUEUE_SHARE_MAX * self._limit)
        self._set((1 - SMOOTHING) * self._limit + SMOOTHING * wanted)
        if self._is_found:
            # Never down: a shrinking limit that arrives where the floor was measured measures it anew. So a backend that
            # became slower for reasons of its own costs half the limit, not all of it.
            self._calm = max(self._calm, int(self._limit) // 2)

    def _dip(self) -> None:
        self._dips = True
        self._low.clear()
        if self._is_found:
            self._stay_below(int(self._limit) // 2)

    def _measure_floor(self, now_ms: int) -> None:
        """Enough calls without a queue have ended. The floor falls at once and rises by half: noise is no slowness."""
        pace_ms, before_ms = _median(self._low), self._floor_ms
        self._low.clear()
        self._high.clear()
        self._floor_ms = pace_ms if pace_ms < before_ms or not before_ms else (before_ms + pace_ms) / 2
        self._is_found = self._calm == 1 or (before_ms > 0 and pace_ms > before_ms * FLOOR_FELL)
        self._dips = False
        if self._is_found:
            self._stay_below(int(self._limit) // 2)
            self._dip_at_ms = self._next_dip_ms(now_ms)
        else:
            self._stay_below(self._calm // 2)
            self._dip_at_ms = now_ms + int(DIP_AGAIN_ROUND_TRIPS * self._round_trip_ms)

    def _next_dip_ms(self, now_ms: int) -> int:
        """A multiple of 8, 33 or 131 s of epoch time (or of less): replicas with similar round trips agree without a word."""
        bits = int(DIP_EVERY_ROUND_TRIPS * self._round_trip_ms).bit_length() | 1
        period_ms: int = 1 << min(bits, DIP_PERIOD_BITS_MAX)
        return ((now_ms + period_ms // 2) // period_ms + 1) * period_ms

    def _stay_below(self, calm: int) -> None:
        self._calm = max(1, calm)
        self._low_need = max(CALM_MIN, min(CALM_MAX, self._calm))

    def _set(self, limit: float) -> None:
        self._limit = max(float(self._limit_min), min(float(self._limit_max), limit))


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
