"""requests -> tasks. Thin: the body is read and judged in `body.py`, `features.py` and `decide.py`."""

from collections.abc import Callable
from typing import Any

from schemas.envelope import Envelope
from schemas.messages import Failure, Request, Task
from schemas.topology import TASKS
from services.preprocessing.decide import decide
from shared.catalogue import Catalogue
from shared.handler import Context
from shared.ids import task_id
from shared.outcome import Emit, Out

_TASK = Envelope[Task]


class Preprocessing:
    """The stage's handler. Remembers nothing, so a replay makes the same task again."""

    def __init__(self, catalogue: Callable[[], Catalogue]) -> None:
        self._catalogue = catalogue

    def handle(self, envelope: Envelope[Request], context: Context) -> Emit:
        request = envelope.payload
        if request.failure is not None:
            return Emit(self.failed(envelope, request.failure))
        catalogue = self._catalogue()
        policy = catalogue.policy_of(envelope.tenant)
        return Emit(_task(envelope, decide(request.body, catalogue.models, policy.prompt_bytes_max, catalogue.pipelines)))

    def failed(self, envelope: Envelope[Any], failure: Failure) -> tuple[Out, ...]:
        return _task(envelope, Task(failure=failure))

    async def assigned(self, partitions: frozenset[int]) -> None:
        """Nothing is remembered of a partition."""


def _task(envelope: Envelope[Any], task: Task) -> tuple[Out, ...]:
    return (Out(TASKS, envelope.forward(_TASK, task_id(envelope.request_id), task)),)
