"""Which records of one key may go on now, and which wait behind them: the order that a key promises. Pure."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from shared.delivery import Work
from shared.handler import Context


@dataclass(slots=True)
class Line:
    """Records of one key: one is being handled, the rest wait; while some are held only their request passes.

    Where `siblings` may run side by side, one request's different records do; the same record twice does not.
    """

    siblings: bool = False
    running: list[Work] = field(default_factory=list)
    held: list[Work] = field(default_factory=list)
    waiting: "deque[tuple[Work, Any, Context]]" = field(default_factory=deque)

    def admits(self, work: Work) -> bool:
        if self.held and self.held[0].request_id != work.request_id:
            return False
        return not self.running or (self.siblings and all(_are_siblings(each, work) for each in self.running))


def _are_siblings(one: Work, other: Work) -> bool:
    return one.request_id == other.request_id and one.envelope.id != other.envelope.id
