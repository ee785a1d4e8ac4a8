"""Runs one pipeline request through the engine, as router, executor and gate do, with a queue of events instead of Kafka."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

from schemas.messages import Chat, Failure, Features, Reason, Task
from schemas.pipeline import Node
from schemas.slips import Slip, Yield
from services.quality_gate.advance import Landed, Move, advance
from shared.pipeline import Want, forks_above, frame_of, is_below, read, tree_text
from shared.pipeline_values import values_of
from shared.template import filled_in
from tests.pipelines.trees import World


@dataclass
class Run:
    """One request on its way. `offset` counts records of the log; `calls` are steps that answered, in order."""

    tree: Node
    world: World
    question: str
    deadline_ms: int
    budget_microusd: int | None
    price_max: int = 50
    calls: list[str] = field(default_factory=list)
    done: set[str] = field(default_factory=set)
    held: list[Landed] = field(default_factory=list)
    end: Move | None = None
    end_ms: int = 0
    peak: int = 0
    _events: list[tuple[int, int, Landed]] = field(default_factory=list)
    _offset: int = 0

    def __post_init__(self) -> None:
        features = Features(tokens_in=1, tokens_out=1, tokens_out_max=1)
        self.asked = Task(chat=Chat(messages=({"role": "user", "content": self.question},)), features=features)
        self.values = values_of(self.asked)

    def go(self) -> "Run":
        slip = Slip(pipeline="t@1", tree=tree_text(self.tree), step="", asked=self.asked, deadline_ms=self.deadline_ms,
                    budget_microusd=self.budget_microusd)
        began = read(self.tree, {}, frame_of(slip, self.values), 0)
        if began.ended is not None:
            self.end = Move(began.ended, ended=began.ended)
        self._begin(slip, began.wants, 0)
        while self._events and self.end is None:
            self.peak = max(self.peak, len(self._events))
            now_ms, _, landed = heapq.heappop(self._events)
            self._land(landed, now_ms)
        return self

    def _land(self, landed: Landed, now_ms: int) -> None:
        mine = Landed(landed.slip, landed.yielded, self._offset, now_ms)
        self._offset += 1
        self.done.add(mine.path)
        if not mine.yielded.failure or mine.yielded.cost_microusd:
            self.calls.append(mine.path)
        self._follow(mine, advance(self.tree, self.values, mine, self.held, now_ms), now_ms)

    def _follow(self, mine: Landed, move: Move, now_ms: int) -> None:
        if move.is_stale:
            raise AssertionError(f"{mine.path} was cancelled, and landed all the same")
        self._events = [event for event in self._events if not any(is_below(event[2].path, path) for path in move.cancels)]
        heapq.heapify(self._events)
        if move.ended is not None:
            self.end, self.end_ms = move, now_ms
            return
        self.held = [each for each in self.held if each.offset not in move.releases]
        if move.waits:
            self.held.append(mine)
        self._begin(mine.slip, move.wants, now_ms)

    def _begin(self, slip: Slip, wants: Sequence[Want], now_ms: int) -> None:
        for want in wants:
            frame = want.frame
            of_step = slip.model_copy(update={"step": want.path, "yields": frame.carried, "until_ms": dict(frame.until_ms)})
            said = self.world.says(want.path, filled_in(want.step.prompt or "", frame.values))
            affords = frame.budget_microusd is None or frame.spent_microusd + self.price_max <= frame.budget_microusd
            if now_ms >= frame.deadline_ms:
                self._push(now_ms, of_step, _failed(want.path, Reason.DEADLINE_PASSED))
            elif not affords:
                self._push(now_ms, of_step, _failed(want.path, Reason.OVER_BUDGET))
            elif now_ms + said.ms > frame.deadline_ms:
                self._push(frame.deadline_ms, of_step, _failed(want.path, Reason.DEADLINE_PASSED))
            else:
                failure = Failure(reason=said.failure, stage="gate") if said.failure else None
                yielded = Yield(path=want.path, text=said.text, failure=failure, score=said.score, attempts=1,
                                cost_microusd=said.cost_microusd, spent_microusd=said.cost_microusd)
                self._push(now_ms + said.ms, of_step, yielded)

    def _push(self, at_ms: int, slip: Slip, yielded: Yield) -> None:
        order = tuple(int(number) for number in yielded.path.split(".")[1:])
        heapq.heappush(self._events, (at_ms, _rank(order), Landed(slip, yielded, 0, 0)))

    def within_a_fork(self, path: str) -> bool:
        return bool(forks_above(self.tree, path))


def _rank(order: tuple[int, ...]) -> int:
    """Of two steps that end in the same millisecond the one further to the left comes first."""
    rank = 0
    for number in (*order, *([-1] * (20 - len(order)))):
        rank = rank * 101 + number + 1
    return rank


def _failed(path: str, reason: Reason) -> Yield:
    return Yield(path=path, failure=Failure(reason=reason, stage="executor"))
