"""What a model has been seen to do: a record of kind `certificate` on the `config` topic, written by `baton certify`."""

from pydantic import Field

from schemas.config import Strict


class CaseOutcome(Strict):
    """One task of the suite. It quotes neither the task nor the answer: the request's records hold both."""

    case: str
    passed: bool
    request_id: str
    problem: str = Field("", description="what was wrong with the answer, or why there was none")


class CapabilityScore(Strict):
    """One capability of one model."""

    score: float = Field(ge=0, le=1, description="share of the cases that passed")
    certified: bool
    evidence: tuple[CaseOutcome, ...] = ()


class Certificate(Strict):
    """One model as tested last, named after it. It holds until the next test, whatever `baton apply` writes meanwhile."""

    suite: str = Field(description="version of the cases: results of different ones cannot be compared")
    tested_ms: int
    capabilities: dict[str, CapabilityScore] = Field(default_factory=dict)

    @property
    def certified(self) -> frozenset[str]:
        """The capabilities that passed."""
        return frozenset(name for name, tested in self.capabilities.items() if tested.certified)
