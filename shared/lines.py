"""Which records of one key may go on now, and which wait behind them: the order that a key promises. Pure."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shared.broker import Partition
from shared.delivery import Work
from shared.handler import Context

LineKey = tuple[Partition, str]


@dataclass(slots=True)
class Line:
    """Records of one key: one is being handled, the rest wait; while some are held only their request passes.

    Where `siblings` may run side by side, one request's different records do; the same record twice does not.
    """

    siblings: bool = False
    running: list[Work] = field(default_factory=list)
    held: list[Work] = field(default_factory=list)
    waiting: "deque[tuple[Work, Any, Context]]" = field(default_factory=deque)
    counted: int = 0   # how many of its open records the count by topic holds

    @property
    def open(self) -> int:
        """Records that are held, or wait behind one that is: what lets them go on stands further on in their topic."""
        return len(self.held) + len(self.waiting) if self.held else 0

    def admits(self, work: Work) -> bool:
        if self.held and self.held[0].request_id != work.request_id:
            return False
        return not self.running or (self.siblings and all(_are_siblings(each, work) for each in self.running))


def crowds(lines: Mapping[LineKey, Line], topic: str, too_many: int) -> list[Line]:
    """Lines of a topic whose held records keep the most waiting: as many of them as it takes to free so many places."""
    if too_many <= 0:
        return []
    ready = [line for (partition, _), line in lines.items()
             if partition.topic == topic and line.held and line.waiting and not line.running]
    chosen = []
    for line in sorted(ready, key=lambda line: line.open, reverse=True):
        if too_many <= 0:
            break
        chosen.append(line)
        too_many -= line.open
    return chosen


def _are_siblings(one: Work, other: Work) -> bool:
    return one.request_id == other.request_id and one.envelope.id != other.envelope.id
