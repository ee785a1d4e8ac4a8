"""What a caller sent becomes an accepted request, or one with the reason why it is refused. Pure: no clock, no I/O.

Options are checked here, all at once; the chat itself is not looked at. A refused request is still a request: it keeps
whatever options were right, so that its caller can tell which of many was refused.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from functools import cached_property
from typing import Any, NamedTuple

import orjson

from schemas.config import Tenant
from schemas.envelope import Envelope
from schemas.messages import Claim, Failure, Lane, Reason, Request
from schemas.topology import DAY_MS, INTAKE
from shared.catalogue import Catalogue
from shared.ids import line_prefix, request_id_of_key, request_id_of_record

STAGE = "intake"
BODY_BYTES_MAX = 1_048_576
WRITTEN_BYTES_MAX = 2 * BODY_BYTES_MAX  # 1e15 is written as 1000000000000000.0; a record must fit its topic all the same
DEPTH_MAX = 100          # readers further on stop at 200, and a request is wrapped several times on its way
NUMBER_MAX = float(2**63)  # beyond it JSON integers turn into floats and lose digits
TEXT_MAX = 255
METADATA_BYTES_MAX = 4_096
COST_USD_MAX = 1_000_000
WAIT_MARGIN = 1.25       # of a wait that is estimated: who comes through must still be answered, not expire at the provider
LEFT_SHARE_MIN = 0.1     # of a request's time, at most LEFT_MS_MAX: who is read with less would only expire a stage further on
LEFT_MS_MAX = 2_000
NO_TENANT = "unknown"    # the tenant of a request that could not be read, or that names no possible tenant

_LANES = tuple(lane.value for lane in Lane)
_STANDARD = Lane.STANDARD.value
_NESTED = (dict, list)
_ACCEPTED = Envelope[Request]
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")


class Arrival(NamedTuple):
    """Where and when a request came in. `reply` is the partition its caller waits on."""

    source: str
    request_id: str
    accepted_ms: int
    reply: str | None = None


@dataclass   # made for every request, and a frozen one takes three times as long; nobody changes it
class Submission:
    """What was sent, taken apart: the options that are right, the rest as `body`, and what is wrong, if anything."""

    options: dict[str, Any] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=dict)
    failure: Failure | None = None

    @cached_property
    def fingerprint(self) -> str:
        """Of everything but NOT_COMPARED: the same idempotency key with another fingerprint is another request."""
        options = {name: value for name, value in self.options.items() if name not in NOT_COMPARED}
        return hashlib.sha256(orjson.dumps(self.body | options, option=orjson.OPT_SORT_KEYS)).hexdigest()

    @property
    def idempotency_key(self) -> str | None:
        key: str | None = self.options.get("idempotency_key")
        return key


def refusal(reason: Reason, message: str) -> Failure:
    return Failure(reason=reason, stage=STAGE, message=message)


# From bytes ---------------------------------------------------------------------------------------------------------


def read(raw: bytes | None) -> Submission:
    """Take a record's value or a request's body apart. Never raises: whatever is wrong is in `failure`."""
    parsed = parse(raw)
    if isinstance(parsed, Failure):
        return Submission(failure=parsed)
    return sort_out(parsed)


def parse(raw: bytes | None) -> dict[str, Any] | Failure:
    """JSON that survives every hop unchanged, or why not: too large, malformed, too deep, not exact, ambiguous."""
    raw = raw or b""
    if len(raw) > BODY_BYTES_MAX:
        return refusal(Reason.TOO_LARGE, f"the request has {len(raw)} bytes; send at most {BODY_BYTES_MAX}")
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        return refusal(Reason.MALFORMED_JSON, f"not JSON at line {error.lineno} column {error.colno}: {error.msg}")
    if not isinstance(value, dict):
        return refusal(Reason.INVALID_REQUEST, 'the request must be a JSON object such as {"prompt": "..."}')
    problem = _unfaithful(value)
    if problem is None:
        compact = orjson.dumps(value)
        if len(compact) > WRITTEN_BYTES_MAX:
            return refusal(Reason.TOO_LARGE, f"the request has {len(compact)} bytes once numbers are written out")
        problem = _ambiguous(raw, compact)
    return refusal(Reason.INVALID_REQUEST, problem) if problem else value


def _unfaithful(body: Mapping[str, Any]) -> str | None:
    """What would not arrive as it was sent: nesting that later readers refuse, numbers that lost digits."""
    stack = [(name, value, 1) for name, value in body.items()]
    while stack:
        name, value, depth = stack.pop()
        if isinstance(value, float):
            if abs(value) >= NUMBER_MAX:
                return f"{name[:64]}: a number beyond 64 bits; send it as a string"
        elif isinstance(value, _NESTED):
            if depth >= DEPTH_MAX:
                return f"{name[:64]}: nested deeper than {DEPTH_MAX} levels; flatten it"
            values = value.values() if isinstance(value, dict) else value
            stack.extend((name, item, depth + 1) for item in values)
    return None


def _ambiguous(raw: bytes, compact: bytes) -> str | None:
    """A key that stands twice: two readers would see two requests.

    Each key lost costs a colon, and only an escaped one in a text can make up for it: the slow look is rarely due.
    """
    if raw.count(b":") == compact.count(b":") and b"\\u003" not in raw:
        return None
    twice: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                twice.append(name)
            seen.add(name)

    json.loads(raw, object_pairs_hook=note, parse_int=str, parse_float=str)
    return f"{min(twice)[:64]}: the key stands twice in one object; send it once" if twice else None


# Options ------------------------------------------------------------------------------------------------------------


def _text(value: Any) -> str | None:
    ok = isinstance(value, str) and 1 <= len(value) <= TEXT_MAX
    return None if ok else f"must be a text of 1 to {TEXT_MAX} characters"


def _tenant(value: Any) -> str | None:
    ok = isinstance(value, str) and _TENANT.fullmatch(value)
    return None if ok else "must be the name of a tenant: letters, digits and ._:/- , at most 128"


def _lane(value: Any) -> str | None:
    return None if isinstance(value, str) and value in _LANES else f"must be one of {', '.join(_LANES)}"


def _duration(value: Any) -> str | None:
    ok = isinstance(value, int) and not isinstance(value, bool) and value > 0
    return None if ok else "must be a whole number of milliseconds above 0, counted from acceptance"


def _cost(value: Any) -> str | None:
    ok = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= COST_USD_MAX
    return None if ok else f"must be a number of USD from 0 to {COST_USD_MAX}"


def _labels(value: Any) -> str | None:
    if not isinstance(value, dict):
        return "must be an object of your own labels"
    size = len(orjson.dumps(value))
    return None if size <= METADATA_BYTES_MAX else f"has {size} bytes; send at most {METADATA_BYTES_MAX}"


OPTIONS: dict[str, Callable[[Any], str | None]] = {
    "tenant": _tenant,
    "app": _text,
    "priority": _lane,
    "deadline_ms": _duration,
    "max_cost_usd": _cost,
    "ordering_key": _text,
    "idempotency_key": _text,
    "metadata": _labels,
}
"""Every option with its check, which says what is wrong with a value. Anything else a caller sends is the body."""

NOT_COMPARED = ("idempotency_key", "tenant")


def sort_out(parsed: dict[str, Any]) -> Submission:
    """Options apart from body; null means not given. All wrong options are named at once."""
    given = {name: parsed[name] for name in OPTIONS if parsed.get(name) is not None}
    problems = {name: problem for name, value in given.items() if (problem := OPTIONS[name](value))}
    message = "; ".join(f"{name}: {problem}" for name, problem in problems.items())
    return Submission(
        options={name: value for name, value in given.items() if name not in problems},
        body={name: value for name, value in parsed.items() if name not in OPTIONS},
        failure=refusal(Reason.INVALID_REQUEST, message) if problems else None,
    )


# Who, when, which ---------------------------------------------------------------------------------------------------


def open_tenant(catalogue: Catalogue) -> str | None:
    """The one tenant that needs no key. Two open ones would be a guess, so then there is none."""
    names = [name for name, tenant in catalogue.tenants.items() if tenant.open]
    return names[0] if len(names) == 1 else None


def tenant_of_record(named: str | None, catalogue: Catalogue) -> str | Failure:
    """Whoever may write the topic may name its tenant. Unnamed: the one open tenant, else the tenant `default`."""
    name = named or open_tenant(catalogue) or "default"
    if name in catalogue.tenants:
        return name
    if named is None:
        return refusal(Reason.UNKNOWN_TENANT, "tenant: missing, and there is no tenant to assume; name one")
    return refusal(Reason.UNKNOWN_TENANT, f"tenant: no tenant {name!r}; name one that the config defines")


def arrival_of_record(partition: int, offset: int, timestamp_ms: int, now_ms: int) -> Arrival:
    """A record arrived when its timestamp says, so that a replay has the same deadline; never in the future.

    Nor longer ago than the topic keeps records: a made-up timestamp must not send readers through the whole log.
    """
    accepted_ms = min(max(timestamp_ms, now_ms - INTAKE.retention_ms), now_ms)
    return Arrival("topic", request_id_of_record(partition, offset, timestamp_ms), accepted_ms)


def claim_of(tenant: str, idempotency_key: str, fingerprint: str, accepted_ms: int) -> Claim:
    """What a replica writes to claim a key. The id holds the day, so a key used again later is a new request."""
    day = accepted_ms // DAY_MS
    request_id = request_id_of_key(tenant, f"{idempotency_key}\0{day}")
    return Claim(request_id=request_id, fingerprint=fingerprint, claimed_ms=accepted_ms)


def under(winner: Claim, arrival: Arrival, fingerprint: str) -> Arrival | Failure:
    """A repeat is the request that won its key: same id, same time, hence the same deadline. Another body is refused."""
    if winner.fingerprint != fingerprint:
        return refusal(
            Reason.INVALID_REQUEST,
            "idempotency_key: was used with another body or other options; repeat those, or use a new key",
        )
    return Arrival(arrival.source, winner.request_id, winner.claimed_ms, arrival.reply)


# To the log ---------------------------------------------------------------------------------------------------------


def accept(
    submission: Submission, tenant: str | Failure, catalogue: Catalogue, arrival: Arrival
) -> Envelope[Request]:
    """The envelope that enters the pipeline; with the first thing that is wrong, if anything is."""
    options = submission.options
    failure = submission.failure or (tenant if isinstance(tenant, Failure) else None)
    name = options.get("tenant", NO_TENANT) if isinstance(tenant, Failure) else tenant
    policy = catalogue.policy_of(name)
    deadline_ms = min(options.get("deadline_ms", policy.deadline_ms), policy.deadline_ms_max)
    ordering_key = options.get("ordering_key")
    return _ACCEPTED(
        id=arrival.request_id,
        request_id=arrival.request_id,
        key=arrival.request_id if ordering_key is None else line_of(name, ordering_key),
        tenant=name,
        app=options.get("app", ""),
        lane=options.get("priority", _STANDARD),
        accepted_ms=arrival.accepted_ms,
        deadline_ms=arrival.accepted_ms + deadline_ms,
        budget_microusd=budget_microusd(options.get("max_cost_usd"), catalogue.tenants.get(name)),
        reply=arrival.reply,
        ordered=ordering_key is not None,
        metadata=options.get("metadata", {}),
        payload=Request(
            source=arrival.source,
            body={} if failure else submission.body,
            fingerprint=submission.fingerprint if submission.idempotency_key is not None else "",
            failure=failure,
        ),
    )


def late(envelope: Envelope[Request], wait_s: float, now_ms: int) -> Failure | None:
    """Why a request would only expire on its way, if it would. `wait_s`: for what stands before it.

    Intake reads the oldest first. Where it is behind itself, each request it comes to is about to expire: without a rest of
    time to ask for, it let in just those that expired a stage or two further on.
    """
    left_ms, had_ms = envelope.deadline_ms - now_ms, envelope.deadline_ms - envelope.accepted_ms
    if left_ms <= 0:
        return refusal(Reason.DEADLINE_PASSED, "deadline_ms had passed before the request was read")
    if left_ms < min(had_ms * LEFT_SHARE_MIN, LEFT_MS_MAX):
        return refusal(Reason.NO_TIME_LEFT, "the request was read with hardly any time left; allow a longer deadline_ms")
    if wait_s * 1000 * WAIT_MARGIN > left_ms:
        return refusal(
            Reason.NO_TIME_LEFT,
            f"what stands before the request takes about {wait_s:.0f} s, too long for its deadline_ms; "
            "send it again later, or allow a longer deadline_ms",
        )
    return None


def line_of(tenant: str, ordering_key: str) -> str:
    """The envelope key of ordered requests: two tenants' keys never meet."""
    return line_prefix(tenant) + ordering_key


def budget_microusd(asked_usd: float | None, tenant: Tenant | None) -> int | None:
    """The lower of what the caller and the tenant allow, in micro-USD; None when neither says."""
    asked = [] if asked_usd is None else [Decimal(str(asked_usd))]
    allowed = [] if tenant is None or tenant.max_cost_usd is None else [tenant.max_cost_usd]
    limits = asked + allowed
    return int((min(limits) * 1_000_000).quantize(Decimal(1), ROUND_HALF_UP)) if limits else None
