"""Decides what follows from the end of a pipeline's step: next steps, waiting for the parts beside it, or the end. Pure.

A record of `completions` holds what its own strand of the tree has yielded. Where strands meet, the record stays open until the
last one that counts has come; that one's outcome carries what all of them yielded, and closes them. So nothing is remembered
here: what is open is in the log, and after a crash it is read again, in the same order, with the same decisions.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.pipeline import Node
from schemas.slips import Slip, Yield
from shared.pipeline import DECIDED, GRACE_MS, Arrived, Frame, Reading, Want, forks_above, is_below, read


@dataclass(frozen=True, slots=True)
class Landed:
    """A step's end: the slip of its record, and where that stands in the log."""

    slip: Slip
    yielded: Yield
    offset: int
    at_ms: int

    @property
    def path(self) -> str:
        return self.yielded.path


@dataclass(frozen=True, slots=True)
class Move:
    """What to do about a step's end.

    `ended`: how the whole request ended; else `wants` may be planned, and `cancels` are paths below which nothing is wanted any
    more. `waits`: the record must stay open, to be looked at again at `until_ms`. `joined`: the node at which strands met, and
    `releases` the offsets of the open records that met there. `total` is what is known to have been spent.
    """

    total: Yield
    ended: Yield | None = None
    wants: tuple[Want, ...] = ()
    cancels: tuple[str, ...] = ()
    waits: bool = False
    until_ms: int = 0
    joined: str | None = None
    releases: frozenset[int] = frozenset()
    is_stale: bool = False


def advance(tree: Node, values: Mapping[str, Any], mine: Landed, held: Sequence[Landed], now_ms: int) -> Move:
    """The move after `mine`, beside the records that are `held` open for its request. New wants are those that were not wanted
    before it came; what is under way elsewhere was."""
    slips = [each.slip for each in (mine, *held)]
    limits = {path: until for slip in slips for path, until in slip.until_ms.items()}
    frame = Frame(values, mine.slip.budget_microusd, mine.slip.deadline_ms, limits)
    earlier = _arrived(held) | _arrived_with(mine)
    before = read(tree, earlier, frame, mine.at_ms)
    arrived = _arrived((mine, *held))
    after = read(tree, arrived, frame, now_ms)
    forks = forks_above(tree, mine.path)
    total = _total(arrived)
    if any(fork in before.decided for fork, _ in forks):
        return Move(total, is_stale=True)
    cancels = tuple(path for fork, paths in after.decided.items() if fork not in before.decided for path in paths)
    if after.ended is not None:
        return Move(after.ended, ended=after.ended, cancels=cancels)
    wants = tuple(want for want in after.wants if want.path not in before.wanted)
    if _goes_on(after, forks, wants):
        joined = next((fork for fork, _ in forks if fork in after.decided), None)
        met = [each.offset for each in held if joined is not None and is_below(each.path, joined)]
        return Move(total, wants=wants, cancels=cancels, joined=joined, releases=frozenset(met))
    return Move(total, wants=wants, cancels=cancels, waits=True, until_ms=_until_ms(mine.slip, forks, limits, now_ms))


def _goes_on(after: Reading, forks: Sequence[tuple[str, str]], wants: Sequence[Want]) -> bool:
    """Whether what this record knows is carried on by a step that is wanted now."""
    open_parts = [part for fork, part in forks if fork not in after.decided]
    return any(not open_parts or is_below(want.path, open_parts[-1]) for want in wants)


def _until_ms(slip: Slip, forks: Sequence[tuple[str, str]], limits: Mapping[str, int], now_ms: int) -> int:
    """When time alone may decide: the nearest limit around this record, or the request's deadline."""
    overs = [limits[fork] + GRACE_MS + 1 for fork, _ in forks if limits.get(fork, DECIDED) != DECIDED]
    return min([*(over for over in overs if over > now_ms), slip.deadline_ms])


def _arrived(records: Iterable[Landed]) -> dict[str, Arrived]:
    """What the records tell, in the order of the log; of two that tell of one path the earlier counts."""
    arrived: dict[str, Arrived] = {}
    for each in sorted(records, key=lambda record: record.offset):
        for yielded in (*each.slip.yields, each.yielded):
            arrived.setdefault(yielded.path, Arrived(yielded, each.offset, each.at_ms))
    return arrived


def _arrived_with(mine: Landed) -> dict[str, Arrived]:
    """What this record rests on, without its own end."""
    return {yielded.path: Arrived(yielded, mine.offset, mine.at_ms) for yielded in mine.slip.yields}


def total_of(records: Iterable[Landed]) -> Yield:
    """What all these records tell of."""
    return _total(_arrived(records))


def _total(arrived: Mapping[str, Arrived]) -> Yield:
    """The sum over everything that arrived; what is part of a larger part counts with it."""
    tops = [each.yielded for path, each in arrived.items() if not _has_above(path, arrived)]
    return Yield(
        path="",
        attempts=sum(each.attempts for each in tops),
        cost_microusd=sum(each.cost_microusd for each in tops),
        spent_microusd=sum(each.spent_microusd for each in tops),
        tokens_in=sum(each.tokens_in for each in tops),
        tokens_out=sum(each.tokens_out for each in tops),
    )


def _has_above(path: str, known: Collection[str]) -> bool:
    """Whether one of the nodes around a path is among these."""
    while "." in path:
        path = path.rpartition(".")[0]
        if path in known:
            return True
    return False
