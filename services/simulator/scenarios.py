"""The sixteen fault scenarios: what the primary of each does, and for how long it goes on doing it.

Pure: an instance's memory (how many calls before this one, how long since its first) is passed in. A model's name chooses
the scenario; `sim-s01@run7` is an instance of `sim-s01` with a memory of its own.
"""

from dataclasses import dataclass
from types import MappingProxyType

from services.simulator.faults import Fault, FaultKind


@dataclass(frozen=True, slots=True)
class Scenario:
    """One fault and when it ends: after `times` calls, or `down_s` after the first call; 0 is never.

    A `long` one happens in the middle of an answer, which therefore gets an afterword of sixty tokens.
    """

    fault: Fault
    times: int = 0
    down_s: float = 0.0
    long: bool = False


_CUT = Fault(kind=FaultKind.CUT_STREAM, after_tokens=40)
_OVERLOADED = Fault(kind=FaultKind.ERROR, status=503)
# fmt: off
SCENARIOS = MappingProxyType({
    "sim-s01": Scenario(Fault(kind=FaultKind.ERROR, status=429, retry_after_s=2), times=1),
    "sim-s02": Scenario(Fault(kind=FaultKind.ERROR, status=429)),
    "sim-s03": Scenario(Fault(kind=FaultKind.ERROR, status=500), times=1),
    "sim-s04": Scenario(_OVERLOADED),
    "sim-s05": Scenario(Fault(kind=FaultKind.RESET), times=1),
    "sim-s06": Scenario(Fault(kind=FaultKind.HANG, hang_s=120)),
    "sim-s07": Scenario(Fault(kind=FaultKind.SLOW, factor=1, delay_ms=20_000)),
    "sim-s08": Scenario(_CUT, long=True),
    "sim-s09": Scenario(Fault(kind=FaultKind.STALL_STREAM, after_tokens=20, stall_s=30), long=True),
    "sim-s10": Scenario(Fault(kind=FaultKind.MALFORMED), long=True),      # the tenth event; the others are good
    "sim-s11": Scenario(Fault(kind=FaultKind.NO_DONE), long=True),
    "sim-s12": Scenario(Fault(kind=FaultKind.ERROR, error_class="context_length")),
    "sim-s13": Scenario(Fault(kind=FaultKind.ERROR, error_class="content_filtered")),
    "sim-s14": Scenario(_CUT, long=True),                                 # its fallback is `sim-noprefill`
    "sim-s15": Scenario(_OVERLOADED, down_s=60),
    "sim-s16": Scenario(_OVERLOADED),
})
# fmt: on

# Sixty tokens. It follows the answer proper, so that the answer is right and long enough.
STORY = (
    "Once a small boat left the harbour at dawn, with a baker, a tailor and a goat on board. The wind was kind, "
    "the goat was not. By noon they had lost two sails and a hat, by night they were friends, and at home nobody "
    "believed a word of it."
)


def fault_now(scenario: Scenario, calls_before: int, age_s: float, scale: float) -> Fault | None:
    """The fault of this call, if the scenario is not over. `age_s` counts from the instance's first call.

    `scale` multiplies every duration of the scenario (how long it is down, silent or late), never a Retry-After.
    """
    if scenario.times and calls_before >= scenario.times:
        return None
    if scenario.down_s and age_s >= scenario.down_s * scale:
        return None
    fault = scenario.fault
    if scale == 1:
        return fault
    durations = {
        "hang_s": fault.hang_s * scale,
        "stall_s": fault.stall_s * scale,
        "delay_ms": round(fault.delay_ms * scale),
    }
    return fault.model_copy(update=durations)
