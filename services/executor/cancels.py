"""Steps of pipelines that are no longer wanted: those under way are cut, those that come later are not begun."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from schemas.envelope import Envelope
from schemas.messages import Plan
from services.executor.walk import Walk

REQUESTS_MAX = 5_000
"""Whose cancelled paths are remembered. A step that comes after that is made in vain, and its answer is not used."""


class Cancels:
    """Walks by request, and the paths below which nothing is wanted."""

    def __init__(self) -> None:
        self._walks: dict[str, dict[str, tuple[str, Walk]]] = {}
        self._paths: OrderedDict[str, set[str]] = OrderedDict()

    def cancel(self, request_id: str, paths: tuple[str, ...]) -> None:
        """Cut what is under way below these paths."""
        self._paths.setdefault(request_id, set()).update(paths)
        while len(self._paths) > REQUESTS_MAX:
            self._paths.popitem(last=False)
        for step, walk in list(self._walks.get(request_id, {}).values()):
            if self._is_cancelled(request_id, step):
                walk.give_up()

    def is_cancelled(self, envelope: Envelope[Plan]) -> bool:
        slip = envelope.payload.slip
        return slip is not None and self._is_cancelled(envelope.request_id, slip.step)

    def _is_cancelled(self, request_id: str, step: str) -> bool:
        return any(step == path or step.startswith(f"{path}.") for path in self._paths.get(request_id, ()))

    @contextmanager
    def under_way(self, envelope: Envelope[Plan], walk: Walk) -> Iterator[None]:
        """While the plan is walked."""
        slip = envelope.payload.slip
        if slip is None:
            yield
            return
        walks = self._walks.setdefault(envelope.request_id, {})
        walks[envelope.id] = (slip.step, walk)
        try:
            yield
        finally:
            walks.pop(envelope.id, None)
            if not walks:
                self._walks.pop(envelope.request_id, None)
