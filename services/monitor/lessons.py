"""Verdicts and feedback to judgements of models, and those into what is learned of them. Pure; `shared/quality.py` learns.

A verdict says of every model that answered whether the checks let its answer pass. An answer that fails counts as 0. One that
passes counts as what the catalogue says of its model, not as 1: it has the right form, and may be wrong all the same; were it
taken for right, the model that is asked most would soon seem perfect. Feedback names a request: who answered it,
and what was asked, follows from its verdict, which must be the same tenant's; only of a shadow the gate itself says which model
it was. Whoever judges one request twice counts once.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from schemas.messages import BETWEEN_MODELS, Status
from schemas.quality import Feedback, Judge, QualityEntry
from services.monitor.accounts import Place
from shared.quality import ANSWERS, WEIGHTS, WORDS, Judged, Knowledge, tier_of

REMEMBERED_MAX = 50_000
"""Answered requests that feedback may name without a look into the log: some 20 MB."""

WORDS_INTERVAL_MS = 10_000
"""Weights on words are large and change slowly."""


PASSES_PER_S = 100
PASSES_STRIDE = 8
"""Passed checks say little each: beyond so many a second every eighth counts, for eight."""


class Answered(NamedTuple):
    """What is remembered of a request that has its verdict."""

    tenant: str
    model: str               # empty: it was not answered, or by several models together
    domain: str
    complexity: float
    source: str              # the partition of its verdict, which is that of all its records
    accepted_ms: int

    @property
    def partition(self) -> int:
        return int(self.source.rpartition("/")[2])


class Sketches(NamedTuple):
    """Of one request's words: what was asked and what was answered, as far as they are known."""

    asked: tuple[int, ...] = ()
    answered: tuple[int, ...] = ()


UNKNOWN = Sketches()


class Lessons:
    """One keeper's knowledge. `prior` is the catalogue's quality of a model."""

    def __init__(self, prior: Callable[[str], float], entries: Mapping[str, QualityEntry] | None = None) -> None:
        self.knowledge = Knowledge()
        self.knowledge.refresh(entries or {})
        self._prior = prior
        self._answered: OrderedDict[str, Answered] = OrderedDict()    # oldest first: a dict looks for it behind all deleted ones
        self._judges: dict[str, set[Judge]] = {}          # of requests that feedback came for
        self._second = 0
        self._passes = 0
        self._dirty: set[str] = set()
        self._words_ms: dict[str, int] = {}

    def verdict(self, place: Place, envelope: Mapping[str, Any]) -> None:
        """Judge the models that answered. Raises KeyError or TypeError for what is no verdict."""
        verdict = envelope["payload"]
        answered = answered_of(place, envelope)
        self.remember(envelope["request_id"], answered)
        for tried in verdict.get("tried", ()):
            if tried.get("confidence") is not None:
                continue      # a cascade doubted it, which is no judgement
            self._fold(place, answered, tried["model"], 0.0, Judge.GATE)
        if verdict["status"] == Status.DELIVERED and answered.model:
            counts_for = self._pass(place.at_ms)
            if counts_for:
                tokens_out = verdict["answer"].get("usage", {}).get("tokens_out")
                score = self._prior(answered.model)
                self._fold(place, answered, answered.model, score, Judge.GATE, counts_for=counts_for, tokens_out=tokens_out)

    def recall(self, request_id: str) -> Answered | None:
        return self._answered.get(request_id)

    def feedback(self, place: Place, said: Feedback, answered: Answered | None, sketches: Sketches = UNKNOWN) -> str:
        """Learn from it; returns why nothing was learned, or nothing."""
        if answered is None:
            return "unknown_request"
        if not (said.model or answered.model):
            return "no_single_model"
        if answered.tenant != said.tenant:
            return "foreign_request"
        judges = self._judges.setdefault(said.request_id, set())
        if said.judge in judges:
            return "repeated"
        judges.add(said.judge)
        model, score = answered.model or said.model, said.score
        if said.judge is Judge.GATE and said.model:
            model, score = said.model, said.score * self._prior(said.model)
        self._fold(place, answered, model, score, said.judge, sketches)
        return ""

    def due(self, now_ms: int) -> list[QualityEntry]:
        """Entries that changed since the last time; those of words at most every WORDS_INTERVAL_MS."""
        keys = {key for key in self._dirty if now_ms - self._words_ms.get(key, -WORDS_INTERVAL_MS) >= WORDS_INTERVAL_MS}
        self._dirty -= keys
        self._words_ms |= {key: now_ms for key in keys if key.endswith((f"/{WORDS}", f"/{ANSWERS}"))}
        return [self.knowledge.entry(key) for key in sorted(keys)]

    def _fold(
        self,
        place: Place,
        answered: Answered,
        model: str,
        score: float,
        judge: Judge,
        sketches: Sketches = UNKNOWN,
        counts_for: int = 1,
        tokens_out: int | None = None,
    ) -> None:
        judged = Judged(
            model, answered.domain, tier_of(answered.complexity), answered.tenant, score, place.source, place.offset,
            place.at_ms, WEIGHTS[judge] * counts_for, sketches.asked, tokens_out, sketches.answered,
        )  # fmt: skip
        self._dirty.update(self.knowledge.fold(judged, self._prior(model)))

    def remember(self, request_id: str, answered: Answered) -> None:
        """So that the next feedback finds it."""
        self._answered[request_id] = answered
        if len(self._answered) > REMEMBERED_MAX:
            oldest, _ = self._answered.popitem(last=False)
            self._judges.pop(oldest, None)

    def _pass(self, at_ms: int) -> int:
        """For how many this passed answer counts."""
        if at_ms // 1000 != self._second:
            self._second, self._passes = at_ms // 1000, 0
        self._passes += 1
        if self._passes <= PASSES_PER_S:
            return 1
        return 0 if self._passes % PASSES_STRIDE else PASSES_STRIDE


def answered_of(place: Place, envelope: Mapping[str, Any]) -> Answered:
    """What a verdict, as plain data, says of its request."""
    verdict = envelope["payload"]
    why = verdict.get("why") or {}
    model = (verdict.get("answer") or {}).get("model", "")
    return Answered(
        tenant=envelope["tenant"],
        model="" if BETWEEN_MODELS in model else model,   # whose merit a merged answer is, nobody knows
        domain=why.get("domain", "chat"),
        complexity=why.get("complexity", 0.0),
        source=place.source,
        accepted_ms=envelope["accepted_ms"],
    )
