"""Which capabilities a model must have been tested in before it may serve a task, where the policy requires tests. Pure."""

from schemas.config import CERTIFIABLE
from schemas.messages import Features

LONG_CONTEXT_TOKENS = 4_000
"""Input beyond which a task needs the long-context capability: half of what the suite's needle lies in."""

OF_DOMAIN = {"code": "code", "maths": "maths"}


def certified_for(required: bool | tuple[str, ...], task: Features) -> tuple[str, ...]:
    """What of the task's needs the policy wants tested, sorted; nothing where it wants no tests."""
    if not required:
        return ()
    needed = {*task.needs, OF_DOMAIN.get(task.domain, "")}
    if task.language != "en":
        needed.add("languages")
    if task.tokens_in > LONG_CONTEXT_TOKENS:
        needed.add("long_context")
    return tuple(sorted(needed.intersection(required if isinstance(required, tuple) else CERTIFIABLE)))
