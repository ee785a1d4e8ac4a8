"""Turns the body a caller sent into a task: one normal form of chat with its features, or what is wrong with the body.

Pure. Every problem names a field and its fix, and never quotes what the caller wrote.
"""

from collections.abc import Container
from typing import Any

from schemas.messages import Chat, Failure, Reason, Task
from services.preprocessing.body import Problems, read_chat
from services.preprocessing.features import features
from shared.tokens import images_of, texts_of

STAGE = "preprocessing"


def decide(body: dict[str, Any], models: Container[str], prompt_bytes_max: int, pipelines: Container[str] = ()) -> Task:
    """The task of a body. `models` and `pipelines` are the catalogue's.

    `prompt_bytes_max` counts texts, image URLs, tools and schema.
    """
    problems = Problems()
    chat = read_chat(body, problems)
    if chat is None:
        return rejected(Reason.INVALID_REQUEST, str(problems))
    if chat.model is not None and chat.model not in models:
        return rejected(Reason.UNKNOWN_MODEL, "model: not in the catalogue; use a model of baton.yaml, auto, or nothing")
    size = problems.bytes_beside + _bytes_of(chat)
    if size > prompt_bytes_max:
        return rejected(Reason.TOO_LARGE, f"prompt: {size} bytes; the policy allows {prompt_bytes_max}, shorten or split it")
    name = body.get("pipeline")
    if name is not None and (not isinstance(name, str) or name not in pipelines):
        return rejected(Reason.INVALID_REQUEST, "pipeline: not in the config; use one of baton.yaml's pipelines, or leave it out")
    return Task(chat=chat, features=features(chat), pipeline=name)


def rejected(reason: Reason, message: str) -> Task:
    return Task(failure=Failure(reason=reason, stage=STAGE, message=message))


def _bytes_of(chat: Chat) -> int:
    """UTF-8 bytes of what the messages say and of the URLs of their images, data URLs included."""
    size = 0
    for message in chat.messages:
        for text in texts_of(message) + images_of(message):
            size += len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return size
