"""What is known of how well models answer: judgements as they come in, and what the monitor has learned from them."""

from enum import StrEnum

from pydantic import Field

from schemas.envelope import Fact


class Judge(StrEnum):
    """Who said how good an answer was. What each is worth as evidence stands in `shared/quality.py`."""

    GATE = "gate"            # the checks and scores of the quality gate
    MODEL = "model"          # a model asked to judge
    PROGRAM = "program"      # a caller's own test of the answer
    PERSON = "person"


class Feedback(Fact):
    """How good one answer was, said after it was delivered. What it does not say of the request is joined from the log."""

    request_id: str
    tenant: str
    score: float = Field(ge=0, le=1, description="0: useless, 1: as good as can be")
    judge: Judge = Judge.PERSON
    model: str = Field("", description="the catalogue model that answered; empty: as the request's result says")
    comment: str = Field("", max_length=4096, description="for people; never logged, never learned from")
    at_ms: int = 0
    accepted_ms: int | None = Field(None, description="as the result says; an answer of long ago is found by it alone")


class Cell(Fact):
    """Judgements of one tenant on one model in one domain and tier, older ones discounted."""

    tier: int
    tenant: str = Field(description="empty: of every tenant beyond the most that are kept apart")
    count: float = Field(ge=0, description="discounted sum of the judgements' weights")
    score_sum: float = Field(ge=0, description="discounted sum of weight times score")


class QualityEntry(Fact):
    """What was learned of one model in one domain, in all (`*`), or from the words asked (`#`) or answered (`?`). Replaced
    whole; keyed `model/domain`. `counted` makes a replay add nothing twice."""

    model: str
    domain: str
    cells: tuple[Cell, ...] = ()
    tokens_out: float = Field(0.0, ge=0, description="running mean of output tokens of a call; 0: not yet known")
    tokens_seen: float = Field(0.0, ge=0, description="discounted count of the calls in `tokens_out`")
    counted: dict[str, int] = Field(default_factory=dict, description="`topic/partition` → offset up to which it counts")
    words: str = Field("", description="only where domain is `#` or `?`: weights on hashed words; see shared/words.py")
    drift: dict[str, tuple[float, float]] = Field(
        default_factory=dict, description="tenant → cumulative sums of scores below and above their mean, to notice a change"
    )
    updated_ms: int = Field(0, description="time of the judgement up to which older ones were discounted")
