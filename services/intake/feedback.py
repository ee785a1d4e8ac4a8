"""What a caller says of an answer over HTTP, to a record of the `feedback` topic. Pure; what is wrong is named, never quoted."""

from typing import Any

import orjson

from schemas.messages import Failure, Reason, Result
from schemas.quality import Feedback, Judge
from services.intake.decide import STAGE

COMMENT_CHARS_MAX = 4_096
ID_CHARS_MAX = 128
FIELDS = ("request_id", "score", "thumbs", "judge", "comment", "accepted_ms")
THUMBS = {"up": 1.0, "down": 0.0}
JUDGES = {judge.value: judge for judge in (Judge.PERSON, Judge.PROGRAM)}
"""The gate and the models it asks speak for themselves."""


def feedback_of(body: bytes, tenant: str, now_ms: int) -> Feedback | Failure:
    """The feedback of a tenant, or what is wrong with it; the message begins with the field."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        return Failure(reason=Reason.MALFORMED_JSON, stage=STAGE, message="the body is not JSON")
    problem = _problem(said)
    if problem is not None:
        return Failure(reason=Reason.INVALID_REQUEST, stage=STAGE, message=problem)
    return Feedback(
        request_id=said["request_id"],
        tenant=tenant,
        score=THUMBS[said["thumbs"]] if "thumbs" in said else said["score"],
        judge=JUDGES[said.get("judge", Judge.PERSON.value)],
        comment=said.get("comment", ""),
        accepted_ms=said.get("accepted_ms"),
        at_ms=now_ms,
    )


def placed(said: Feedback, result: Result | None) -> Feedback:
    """With what its request's result says, where that is known here and the tenant's own."""
    if result is None or result.tenant != said.tenant:
        return said
    return said.model_copy(update={"accepted_ms": result.accepted_ms})


def _problem(said: Any) -> str | None:
    if not isinstance(said, dict):
        return "the body must be a JSON object"
    if any(name not in FIELDS for name in said):
        return f"there is a field that is not known; known: {', '.join(FIELDS)}"
    if not _is_text(said.get("request_id"), ID_CHARS_MAX) or not said["request_id"]:
        return f"request_id: must be the id of the request, of at most {ID_CHARS_MAX} characters"
    if ("score" in said) == ("thumbs" in said):
        return "score: give a score from 0 to 1, or thumbs: up or down"
    if "score" in said and not (_is_number(said["score"]) and 0 <= said["score"] <= 1):
        return "score: must be a number from 0 to 1"
    if "thumbs" in said and not (_is_text(said["thumbs"], 4) and said["thumbs"] in THUMBS):
        return "thumbs: must be up or down"
    judge = said.get("judge", Judge.PERSON.value)
    if not (_is_text(judge, 16) and judge in JUDGES):
        return f"judge: must be {' or '.join(JUDGES)}"
    if not _is_text(said.get("comment", ""), COMMENT_CHARS_MAX):
        return f"comment: must be text of at most {COMMENT_CHARS_MAX} characters"
    if "accepted_ms" in said and not (isinstance(said["accepted_ms"], int) and said["accepted_ms"] >= 0):
        return "accepted_ms: must be the number that the result gives"
    return None


def _is_text(value: Any, chars_max: int) -> bool:
    return isinstance(value, str) and len(value) <= chars_max


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
