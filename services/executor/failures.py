"""What each class of failure allows: one table, asked by everything that decides what happens after a failed call. Pure."""

from dataclasses import dataclass

from schemas.ledger import FailureClass
from schemas.messages import Reason


@dataclass(frozen=True, slots=True)
class Rules:
    """What one class of failure allows. `retry_here` is how often the same backend may be asked again.

    `maybe_billed`: nobody can tell whether the provider charged for it, so the ledger books an upper bound.
    `wants_bigger_window`: only a model with more context than the one that failed is worth a try.
    `wants_other_model`: what one model refuses another may take, so one of those is asked, if it is free at once; two that agree
    have the last word. `reason` is what the request fails with when this was the last word.
    """

    retry_here: int
    fail_over: bool
    counts_for_circuit: bool
    maybe_billed: bool
    wants_bigger_window: bool = False
    reason: Reason = Reason.PROVIDERS_FAILED
    wants_other_model: bool = False


# fmt: off
FAILURES: dict[FailureClass, Rules] = {
    #                                   retry fail-over circuit billed? window
    FailureClass.RATE_LIMITED:     Rules(2,   True,     False,  False),
    FailureClass.QUOTA_EXHAUSTED:  Rules(0,   True,     False,  False),
    FailureClass.CONTEXT_LENGTH:   Rules(0,   True,     False,  False,  True,  Reason.CONTEXT_TOO_LONG),
    FailureClass.AUTH:             Rules(0,   True,     False,  False),
    FailureClass.NOT_FOUND:        Rules(0,   True,     False,  False),
    FailureClass.INVALID:          Rules(0,   True,     False,  False,  False, Reason.PROVIDER_REFUSED, wants_other_model=True),
    FailureClass.TOO_LARGE:        Rules(0,   True,     False,  False,  False, Reason.TOO_LARGE),   # an account's limit
    FailureClass.CONTENT_FILTERED: Rules(0,   False,    False,  False,  False, Reason.PROVIDER_REFUSED),
    FailureClass.SERVER_ERROR:     Rules(2,   True,     True,   False),
    FailureClass.OVERLOADED:       Rules(2,   True,     True,   False),
    FailureClass.CONNECT_ERROR:    Rules(2,   True,     True,   False),
    FailureClass.TIMEOUT:          Rules(0,   True,     True,   True),
    FailureClass.TRUNCATED:        Rules(0,   True,     True,   True),
    FailureClass.STALLED:          Rules(0,   True,     True,   True),
    FailureClass.STREAM_ERROR:     Rules(1,   True,     True,   True),
    FailureClass.MALFORMED:        Rules(1,   True,     True,   True),
    FailureClass.CANCELLED:        Rules(0,   False,    False,  True),
    FailureClass.ORPHANED:         Rules(2,   True,     False,  True),   # its executor died: never held against the plan
    FailureClass.UNKNOWN:          Rules(1,   True,     False,  True),
}
# fmt: on
