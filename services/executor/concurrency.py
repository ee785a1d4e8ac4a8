"""How many calls one backend may have in flight from this replica: finds out how many it works on at once.

Pace is milliseconds per unit of answer (tokens out + 40), so that a long answer is not taken for a slow backend. Pure:
time is passed in, in milliseconds. It must never follow a single call: the latency of a model is lognormal with a heavy tail.
"""

from math import sqrt

# The figures without a source were found by simulating backends of 6 to 150 places behind a queue, and one without limit.
TOLERANCE = 1.3                # and the root of the places: half as slow again as the floor is no queue yet, as in Gradient2
BESIDE_ROOT = 0.2              # roots of the places in the queue, for those whom others must not feel
OWN_PACE_MS = 0.5              # of this machine, not of the backend: 40 ms of a call of 80 units. A busy loop is no queue
WINDOW = 20                    # calls per median, as Envoy judges by the p50 of a sample: its noise is 16 %
FIRST_WINDOW = 40              # or only the quick ones of the first calls have ended
FIRST_QUEUE = 0.6              # the pace of the very first calls, as a part of the window's: below it there is a queue already
SMOOTHING = 0.3                # Gradient2 takes 0.2 of every call; a median has been smoothed already
FALL_MAX = 0.5                 # per window, as Gradient2's least gradient
START_FACTOR = 1.5             # per window until the backend is full: slow calls would take minutes to the places there are
FULL = 1.25                    # times the floor: with the limit half above the places it is 1.4 where they are all in use
FULL_WINDOWS = 3               # one or two may be noise
SLOW = 1.5                     # times the floor: a queue, however few calls there are
LOADED = 0.9                   # of the places in use: with fewer calls a window says nothing about how many there are
DROP_FACTOR = 0.9              # Netflix AIMD
DIP = 0.7                      # of the places: in flight while the floor is measured
CALM_MIN, CALM_MAX = 5, 100    # calls begun in a dip: about a round trip of them
SETTLE_ROUND_TRIPS = 3         # after a dip, until all but the tail of its calls have ended: the quick ones end first
DIP_ROUND_TRIPS_MAX = 4
FLOOR_FELL = 0.7               # below this part of the known floor the true one may lie deeper still
FLOORS = 4                     # measured one soon after the other; from then on the floor is a running mean of so many
DIP_EVERY_ROUND_TRIPS = 32     # costs 2 % of the throughput
DIP_AGAIN_ROUND_TRIPS = 2
PROBE_ROUND_TRIPS = 2          # before a dip, which then drains it
DIP_PERIOD_BITS_MAX = 17       # 131 s
ROUND_TRIP_MS_MIN, ROUND_TRIP_MS_MAX = 50, 60_000
NEVER_MS = 1 << 62


class Gradient:
    """An adaptive limit: BBR's bandwidth-delay product (Cardwell et al., 2016), from Little's law.

    `places = calls in flight × floor ÷ pace`, smoothed over windows. In a queue that is what the backend works on at once,
    however many wait; without one it is what is in flight, so the limit, which is above it, grows until there is a queue. It
    is the gradient of Netflix concurrency-limits' `Gradient2Limit` without its cap at 1, which would turn noise into loss.

    The floor is the pace of calls that began with at most 0.7 of the places in flight. Where there are none, the limit dips
    to that for about a round trip, every 32. Dips begin at round times of the clock: replicas dip together, or each would
    see the others' queue. A floor that is too high makes for too many places; then the dip finds a lower one.
    """

    __slots__ = (
        "_beside",
        "_calm",
        "_dip_at_ms",
        "_dip_until_ms",
        "_dips",
        "_floor_ms",
        "_floors",
        "_high",
        "_high_in_flight",
        "_limit",
        "_limit_min",
        "_low",
        "_low_need",
        "_measure_at_ms",
        "_places",
        "_quiet_until_ms",
        "_round_trip_ms",
        "_since_ms",
        "_starts",
        "limit_max",
    )

    def __init__(self, limit_max: int, initial: int = 20, limit_min: int = 2) -> None:
        self.limit_max = max(limit_max, limit_min)
        self._limit_min = limit_min
        self._floor_ms = 0.0            # 0: never measured
        self._floors = 0                # measurements in a row that agree; 0: the true floor may lie deeper
        self._low: list[float] = []     # calls begun with at most `_calm` in flight
        self._high: list[float] = []    # all others
        self._high_in_flight = 0        # of them together, when they began
        self._since_ms = 0              # when the window of `_high` began
        self._round_trip_ms = 1_000.0
        self._quiet_until_ms = 0        # drops before it are of the same burst
        self._starts = FULL_WINDOWS   # windows that must yet show that the backend is full; 0: it was
        self._dips = False
        self._dip_at_ms, self._dip_until_ms = NEVER_MS, 0
        self._measure_at_ms = 0         # when all but the tail of a dip's calls have ended; 0: there is none to measure
        self._calm = 1
        self._set(initial / START_FACTOR)
        self._stay_below_places()

    @property
    def limit(self) -> int:
        """A call may start while fewer are in flight. At least one."""
        return self._calm if self._dips else self._limit

    @property
    def limit_undipped(self) -> int:
        """The same for calls that a dip must not hold up: it is reached all the same while the others are most of them."""
        return self._limit

    @property
    def limit_beside(self) -> int:
        """The same for calls that must not make others wait at the backend: hardly more than it works on at once. It takes
        twice as many calls to notice that there is room for more, so it is as high as the other at the start and in probes."""
        if self._dips:
            return self._calm
        return self._limit if self._starts else self._beside

    def set_max(self, limit_max: int) -> None:
        """The configuration changed."""
        self.limit_max = max(limit_max, self._limit_min)
        self._set(self._places)
        self._calm = min(self._calm, self._limit)

    def observe(self, pace_ms: float, in_flight: int, now_ms: int) -> None:
        """Learn from a call that succeeded. `in_flight` is the count when it *began*, itself included."""
        pace_ms += OWN_PACE_MS
        if in_flight <= self._calm:
            self._low.append(pace_ms)
            if self._dips:
                if len(self._low) >= self._low_need:
                    self._end_dip(now_ms)
            elif len(self._low) >= 2 * self._low_need and now_ms >= self._measure_at_ms:
                self._measure_floor(now_ms)
        elif self._dips:
            if now_ms >= self._dip_until_ms:
                self._end_dip(now_ms)
        elif now_ms >= self._dip_at_ms:
            self._dip(now_ms)
        else:
            if not self._high:
                self._since_ms = now_ms
            self._high.append(pace_ms)
            self._high_in_flight += in_flight
            if len(self._high) >= (max(WINDOW, self._places / 2) if self._floor_ms else FIRST_WINDOW):
                self._judge(in_flight, now_ms)

    def dropped(self, now_ms: int) -> None:
        """A call failed as overloaded, rate limited or timed out: less, once per round trip, for a burst is one signal."""
        if now_ms < self._quiet_until_ms:
            return
        self._quiet_until_ms = now_ms + int(self._round_trip_ms)
        self._forget_window()
        if self._starts:
            self._starts, self._dip_at_ms = 0, min(self._dip_at_ms, now_ms)
        self._set(self._places * DROP_FACTOR)
        if self._dips:
            self._calm = max(1, int(self._calm * DROP_FACTOR))

    def _judge(self, in_flight: int, now_ms: int) -> None:
        """A window of calls under load is complete."""
        pace_ms, count = _median(self._high), len(self._high)
        mean = self._high_in_flight / count
        self._forget_window()
        # Little's law: what is in flight leaves at the rate of the window.
        round_trip_ms = in_flight * (now_ms - self._since_ms) / (count - 1)
        self._round_trip_ms = min(max(round_trip_ms, ROUND_TRIP_MS_MIN), ROUND_TRIP_MS_MAX)
        self._note_floor(pace_ms, now_ms)
        if self._floors >= FLOORS and not self._starts and now_ms >= self._dip_at_ms - PROBE_ROUND_TRIPS * self._round_trip_ms:
            self._starts = FULL_WINDOWS
        if self._starts:
            self._search(mean * self._floor_ms / pace_ms, pace_ms > FULL * self._floor_ms, now_ms)
        elif mean >= LOADED * self._places or mean * self._floor_ms > self._places * pace_ms or pace_ms > SLOW * self._floor_ms:
            found = max(mean * self._floor_ms / pace_ms, FALL_MAX * self._places)
            self._set(self._places + SMOOTHING * (found - self._places))
        if self._floors:
            # Never down: a shrinking limit that arrives where the floor was measured measures it anew. So a backend that
            # became slower for reasons of its own costs a part of the limit, not all of it.
            self._calm = max(self._calm, int(self._places * DIP))

    def _note_floor(self, pace_ms: float, now_ms: int) -> None:
        """What a window under load says of the floor; and the calls of the last dip have ended, if there was one."""
        if not self._floor_ms:
            first_ms = _median(self._low) if len(self._low) >= CALM_MIN else pace_ms
            self._floor_ms = first_ms if first_ms < FIRST_QUEUE * pace_ms else pace_ms
        if now_ms >= self._measure_at_ms:
            if len(self._low) >= self._low_need and self._measure_at_ms:
                self._measure_floor(now_ms)
            self._low.clear()       # what trickles in under load are slow ones that began before it
        if pace_ms * 2 < self._floor_ms:
            self._floor_ms = (self._floor_ms + pace_ms) / 2   # faster under load: the floor is that of a slow period

    def _search(self, found: float, is_full: bool, now_ms: int) -> None:
        """Upwards in great steps, until windows show that the backend is full."""
        self._starts -= is_full
        if self._starts:
            self._set(min(max(found, self._places), START_FACTOR * self._places))
        else:
            self._set(found)
            self._dip_at_ms = min(self._dip_at_ms, now_ms + int(DIP_AGAIN_ROUND_TRIPS * self._round_trip_ms))

    def _dip(self, now_ms: int) -> None:
        self._dips = True
        if self._floors >= FLOORS:
            self._starts = 0
        self._dip_at_ms, self._dip_until_ms = NEVER_MS, now_ms + int(DIP_ROUND_TRIPS_MAX * self._round_trip_ms)
        self._low.clear()
        self._stay_below_places()

    def _end_dip(self, now_ms: int) -> None:
        """Enough calls have ended, or a few very long ones hold it up."""
        self._dips = False
        self._forget_window()
        self._measure_at_ms = now_ms + int(SETTLE_ROUND_TRIPS * self._round_trip_ms)
        if len(self._low) < self._low_need:
            self._dip_at_ms = self._next_dip_ms(DIP_AGAIN_ROUND_TRIPS, now_ms)

    def _measure_floor(self, now_ms: int) -> None:
        """Of enough calls without a queue. The floor falls at once and rises by half; in between it is a running mean."""
        pace_ms, before_ms = _median(self._low), self._floor_ms or _median(self._low)
        self._low.clear()
        self._forget_window()
        self._measure_at_ms = 0
        if pace_ms < FLOOR_FELL * before_ms:
            self._floors, self._floor_ms = 0, pace_ms
        else:
            self._floors = min(self._floors + 1, FLOORS)
            part = 1 / self._floors if pace_ms < before_ms / FLOOR_FELL else 0.5
            self._floor_ms = before_ms ** (1 - part) * pace_ms ** part
        self._set(self._places * min(1.0, self._floor_ms / before_ms))
        self._stay_below_places()
        is_known = self._floors >= FLOORS
        self._dip_at_ms = self._next_dip_ms(DIP_EVERY_ROUND_TRIPS if is_known else DIP_AGAIN_ROUND_TRIPS, now_ms)

    def _next_dip_ms(self, round_trips: int, now_ms: int) -> int:
        """A multiple of 2, 8, 33 or 131 s of epoch time (or of less): replicas with similar round trips agree without a word."""
        bits = int(round_trips * self._round_trip_ms).bit_length() | 1
        period_ms: int = 1 << min(bits, DIP_PERIOD_BITS_MAX)
        return ((now_ms + period_ms // 2) // period_ms + 1) * period_ms

    def _forget_window(self) -> None:
        self._high.clear()
        self._high_in_flight = 0

    def _stay_below_places(self) -> None:
        self._calm = max(1, int(DIP * self._places + 0.5))
        self._low_need = max(CALM_MIN, min(CALM_MAX, self._calm))

    def _set(self, places: float) -> None:
        self._places = max(1.0, min(float(self.limit_max), places))
        root = sqrt(self._places)
        self._limit = max(self._limit_min, min(self.limit_max, int(TOLERANCE * self._places + root)))
        self._beside = min(self._limit, int(self._places + BESIDE_ROOT * root + 0.5))


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
