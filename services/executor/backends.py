"""All backends of the catalogue, seen from this replica: which of a plan's may be called now, and what was learned of each.

The fleet's view (circuit, share, probe leases, gates, windows) comes from the monitor; this replica adds what only it can
know at once: its own calls in flight, their pace, and what a provider has just told it.
"""

import logging
from asyncio import Event
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from schemas.config import Backend
from schemas.fleet import Circuit, FleetEntry, GateReason, Observation
from schemas.ledger import AttemptKind, FailureClass
from schemas.messages import Lane, Plan
from services.executor.concurrency import Gradient
from services.executor.decide import Call, Option
from services.executor.hedging import Hedging
from services.executor.local import Local
from services.executor.reply import Reply
from services.executor.retry_tokens import TOKENS_MAX, Retry, RetryTokens
from services.executor.waiting import WaitingRoom
from shared.catalogue import Catalogue
from shared.circuit import CircuitRules
from shared.clock import Clock
from shared.delta import Seen
from shared.sketch import pace_ms

log = logging.getLogger(__name__)

CIRCUIT_RULES = CircuitRules()
PROBE_AGAIN_MS = 1_000
"""A probe that met a rate limit of unknown length is made again after this."""
PRESENCE_MS = 1_000
"""How often a replica says that it is there: for probes of a backend that is out, and for its part of a rate limit."""


@dataclass(slots=True)
class Begun:
    """A call that is on its way: when it began, what its rate limit was charged, and how many were at the backend when it
    was sent, itself included."""

    call: Call
    backend: Backend
    began_ms: int
    tokens: int
    in_flight: int
    retry: Retry
    probe_epoch: int = 0
    is_sent: bool = False
    lane: Lane = Lane.STANDARD


class _Options(Mapping[str, Option]):
    """Each is made when it is looked at: a plan names a dozen backends, and most steps look at the first candidate's."""

    def __init__(self, plan: Plan, is_offered: Callable[[str], bool], make: Callable[[str], Option]) -> None:
        self._plan = plan
        self._is_offered = is_offered
        self._made: dict[str, Option] = {}
        self._make = make

    def __getitem__(self, name: str) -> Option:
        """Of a backend of the plan. Raises KeyError when it is not offered any more."""
        option = self._made.get(name)
        if option is None:
            if not self._is_offered(name):
                raise KeyError(name)
            option = self._made[name] = self._make(name)
        return option

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._is_offered(name)

    def __iter__(self) -> Iterator[str]:
        seen: set[str] = set()
        for name in _named(self._plan):
            if name not in seen and self._is_offered(name):
                seen.add(name)
                yield name

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _named(plan: Plan) -> Iterator[str]:
    """The backends of a plan, candidate by candidate."""
    for candidate in plan.candidates:
        yield from candidate.backends
    for fallback in plan.fallbacks:
        for candidate in fallback.candidates:
            yield from candidate.backends


class Backends:
    """Must be made inside a running event loop."""

    def __init__(
        self,
        catalogue: Callable[[], Catalogue],
        fleet: Callable[[], Mapping[str, FleetEntry]],
        instance: str,
        clock: Clock,
        is_callable: Callable[[str, Backend], bool] = lambda name, backend: True,
    ) -> None:
        self._catalogue = catalogue
        self._fleet = fleet
        self._instance = instance
        self._clock = clock
        self._is_callable = is_callable
        self._locals: dict[str, Local] = {}
        self._tokens = RetryTokens(2 * TOKENS_MAX)   # of all backends together: one that is bad must not use up all
        self._version = -1
        self.hedging = Hedging()
        self.room = WaitingRoom(self._lanes_let_in, self.reserve, self.give_back, clock.now_ms)
        self.urgent = Event()
        """Set when the fleet should hear of something now: a trip, a gate."""

    # --- Before a call -------------------------------------------------------------------------------------------

    def options(
        self, plan: Plan, attempt_id: str, now_ms: int, place: str | None = None, region: str = "", lane: Lane = Lane.STANDARD
    ) -> Mapping[str, Option]:
        """Every backend of the plan that is still offered, usable by this attempt or not. `place`: the one that counted it
        in; the others then count as full, so that the place is used or given back."""
        backends, models, tokens = self._catalogue().backends, self._catalogue().models, tokens_of(plan)
        may_retry = self._tokens.may_retry()

        def option(name: str) -> Option:
            backend = backends[name]
            local = self._current(name, backend)
            is_mine = place == name
            return Option(
                backend=name,
                usable=local.passes(attempt_id, self._instance, now_ms, is_mine),
                load=local.load(backend.weight, now_ms),
                p50_ms=local.p50_ms,
                p95_ms=local.p95_ms,
                timeout_ms=backend.timeout_ms,
                context_tokens=models[backend.model].context_tokens,
                probe=local.is_probed(),
                full=not is_mine and (place is not None or not local.has_room(lane, now_ms) or self.room.is_wanted(name)),
                ready_at_ms=local.gated_until_ms() if is_mine else local.ready_at_ms(tokens, now_ms),
                retryable=may_retry and local.tokens.may_retry(),
                is_near=not region or backend.region == region,
            )

        return _Options(plan, lambda name: name in backends and self._is_callable(name, backends[name]), option)

    def _current(self, name: str, backend: Backend) -> Local:
        """What is known of a backend, with the fleet's newest word taken over."""
        local = self._locals.get(name)
        if local is None:
            local = self._locals[name] = Local(Gradient(backend.concurrency_max))
            local.read(backend, self._fleet().get(name))
        else:
            entry = self._fleet().get(name)
            if local.entry is not entry or local.backend is not backend:
                local.read(backend, entry)
        return local

    def local(self, name: str) -> Local:
        return self._current(name, self._catalogue().backends[name])

    def _lanes_let_in(self, name: str) -> int:
        """How many lanes, from the highest, the backend could take a call of now."""
        backend = self._catalogue().backends.get(name)
        if backend is None:
            return 0
        local, now_ms = self._current(name, backend), self._clock.now_ms()
        if local.promised and local.is_probed():
            return 0            # a place is promised without its lease: that is taken when the call begins
        is_open = local.ready_at_ms(1, now_ms) <= now_ms and local.passes("", self._instance, now_ms, True)
        return local.lanes_let_in(now_ms) if is_open else 0

    def may_hedge(self) -> bool:
        """Whether second calls on suspicion are affordable now: within their own budget, and while little fails."""
        return self.hedging.may_hedge() and self._tokens.may_hedge()

    def reserve(self, name: str, tokens: int) -> None:
        """A place was given to a plan that waited, and its part of the rate limit; it is on its way to use them."""
        local = self.local(name)
        local.in_flight += 1
        local.promised += 1
        local.quota.take(tokens, self._clock.now_ms())

    def give_back(self, name: str, tokens: int) -> None:
        """The plan could not use the place after all."""
        local = self._locals[name]
        local.promised -= 1
        local.quota.give_back(tokens, self._clock.now_ms())
        self._free(name)

    def called_off(self, begun: Begun) -> bool:
        """Whether the provider has forbidden calls while this one was written down: it must not leave, and gives back what it
        took of the limits."""
        name, now_ms = begun.call.backend, self._clock.now_ms()
        backend = self._catalogue().backends.get(name)
        local = self._locals[name] if backend is None else self._current(name, backend)
        if local.gated_until_ms() <= now_ms:
            return False
        local.quota.give_back(begun.tokens, now_ms)
        if begun.call.kind is AttemptKind.PROBE:
            local.return_probe(begun.probe_epoch)
        elif begun.call.kind is AttemptKind.RETRY:
            local.tokens.refund(True, begun.retry)
            self._tokens.refund(True, begun.retry)
        return True

    def sent(self, begun: Begun) -> None:
        """The call is on the books, so it leaves now."""
        local = self._locals[begun.call.backend]
        local.written(self._clock.now_ms() - begun.began_ms)
        begun.is_sent, begun.in_flight = True, local.in_flight - local.writing
        self.room.offer(begun.call.backend)

    def release(self, begun: Begun) -> None:
        """A call is over, or was cut before it was sent."""
        local = self._locals[begun.call.backend]
        local.writing -= not begun.is_sent
        local.interactive -= begun.lane is Lane.INTERACTIVE
        self._free(begun.call.backend)

    def _free(self, name: str) -> None:
        """A place is free again: who waits for it comes next."""
        self._locals[name].in_flight -= 1
        self.room.offer(name)

    def begin(
        self, call: Call, plan: Plan, has_place: bool, after: FailureClass | None = None, lane: Lane = Lane.STANDARD
    ) -> Begun:
        """Count a decided call as in flight; limits and a probe's lease are charged before anything is awaited.

        `after`: how the plan's last call failed.
        """
        now_ms, backend = self._clock.now_ms(), self._catalogue().backends[call.backend]
        local = self._current(call.backend, backend)
        if has_place:
            local.promised -= 1
        else:
            local.in_flight += 1
            local.quota.take(tokens_of(plan), now_ms)
        retry = Retry.THROTTLED if after is FailureClass.RATE_LIMITED else Retry.TRANSIENT
        local.writing += 1
        local.interactive += lane is Lane.INTERACTIVE
        begun = Begun(call, backend, now_ms, tokens_of(plan), local.in_flight, retry, lane=lane)
        if call.kind is AttemptKind.PROBE:
            begun.probe_epoch = local.use_probe()
        elif call.kind is AttemptKind.RETRY:
            local.tokens.spend(retry)
            self._tokens.spend(retry)
        elif call.kind is AttemptKind.HEDGE:
            local.delta.hedged()
        if has_place:
            self.room.offer(call.backend)
        return begun

    # --- After a call --------------------------------------------------------------------------------------------

    def record(self, begun: Begun, latency_ms: float, reply: Reply, counts: bool, cost_microusd: int) -> None:
        """Learn from a finished call. A backend that fails too often in a row is tripped here and reported at once."""
        now_ms, name = self._clock.now_ms(), begun.call.backend
        local = self._locals[name]
        entry = local.entry
        if counts and entry is not None and entry.circuit is Circuit.CLOSED and begun.began_ms < entry.since_ms:
            counts = False      # it began in the outage that is over
        local.delta.record(Seen(latency_ms, reply.failure, counts, reply.usage, cost_microusd, reply.first_token_ms))
        usage = reply.usage
        if usage is not None and not usage.estimated:
            local.quota.settle(begun.tokens, usage.tokens_in + usage.tokens_out, now_ms)
        if reply.limits is not None:
            local.delta.limited(reply.limits)
        if begun.call.kind is AttemptKind.PROBE:
            self._probed(begun, local, reply, counts)
        if reply.failure is None:
            self._succeeded(begun, local, latency_ms, reply, now_ms)
        else:
            self._failed(begun, local, reply, counts, now_ms)

    def _probed(self, begun: Begun, local: Local, reply: Reply, counts: bool) -> None:
        """What says nothing about the backend, a caller's mistake or haste, neither passes nor fails: the lease comes back."""
        if reply.failure is None or counts or reply.failure is FailureClass.AUTH:
            local.delta.record_probe(begun.probe_epoch, passed=reply.failure is None)
            self.urgent.set()
        else:
            local.return_probe(begun.probe_epoch)

    def _succeeded(self, begun: Begun, local: Local, latency_ms: float, reply: Reply, now_ms: int) -> None:
        pace = pace_ms(latency_ms, reply.usage.tokens_out if reply.usage else 0)
        local.answered(pace, latency_ms, begun.in_flight, now_ms)
        is_retry = begun.call.kind is AttemptKind.RETRY
        local.tokens.refund(is_retry, begun.retry)
        self._tokens.refund(is_retry, begun.retry)
        local.trip = local.trip.record(False, now_ms, CIRCUIT_RULES)

    def _failed(self, begun: Begun, local: Local, reply: Reply, counts: bool, now_ms: int) -> None:
        assert reply.failure is not None
        local.throttled(reply.failure, now_ms)
        wait_ms = reply.wait_ms
        if wait_ms is None and reply.failure is FailureClass.RATE_LIMITED and begun.call.kind is AttemptKind.PROBE:
            wait_ms = PROBE_AGAIN_MS
        if wait_ms is not None or reply.failure is FailureClass.QUOTA_EXHAUSTED:
            is_quota = reply.failure is FailureClass.QUOTA_EXHAUSTED
            local.gated(GateReason.QUOTA_EXHAUSTED if is_quota else GateReason.RATE_LIMITED, wait_ms, now_ms)
            self.urgent.set()
        if reply.failure is FailureClass.AUTH and reply.sent:
            self._refused(begun, reply.status, now_ms)
        if not counts:
            return
        local.failed(now_ms)
        was_open = local.trip.is_open(now_ms)
        local.trip = local.trip.record(True, now_ms, CIRCUIT_RULES)
        if local.trip.is_open(now_ms) and not was_open:
            self.urgent.set()
            log.warning("backend tripped here", extra={"backend": begun.call.backend, "failures_in_row": local.trip.run})

    def _refused(self, begun: Begun, status: int, now_ms: int) -> None:
        """A key that is refused (401) is refused everywhere it is used; a forbidden call (403) concerns its backend alone."""
        for name, backend in self._catalogue().backends.items():
            is_same_key = backend.provider == begun.backend.provider and backend.key == begun.backend.key
            if name == begun.call.backend or (status == 401 and is_same_key):
                self._current(name, backend).delta.refused()
        self.urgent.set()
        log.warning("the provider refuses the credential", extra={"backend": begun.call.backend, "status": status})

    # --- What the fleet is told ----------------------------------------------------------------------------------

    def tick(self) -> None:
        """Wake who waits if the catalogue changed; offer what places came free."""
        version = self._catalogue().version
        if version != self._version:
            self._version = version
            self.room.wake_all()

    def places(self) -> list[tuple[str, int, int]]:
        """Of each backend called from here: its name, how many calls may be on their way now, how many are."""
        return [(name, local.limit, local.in_flight) for name, local in self._locals.items()]

    def take(self) -> list[Observation]:
        """What is to be reported now: deltas, and signs of life where the fleet shares something out."""
        taken, now_ms = [], self._clock.now_ms()
        for name, backend in self._catalogue().backends.items():
            local = self._current(name, backend)
            seen = local.delta.take(name, self._instance, local.sequence + 1, now_ms, local.in_flight)
            if seen is None and _wants_presence(backend, local) and now_ms - local.present_at_ms >= PRESENCE_MS:
                seen = Observation(
                    backend=name, reporter=self._instance, sequence=local.sequence + 1, at_ms=now_ms, in_flight=local.in_flight
                )
            if seen is not None:
                local.sequence += 1
                local.present_at_ms = now_ms
                taken.append(seen)
        return taken


def _wants_presence(backend: Backend, local: Local) -> bool:
    entry = local.entry
    if entry is None:
        return backend.rpm is not None or backend.tpm is not None
    return entry.circuit is not Circuit.CLOSED or entry.limits is not None or backend.rpm is not None or backend.tpm is not None


def tokens_of(plan: Plan) -> int:
    """What a call may take of a limit on tokens: the estimated input and the expected output."""
    features = plan.task.features
    return features.tokens_in + features.tokens_out if features is not None else 1
