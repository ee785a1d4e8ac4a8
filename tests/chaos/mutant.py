"""Starts a stage with one known fault planted in it: CHAOS_MUTANT names the fault, CHAOS_MODULE the stage's module.

Production code has no switch for any of this. A plant replaces one behaviour of a class; where the fault's window is
narrower than a kill can be aimed, the plant widens it, and its comment says so.
"""

import asyncio
import os
import runpy
from collections.abc import Callable
from functools import partial
from typing import Any

from schemas.ledger import Attempt
from services.executor import main as executor
from services.executor.takeover import Takeover, orphaned
from services.output.main import Output
from services.router.pipelines import Pipelines
from shared import broker, pipeline
from shared.broker import Commit, Headers, Record
from shared.delivery import PlainDelivery, Work
from shared.ids import completion_id
from shared.lines import Line
from shared.outcome import Out
from shared.progress import Progress
from shared.stage import Runner
from shared.writer import Writer

LATE_S = 1.0
"""How much too late a planted fault does what it should have done first; several commits fit in between."""

_late: set[Any] = set()


def _later(work: Callable[[], Any]) -> None:
    def begin() -> None:
        task = asyncio.ensure_future(work())
        _late.add(task)
        task.add_done_callback(_late.discard)

    asyncio.get_running_loop().call_later(LATE_S, begin)


def _plant(owner: object, name: str, behaviour: object) -> None:
    """In place of what is there under that name: a name that is none would plant nothing."""
    assert hasattr(owner, name), f"{owner} has no {name}"
    setattr(owner, name, behaviour)


def commit_before_produce() -> None:
    """A record counts as finished before what it caused is in the log. Late, so that a kill falls between."""

    async def deliver(self: Any, work: Work, outputs: list[broker.Output]) -> None:
        self._finished(work)
        for output in outputs:
            _later(partial(self._producer.send, output))

    _plant(PlainDelivery, "deliver", deliver)


def commit_past_unfinished() -> None:
    """The newest record read is committed, whatever is still in flight behind it."""
    _plant(Progress, "commit", lambda self, finishing=frozenset(): Commit(self.next))


def no_read_back() -> None:
    """A new owner trusts its own memory and does not read what earlier ones began."""

    async def is_completed(self: Any, partition: int, plan_id: str, since_ms: int) -> bool:
        return bool(self._completed.has(partition, completion_id(plan_id)))

    _plant(Takeover, "is_completed", is_completed)


def no_fence() -> None:
    """Results leave by a plain producer, so a zombie's still arrive. Its scenario lets them linger before they are sent."""
    _plant(Output, "transactional", False)


def no_dedupe() -> None:
    """Output delivers every verdict that comes, also one that was delivered."""
    _plant(Output, "handle", Output._deliver)


def no_order() -> None:
    """Records of one key are handled side by side."""
    _plant(Line, "admits", lambda self, work: True)


def refund() -> None:
    """An attempt that is tried again is written off as free, whatever the provider billed."""

    def written_off(attempt: Attempt, now_ms: int) -> Attempt:
        return orphaned(attempt, now_ms).model_copy(update={"cost_known": True})

    _plant(executor, "orphaned", written_off)


def write_behind() -> None:
    """The provider is called first, and the ledger hears of it later."""
    write = Writer.write

    async def written_later(self: Writer, out: Out, trace: Headers = (), record: Record | None = None) -> None:
        _later(lambda: write(self, out, trace, record))

    _plant(Writer, "write", written_later)


def no_frozen_check() -> None:
    """A process that stood still goes on where it stopped."""
    _plant(Runner, "check_alive", lambda self: None)


def forgotten_sibling() -> None:
    """A join goes on without the branch that came second."""
    race = pipeline._Reader._race

    def one_is_enough(self: Any, parallel: Any, path: str, ended: Any, until_ms: Any) -> Any:
        return race(self, parallel.model_copy(update={"quorum": len(parallel.branches) - 1}), path, ended, until_ms)

    _plant(pipeline._Reader, "_race", one_is_enough)


def advanced_twice() -> None:
    """Every move of a pipeline is made twice, the second time under ids of its own."""
    wanted = Pipelines._wanted

    def twice(self: Any, envelope: Any, slip: Any, context: Any) -> Any:
        plans = wanted(self, envelope, slip, context)
        return plans + [(strand, plan, f"{id}/again") for strand, plan, id in plans]

    _plant(Pipelines, "_wanted", twice)


PLANTS: dict[str, Callable[[], None]] = {
    "commit-before-produce": commit_before_produce,
    "commit-past-unfinished": commit_past_unfinished,
    "no-read-back": no_read_back,
    "no-fence": no_fence,
    "no-dedupe": no_dedupe,
    "no-order": no_order,
    "no-frozen-check": no_frozen_check,
    "refund": refund,
    "write-behind": write_behind,
    "forgotten-sibling": forgotten_sibling,
    "advanced-twice": advanced_twice,
}

if __name__ == "__main__":
    PLANTS[os.environ["CHAOS_MUTANT"]]()
    runpy.run_module(os.environ["CHAOS_MODULE"], run_name="__main__", alter_sys=True)
