"""What a call meets before the model: is its key good, is it within its limit, is there room for it. And what is noted of it.

The desk knows no dialect: it answers with the class of an error, a wait in seconds and what is left.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from sys import intern

from services.simulator.call import Call
from services.simulator.calls import CallLine, Calls, Gates, key_of
from services.simulator.capacity import Slots
from services.simulator.control import Controls
from services.simulator.faults import Fault, FaultKind
from services.simulator.limits import Admission, Limiter

_UNLIMITED = Admission(None, None, None)


@dataclass(slots=True)
class Visit:
    """One call as the desk sees it, from its arrival to its end. `at_s` is epoch seconds.

    `error_class` is "" as long as the answer is good; `slots` is what the call holds while it is worked on.
    """

    at_s: float
    provider: str
    key: str
    attempt_id: str
    model: str = ""
    streamed: bool = False
    error_class: str = ""
    retry_after_s: float | None = None
    admission: Admission = _UNLIMITED
    slots: Slots | None = None
    waited: bool = False

    def meets(self, fault: Fault | None) -> None:
        """Note the fault of the call. A slow answer is a good one."""
        if fault is not None and fault.kind is not FaultKind.SLOW:
            is_error = fault.kind is FaultKind.ERROR
            self.error_class = fault.error_class if is_error else fault.kind.value
            self.retry_after_s = fault.retry_after_s if is_error else None


class Desk:
    """The desk of every provider of this process."""

    def __init__(self, controls: Controls) -> None:
        self._controls = controls
        self._slots: dict[str, Slots] = {}
        self._limiters: dict[tuple[str, str, str], Limiter] = {}
        self.calls, self.gates = Calls(), Gates()

    def arrive(self, provider: str, headers: Mapping[str, str]) -> Visit:
        """A call has come; who sends it is known, what it wants is not."""
        return Visit(time.time(), intern(provider), intern(key_of(headers)), headers.get("x-client-request-id", ""))

    async def enter(self, visit: Visit, call: Call) -> str:
        """Let the call in, at once or when it is its turn; else the class of the error it gets. Ends with `leave`."""
        visit.model, visit.streamed = call.model.name, call.streamed
        self.gates.arrived(visit.provider, visit.key, visit.model, visit.at_s * 1000)
        visit.error_class = self._refusal(visit, call)
        if visit.error_class:
            return visit.error_class
        slots = self._slots_of(visit.provider)
        if not slots.take():
            if slots.is_full():
                visit.error_class = "overloaded"
                return visit.error_class
            visit.waited = True
            await slots.wait()
        visit.slots = slots
        return ""

    def leave(self, visit: Visit, status: int) -> None:
        """The call is over; `status` is 0 if its caller saw none. Its slot goes to the next, its line to the log."""
        if visit.slots is not None:
            visit.slots.leave()
        done_ms, wait_ms = time.time() * 1000, 0.0
        if visit.retry_after_s is not None:
            wait_ms = visit.retry_after_s * 1000
            if status == 429:
                self.gates.told(visit.provider, visit.key, visit.model, done_ms, wait_ms)
        self.calls.add(
            CallLine(
                int(visit.at_s * 1000),
                int(done_ms),
                visit.provider,
                visit.model,
                visit.key,
                visit.attempt_id,
                status,
                visit.error_class,
                round(wait_ms),
                visit.streamed,
            )
        )

    def refresh(self) -> None:
        """The controls have changed: more capacity lets in at once those who wait."""
        for provider, slots in self._slots.items():
            slots.capacity = self._controls.capacity_of(provider)
            slots.widen()

    def load(self) -> dict[str, dict[str, int]]:
        """The calls of each provider that are worked on and that wait, now."""
        return {name: {"working": slots.working, "waiting": slots.waiting} for name, slots in self._slots.items()}

    def _refusal(self, visit: Visit, call: Call) -> str:
        if self._controls.is_revoked(visit.provider, visit.key):
            return "auth"
        limit = self._controls.limit(visit.provider, visit.model, visit.key)
        if limit is None:
            return ""
        limiter = self._limiters.setdefault((visit.provider, visit.key, visit.model), Limiter())
        visit.admission = limiter.admit(limit, call.tokens_in + (call.max_tokens or 0), time.monotonic())
        visit.retry_after_s = visit.admission.retry_after_s
        return "" if visit.retry_after_s is None else "rate_limited"

    def _slots_of(self, provider: str) -> Slots:
        slots = self._slots.get(provider)
        if slots is None:
            slots = self._slots[provider] = Slots(self._controls.capacity_of(provider))
        return slots
