"""What is seen of one scenario from outside: what was asked and what came back, the provider's two books, Baton's ledger."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from schemas.ledger import Attempt, AttemptPhase
from schemas.messages import Result


@dataclass(frozen=True)
class Seen:
    """One result as it came out. `at_ms` is when an outside reader had it, epoch milliseconds."""

    at_ms: int
    result: Result


@dataclass(frozen=True)
class Asked:
    """One request and every result that came of it."""

    sent_ms: int
    seen: tuple[Seen, ...] = ()

    @property
    def took_ms(self) -> int | None:
        """From handing it in to having its result; None while there is none."""
        return self.seen[0].at_ms - self.sent_ms if self.seen else None


@dataclass(frozen=True)
class Call:
    """One call as the provider saw it, billed or not. `error_class` is empty for a good answer."""

    at_ms: int
    model: str
    attempt_id: str
    status: int = 200
    error_class: str = ""
    streamed: bool = False


@dataclass(frozen=True)
class Billed:
    """One line of the provider's invoice."""

    attempt_id: str
    model: str
    tokens_in: int
    tokens_out: int
    cost_microusd: int


@dataclass(frozen=True)
class LedgerLine:
    """One line of Baton's ledger and when it came into the log."""

    logged_ms: int
    attempt: Attempt


@dataclass(frozen=True)
class Side:
    """One backend of the catalogue, the provider's name of its model, and the only text that is a whole answer of it."""

    backend: str
    model: str
    whole: str


@dataclass(frozen=True)
class Evidence:
    """Everything known of one variant of a scenario. `restarted` names processes that died meanwhile."""

    primary: Side
    fallback: Side
    deadline_ms: int
    streamed: bool
    asked: tuple[Asked, ...] = ()
    calls: tuple[Call, ...] = ()
    billed: tuple[Billed, ...] = ()
    ledger: tuple[LedgerLine, ...] = ()
    restarted: tuple[str, ...] = ()

    def results(self) -> list[Result]:
        return [seen.result for asked in self.asked for seen in asked.seen]

    def calls_of(self, side: Side) -> list[Call]:
        """In the order in which they arrived."""
        return sorted((call for call in self.calls if call.model == side.model), key=lambda call: call.at_ms)

    def started(self) -> dict[str, LedgerLine]:
        """Lines written before a call, by attempt."""
        return {line.attempt.attempt_id: line for line in self.ledger if line.attempt.phase is AttemptPhase.STARTED}

    def finished(self) -> dict[str, Attempt]:
        """What became of each attempt; a line with a known cost beats one without."""
        found: dict[str, Attempt] = {}
        for line in self.ledger:
            attempt = line.attempt
            if attempt.phase is AttemptPhase.FINISHED and not (attempt.attempt_id in found and not attempt.cost_known):
                found[attempt.attempt_id] = attempt
        return found

    def calls_by_request(self) -> dict[str, list[Call]]:
        """Calls of each request, in the order in which they arrived; those that nobody booked under the empty name."""
        request_of = {id: line.attempt.request_id for id, line in self.started().items()}
        found: dict[str, list[Call]] = {}
        for call in sorted(self.calls, key=lambda call: call.at_ms):
            found.setdefault(request_of.get(call.attempt_id, ""), []).append(call)
        return found

    def trail(self) -> str:
        """The calls in the order in which they came, for people: ms after the first request, whose, what came of it."""
        finished, said = self.finished(), []
        for call in sorted(self.calls, key=lambda call: call.at_ms):
            attempt = finished.get(call.attempt_id)
            whose = "primary" if call.model == self.primary.model else "fallback"
            booked = f"booked {attempt.failure or 'good'}" if attempt else "not booked"
            came = f"{call.status} {call.error_class}".strip()
            said.append(f"+{call.at_ms - self.asked[0].sent_ms} {whose} {came}, {booked}")
        return "; ".join(said) or "no calls"


class Weight(StrEnum):
    """What it means that a check does not hold: a broken promise, a request without its answer, a blemish."""

    HARD = "hard"
    ANSWER = "answer"
    ADVISORY = "advisory"


@dataclass(frozen=True)
class Check:
    """One question to the evidence. `figure` is what was found, for people; of a notable check also when it holds."""

    name: str
    holds: bool
    figure: str
    weight: Weight = Weight.HARD
    is_notable: bool = False


class Score(StrEnum):
    """PASS: right answers, clean checks. PARTIAL: a blemish. SAFE: a clean error instead of the answer. FAIL: the rest."""

    PASS = "pass"
    PARTIAL = "partial"
    SAFE = "safe"
    FAIL = "fail"


def score(checks: Sequence[Check]) -> Score:
    """The worst that a broken check means."""
    broken = {check.weight for check in checks if not check.holds}
    by_weight: Mapping[Weight, Score] = {Weight.HARD: Score.FAIL, Weight.ANSWER: Score.SAFE, Weight.ADVISORY: Score.PARTIAL}
    return next((by_weight[weight] for weight in Weight if weight in broken), Score.PASS)
