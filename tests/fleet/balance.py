"""Balance: that calls go where answers come soonest, whatever their length, and that no backend is flooded.

Simulated replicas choose by what is shipped: `choose` over each replica's `Local`, and the monitor's entries between them.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from schemas.config import Backend, Prices
from schemas.ledger import FailureClass, Usage
from services.executor.concurrency import Gradient
from services.executor.decide import Option, choose
from services.executor.local import Local
from services.monitor.decide import Watch
from shared.circuit import CircuitRules
from shared.delta import Seen
from shared.sketch import pace_ms
from shared.windows import Ring, fold
from tests.support.findings import Finding

START_MS = 1_764_000_000_000
REPORT_MS = 200
START_OF_ANSWER_MS, TOKEN_MS = 400.0, 10.0
REPLICAS = 4
CALLS_S = 60


@dataclass
class Server:
    """A backend: how much slower than usual it is, from how many calls on it queues, and how often it fails at once."""

    slower: float = 1.0
    places: int = 100
    failing: float = 0.0
    tokens_out: tuple[int, int] = (20, 200)
    from_s: float = 0.0                     # not there before
    in_flight: int = 0
    in_flight_max: int = 0
    taken_at_ms: list[int] = field(default_factory=list)

    def answer(self, random: Random) -> Seen:
        if random.random() < self.failing:
            return Seen(20.0, FailureClass.SERVER_ERROR, counts=True)
        tokens = random.randint(*self.tokens_out)
        queue = max(1.0, self.in_flight / self.places)
        latency_ms = (START_OF_ANSWER_MS + tokens * TOKEN_MS) * self.slower * queue * random.lognormvariate(0, 0.3)
        return Seen(latency_ms, None, counts=True, usage=Usage(tokens_in=20, tokens_out=tokens))


class Fleet:
    """Calls come evenly to replicas by chance; each replica reports, and reads the entries that follow."""

    def __init__(self, servers: dict[str, Server], by_chance: bool = False, seed: int = 1) -> None:
        self.servers = servers
        self.by_chance = by_chance
        self.random = Random(seed)
        self.now_ms = START_MS
        self.locals = [{name: Local(Gradient(256)) for name in servers} for _ in range(REPLICAS)]
        self.backend = Backend(model="m", provider="p", base_url="http://host/v1", prices=Prices(input=1, output=1))
        catalogue = dict.fromkeys(servers, self.backend)
        self.watch = Watch(CircuitRules(), dict, lambda: catalogue)
        self.latencies_ms: list[float] = []
        self._ends: list[tuple[float, int, int, str, Seen]] = []
        self._calls = 0

    def run(self, seconds: float, calls_s: float = CALLS_S) -> "Fleet":
        until_ms, step_ms = self.now_ms + seconds * 1000, 1000 / calls_s
        due_ms = float(self.now_ms)
        while due_ms < until_ms:
            self._end_calls(due_ms)
            if int(due_ms) // REPORT_MS != self.now_ms // REPORT_MS:
                self._report(int(due_ms))
            self.now_ms = int(due_ms)
            self._begin_call()
            due_ms += step_ms
        return self

    def _begin_call(self) -> None:
        replica = self.random.randrange(REPLICAS)
        name = self._chosen(self.locals[replica])
        if name is None:
            return
        server = self.servers[name]
        server.in_flight += 1
        server.in_flight_max = max(server.in_flight_max, server.in_flight)
        server.taken_at_ms.append(self.now_ms)
        self.locals[replica][name].in_flight += 1
        seen = server.answer(self.random)
        self._calls += 1
        heapq.heappush(self._ends, (self.now_ms + seen.latency_ms, self._calls, replica, name, seen))

    def _chosen(self, known: dict[str, Local]) -> str | None:
        ready = [
            Option(name, True, local.load(1.0, self.now_ms), local.p50_ms, 60_000, 9_999)
            for name, local in known.items()
            if self.now_ms - START_MS >= self.servers[name].from_s * 1000
            and local.passes(f"{self._calls}", "r", self.now_ms, False)
        ]
        if self.by_chance or not ready:
            return self.random.choice(ready).backend if ready else None
        return choose(ready, "", self.random.random).backend

    def _end_calls(self, until_ms: float) -> None:
        while self._ends and self._ends[0][0] <= until_ms:
            ended_ms, _, replica, name, seen = heapq.heappop(self._ends)
            local = self.locals[replica][name]
            local.in_flight -= 1
            self.servers[name].in_flight -= 1
            local.delta.record(seen)
            if seen.usage is None:
                local.failed(int(ended_ms))
            else:
                local.observe(pace_ms(seen.latency_ms, seen.usage.tokens_out), int(ended_ms))
                self.latencies_ms.append(seen.latency_ms)

    def _report(self, at_ms: int) -> None:
        for replica, known in enumerate(self.locals):
            for name, local in known.items():
                seen = local.delta.take(name, f"r{replica}", at_ms, at_ms)
                if seen is not None:
                    fold(self.watch.rings.setdefault(name, Ring()), seen, at_ms)
        for due in self.watch.look(at_ms, lambda: 0.0, lambda name: True):
            for known in self.locals:
                known[due.backend].read(self.backend, due.entry)

    def share(self, name: str, from_s: float, to_s: float) -> float:
        """The backend's part of the calls of that time."""
        window = range(START_MS + round(from_s * 1000), START_MS + round(to_s * 1000))
        counts = {other: sum(at_ms in window for at_ms in server.taken_at_ms) for other, server in self.servers.items()}
        return counts[name] / max(sum(counts.values()), 1)

    def mean_ms(self) -> float:
        return sum(self.latencies_ms) / len(self.latencies_ms)

    def in_flight_mean(self, calls_s: float) -> float:
        """At each backend, if they were even (Little's law)."""
        return calls_s * self.mean_ms() / 1000 / len(self.servers)


def run(say: Callable[[str], None]) -> list[Finding]:
    findings: list[Finding] = []
    for section in (a_slow_one, long_answers, a_newcomer, a_quick_failure, a_crowd):
        say(section.__name__.replace("_", " "))
        findings += section()
    return findings


def a_slow_one() -> list[Finding]:
    fair, slower = Fleet(_three(a=Server(slower=5.0))), 5
    share, bound = fair.run(60).share("a", 20, 60), 1 / (1 + 2 * slower)
    worth = 1 - fair.mean_ms() / Fleet(_three(a=Server(slower=5.0)), by_chance=True).run(60).mean_ms()
    return [
        Finding("one of three is five times as slow: its share", f"{share:.1%}", f"≤ {bound:.1%}", share <= bound),
        Finding("the same: mean latency less than by chance", f"{worth:.0%}", "≥ 30 %", worth >= 0.3),
    ]


def long_answers() -> list[Finding]:
    share, even = Fleet(_three(a=Server(tokens_out=(200, 2000)))).run(60, calls_s=20).share("a", 20, 60), 1 / 21
    promise = "one of three gives answers ten times as long: its share, and what as many in flight as elsewhere would give"
    return [Finding(promise, f"{share:.0%}", f"≥ {even:.0%}", share >= even)]


def a_newcomer() -> list[Finding]:
    fleet = Fleet(_three(a=Server(from_s=20.0))).run(40)
    most, later, usual = fleet.servers["a"].in_flight_max, fleet.share("a", 25, 40), fleet.in_flight_mean(CALLS_S)
    return [
        Finding("a newcomer among three: most calls in flight, of the mean", f"{most / usual:.1f}", "≤ 2", most <= 2 * usual),
        Finding("the same: its share after five seconds", f"{later:.0%}", "25 … 42 %", 0.25 <= later <= 0.42),
    ]


def a_quick_failure() -> list[Finding]:
    share = Fleet(_three(a=Server(failing=0.3))).run(60).share("a", 10, 60)
    return [Finding("one of three fails 30 % of its calls at once: its share", f"{share:.0%}", "< 33 %", share < 1 / 3)]


def a_crowd() -> list[Finding]:
    fleet = Fleet(_three()).run(60, calls_s=80)
    most = max(server.in_flight_max for server in fleet.servers.values())
    mean = fleet.in_flight_mean(80)
    return [Finding("three equal ones: most calls in flight at one, of the mean", f"{most / mean:.1f}", "≤ 2", most <= 2 * mean)]


def _three(**given: Server) -> dict[str, Server]:
    return {name: given.get(name, Server()) for name in "abc"}
