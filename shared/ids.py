"""Deterministic ids: a record's id follows from what caused it, so a replay makes the same id again."""

import hashlib


def request_id_of_record(partition: int, offset: int, timestamp_ms: int) -> str:
    """Id of a request read from `intake`; the timestamp tells two incarnations of the topic apart."""
    return hashlib.sha256(f"intake/{partition}/{offset}/{timestamp_ms}".encode()).hexdigest()[:32]


def request_id_of_key(tenant: str, idempotency_key: str) -> str:
    """Id of a request with an idempotency key: the same tenant and key are the same request."""
    return hashlib.sha256(f"key\0{tenant}\0{idempotency_key}".encode()).hexdigest()[:32]


def line_prefix(tenant: str) -> str:
    """What stands before a tenant's ordering keys. A slash in its name is written otherwise: no two tenants' keys meet."""
    return tenant.replace("%", "%25").replace("/", "%2F") + "/"


def task_id(request_id: str) -> str:
    return f"{request_id}/task"


def plan_id(request_id: str, number: int, step: str = "") -> str:
    """`step` is the path of a pipeline's step."""
    return f"{request_id}/{step}/plan/{number}" if step else f"{request_id}/plan/{number}"


def completion_id(plan: str) -> str:
    return f"{plan}/completion"


def escalation_id(request_id: str, plan_number: int, step: str = "") -> str:
    return f"{request_id}/{step}/escalation/{plan_number}" if step else f"{request_id}/escalation/{plan_number}"


def advance_id(request_id: str, path: str, what: str) -> str:
    """Of an escalation that moves a pipeline on: after a step (`next`, `beside`), or after a join (`joined`)."""
    return f"{request_id}/{path}/{what}"


def verdict_id(request_id: str) -> str:
    return f"{request_id}/verdict"


def attempt_id(plan: str, count: int, instance: str) -> str:
    """Unique even when a zombie and its successor both make attempt `count` of one plan: `instance` differs."""
    return f"{plan}/{count}-{instance}"


def review_id(request_id: str) -> str:
    """Of an answer that waits for a person."""
    return f"{request_id}/review"


def review_decision_id(request_id: str, partition: int, offset: int) -> str:
    """Of what a person said about it, by its place in `review-decisions`."""
    return f"{request_id}/review/{partition}-{offset}"


JUDGING = "-judge"


def judging_id(request_id: str) -> str:
    """Id of the request that has another's answer judged. No caller can make one: what intake makes are hex digits."""
    return request_id + JUDGING


def judged_by(request_id: str) -> str | None:
    """The request whose answer this one judges; None: it is nobody's judge."""
    return request_id.removesuffix(JUDGING) if request_id.endswith(JUDGING) else None


SHADOW = "-shadow"


def shadow_id(request_id: str) -> str:
    """Id of the request that asks another model the same, beside; no caller can make one either."""
    return request_id + SHADOW


def shadowed_by(request_id: str) -> str | None:
    """The request that this one is the shadow of; None: it is nobody's."""
    return request_id.removesuffix(SHADOW) if request_id.endswith(SHADOW) else None


def is_beside(request_id: str) -> bool:
    """Whether nobody waits for it: a judgement or a shadow. It takes no pipeline, and has no verdict and no result."""
    return request_id.endswith((JUDGING, SHADOW))
