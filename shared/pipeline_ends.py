"""How a part of a pipeline's tree ended, given how its own parts did: as one of them, or as a failure that says why. Pure."""

from collections.abc import Iterable, Mapping, Sequence

from schemas.messages import Failure, Reason
from schemas.pipeline import Loop
from schemas.slips import Yield

STAGE = "pipeline"
MESSAGE_CHARS_MAX = 300


def criticism_of(loop: Loop, yielded: Yield) -> str:
    if yielded.failure is None and loop.until is not None:
        return f"the condition on {loop.until.value} does not hold"
    return yielded.criticism or (yielded.failure.message if yielded.failure else "")


def too_few(ended: Mapping[int, Yield], came: Sequence[int], passed: Sequence[int], needed: int) -> Failure:
    first = next((failure for n in sorted(came) if (failure := ended[n].failure) is not None), None)
    why = f"; the first failure: {first.message}" if first and first.message else ""
    reason = first.reason if first else Reason.DEADLINE_PASSED
    return Failure(reason=reason, stage=STAGE, message=f"{len(passed)} of {needed} branches succeeded{why}"[:MESSAGE_CHARS_MAX])


def merit(yielded: Yield) -> tuple[bool, float, bool]:
    """The more the better; of equals the earlier one is taken."""
    return yielded.failure is None, yielded.score, bool(yielded.text.strip())


def best_of(parts: Sequence[Yield], path: str) -> Yield:
    return max(parts, key=merit, default=Yield(path=path))


def broken(path: str, message: str) -> Yield:
    return Yield(path=path, failure=Failure(reason=Reason.PIPELINE_BROKEN, stage=STAGE, message=message))


def whole(path: str, outcome: Yield, parts: Iterable[Yield]) -> Yield:
    """A part of the tree ended as `outcome` did; it took what all its `parts` took."""
    parts = list(parts)
    return outcome.model_copy(update={
        "path": path,
        "attempts": sum(part.attempts for part in parts),
        "cost_microusd": sum(part.cost_microusd for part in parts),
        "spent_microusd": sum(part.spent_microusd for part in parts),
        "tokens_in": sum(part.tokens_in for part in parts),
        "tokens_out": sum(part.tokens_out for part in parts),
    })
