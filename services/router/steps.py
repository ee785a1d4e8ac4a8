"""Turns a step that a pipeline wants into the task that a plan is made for. Pure.

A step with a prompt asks a question of its own; one without passes the request's own messages on.
"""

from typing import Any

from schemas.messages import Chat, Failure, Reason, Task
from schemas.pipeline import Step, Turn
from schemas.slips import Slip
from shared.pipeline import Want
from shared.template import BrokenTemplateError, filled_in
from shared.tokens import needs_of, tokens_in, tokens_out_max

STAGE = "router"
_SETTINGS = ("model", "max_tokens", "temperature", "top_p", "seed", "reasoning_effort")
_CRITICISM = "Your last answer was not accepted: {}. Answer again, better."


def slip_of(slip: Slip, want: Want) -> Slip:
    """The slip that travels with the step's plan."""
    return slip.model_copy(
        update={"step": want.path, "yields": want.frame.carried, "until_ms": dict(want.frame.until_ms)}
    )


def task_of(want: Want, asked: Task) -> Task:
    """What the step asks, with features of its own size; a failure where its templates cannot be filled in."""
    assert asked.chat is not None, "only a failed task has no chat"
    assert asked.features is not None, "only a failed task has no features"
    try:
        chat = _chat(want, asked.chat)
    except BrokenTemplateError as error:
        return Task(failure=Failure(reason=Reason.PIPELINE_BROKEN, stage=STAGE, message=f"step {want.path}: {error}"))
    tokens, earlier = tokens_in(chat)
    allowed = tokens_out_max(chat)
    features = asked.features.model_copy(update={
        "tokens_in": tokens,
        "tokens_earlier": earlier,
        "tokens_out": min(asked.features.tokens_out, allowed),
        "tokens_out_max": allowed,
        "needs": needs_of(chat),
    })
    return Task(chat=chat, features=features)


def _chat(want: Want, asked: Chat) -> Chat:
    step, frame = want.step, want.frame
    settings = _settings(step, frame.turn)
    settings.setdefault("model", asked.model)
    messages: list[dict[str, Any]] = []
    if step.system is not None:
        messages.append({"role": "system", "content": filled_in(step.system, frame.values)})
    if step.prompt is not None:
        messages.append({"role": "user", "content": filled_in(step.prompt, frame.values)})
        chat = Chat(messages=(), session=asked.session)
    else:
        messages += [message for message in asked.messages if step.system is None or message["role"] != "system"]
        chat = asked
    if frame.criticism:
        messages.append({"role": "user", "content": _CRITICISM.format(frame.criticism)})
    if step.output is not None:
        settings["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": step.output}}
    return chat.model_copy(update={**settings, "messages": tuple(messages)})


def _settings(step: Step, turn: Turn | None) -> dict[str, Any]:
    """What the step says, and what the turn of its loop says instead."""
    said = {name: getattr(step, name) for name in _SETTINGS}
    if turn is not None:
        said |= {name: value for name in _SETTINGS if (value := getattr(turn, name, None)) is not None}
    return {name: value for name, value in said.items() if value is not None}
