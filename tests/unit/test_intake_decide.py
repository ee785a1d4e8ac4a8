"""What intake makes of bytes, options, timestamps and budgets."""

import json
import time
from decimal import Decimal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.config import Policy, Tenant
from schemas.envelope import Envelope
from schemas.messages import Claim, Failure, Reason, Request
from schemas.topology import DAY_MS, REQUESTS
from services.intake import decide
from services.intake.decide import Arrival
from shared.catalogue import Catalogue
from shared.codec import decode, encode
from tests.support.builders_edge import NOW_MS, SUBMITTED, a_catalogue

ARRIVAL = Arrival("topic", "r1", NOW_MS)


def accepted(body: object, catalogue: Catalogue | None = None, tenant: str | Failure = "demo") -> Envelope[Request]:
    return decide.accept(decide.read(orjson.dumps(body)), tenant, catalogue or a_catalogue(), ARRIVAL)


@pytest.mark.parametrize(
    ("raw", "reason", "said"),
    [
        (None, Reason.MALFORMED_JSON, "not JSON"),
        (b"", Reason.MALFORMED_JSON, "not JSON"),
        (b'{"prompt": "x",\n "model": }', Reason.MALFORMED_JSON, "line 2 column 11"),
        (b"\xff\xfe", Reason.MALFORMED_JSON, "UTF-8"),
        (b'{"a": NaN}', Reason.MALFORMED_JSON, "line 1"),
        (b'{"a": Infinity}', Reason.MALFORMED_JSON, "line 1"),
        (b'{"a": 1e400}', Reason.MALFORMED_JSON, "infinity"),
        (b'{"a": "\\ud800"}', Reason.MALFORMED_JSON, "surrogate"),
        (b'{"a": "\x00"}', Reason.MALFORMED_JSON, "line 1"),
        (b"[" * 10_000 + b"]" * 10_000, Reason.MALFORMED_JSON, "depth"),
        (b'{"a":' * 101 + b"1" + b"}" * 101, Reason.INVALID_REQUEST, "a: nested deeper"),
        (b'{"seed": 18446744073709551616}', Reason.INVALID_REQUEST, "seed: a number beyond 64 bits"),
        (b'{"a": {"b": [1, -1e30]}}', Reason.INVALID_REQUEST, "a: a number beyond 64 bits"),
        (b'{"prompt": "x", "prompt": "y"}', Reason.INVALID_REQUEST, "prompt: the key stands twice"),
        (b'{"a": {"b": 1, "b": 2}}', Reason.INVALID_REQUEST, "b: the key stands twice"),
        (b'{"a": "x", "a": "\\u003a"}', Reason.INVALID_REQUEST, "a: the key stands twice"),
        (b"[]", Reason.INVALID_REQUEST, "JSON object"),
        (b'"text"', Reason.INVALID_REQUEST, "JSON object"),
        (b'{"prompt": "' + b"x" * decide.BODY_BYTES_MAX + b'"}', Reason.TOO_LARGE, "send at most"),
        (b'{"a": [' + b"1e15," * 200_000 + b"1]}", Reason.TOO_LARGE, "once numbers are written out"),
    ],
)
def test_what_would_not_arrive_as_it_was_sent_is_refused(raw: bytes | None, reason: Reason, said: str) -> None:
    failure = decide.read(raw).failure
    assert failure is not None
    assert (failure.reason, failure.stage) == (reason, "intake")
    assert said in failure.message


@pytest.mark.parametrize(
    "raw",
    [
        b'{"n": 9007199254740993}',
        b'{"n": 18446744073709551615, "m": -9223372036854775808}',
        b'{"prompt": "a\\u0000b"}',
        b'{"prompt": "\\ud83d\\ude00 \\u003a : \\" {"}',
        b'{"": {"": []}}',
    ],
)
def test_odd_but_sound_json_makes_the_round_trip_through_the_log(raw: bytes) -> None:
    envelope = decide.accept(decide.read(raw), "demo", a_catalogue(), ARRIVAL)
    assert envelope.payload.failure is None
    assert decode(REQUESTS, encode(REQUESTS, envelope)).payload.body == orjson.loads(raw)


def test_the_deepest_body_that_is_accepted_survives_every_reader() -> None:
    raw = b'{"a":' * decide.DEPTH_MAX + b"1" + b"}" * decide.DEPTH_MAX
    envelope = decide.accept(decide.read(raw), "demo", a_catalogue(), ARRIVAL)
    assert envelope.payload.failure is None
    assert decode(REQUESTS, encode(REQUESTS, envelope)) == envelope


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("tenant", ""), ("tenant", "a b"), ("tenant", 7), ("app", ""), ("app", "x" * 256), ("priority", "urgent"),
        ("priority", []), ("deadline_ms", 0), ("deadline_ms", -1), ("deadline_ms", 1.5), ("deadline_ms", True),
        ("deadline_ms", "60"), ("max_cost_usd", -0.1), ("max_cost_usd", "1"), ("max_cost_usd", False),
        ("max_cost_usd", 1e7), ("ordering_key", ""), ("ordering_key", 1), ("idempotency_key", "x" * 256),
        ("idempotency_key", ""), ("metadata", []), ("metadata", {"x": "y" * 4096}),
    ],
)  # fmt: skip
def test_a_wrong_option_is_named(option: str, value: object) -> None:
    failure = accepted({"prompt": "hi", option: value}).payload.failure
    assert failure is not None
    assert failure.reason is Reason.INVALID_REQUEST
    assert failure.message.startswith(f"{option}: ")


def test_all_wrong_options_are_named_at_once_and_the_right_ones_are_kept() -> None:
    envelope = accepted({"prompt": "secret", "app": 3, "priority": "x", "metadata": {"row": 7}, "ordering_key": "k"})
    assert envelope.payload.failure is not None
    assert "app: " in envelope.payload.failure.message
    assert "priority: " in envelope.payload.failure.message
    assert (envelope.metadata, envelope.key, envelope.ordered) == ({"row": 7}, "demo/k", True)
    assert envelope.payload.body == {}


def test_options_go_to_the_envelope_and_the_rest_to_the_body() -> None:
    envelope = accepted({
        "messages": [{"role": "user", "content": "hi"}], "model": "auto", "foo": None, "app": "shop", "priority": "batch",
        "deadline_ms": 5_000, "max_cost_usd": 0.0125, "metadata": {"a": 1}, "ordering_key": "user-7", "idempotency_key": "k",
    })  # fmt: skip
    assert envelope.payload.body == {"messages": [{"role": "user", "content": "hi"}], "model": "auto", "foo": None}
    assert (envelope.app, envelope.lane, envelope.key, envelope.ordered) == ("shop", "batch", "demo/user-7", True)
    assert (envelope.accepted_ms, envelope.deadline_ms, envelope.budget_microusd) == (NOW_MS, NOW_MS + 5_000, 12_500)


def test_a_request_without_options_gets_the_policys_and_is_its_own_key() -> None:
    envelope = accepted({"prompt": "hi", "app": None, "deadline_ms": None})
    assert (envelope.id, envelope.key, envelope.ordered) == ("r1", "r1", False)
    assert (envelope.lane, envelope.deadline_ms, envelope.budget_microusd) == ("standard", NOW_MS + 60_000, None)


def test_a_deadline_is_cut_to_the_policys_maximum() -> None:
    catalogue = a_catalogue(policy=Policy(deadline_ms=1_000, deadline_ms_max=2_000))
    assert accepted({"deadline_ms": 9_000_000_000}, catalogue).deadline_ms == NOW_MS + 2_000


@pytest.mark.parametrize(
    ("asked_usd", "allowed_usd", "microusd"),
    [(None, None, None), (0.5, None, 500_000), (None, "0.25", 250_000), (0.5, "0.25", 250_000), (0.1, "0.25", 100_000),
     (0, None, 0), (0.0000005, None, 1), (0.0000004, None, 0), (1_000_000, None, 10**12)],
)  # fmt: skip
def test_a_budget_is_the_lower_of_what_caller_and_tenant_allow(
    asked_usd: float | None, allowed_usd: str | None, microusd: int | None
) -> None:
    tenant = Tenant(max_cost_usd=Decimal(allowed_usd) if allowed_usd else None)
    assert decide.budget_microusd(asked_usd, tenant) == microusd


def test_an_unnamed_tenant_is_the_one_open_one_else_default_else_a_refusal() -> None:
    opened, closed = Tenant(open=True), Tenant()
    assert decide.tenant_of_record(None, a_catalogue({"a": opened, "default": closed})) == "a"
    assert decide.tenant_of_record(None, a_catalogue({"a": opened, "b": opened, "default": closed})) == "default"
    assert decide.tenant_of_record("b", a_catalogue({"a": opened, "b": closed})) == "b"
    for named, tenants in ((None, {"a": closed}), ("c", {"a": opened})):
        failure = decide.tenant_of_record(named, a_catalogue(tenants))
        assert isinstance(failure, Failure)
        assert failure.reason is Reason.UNKNOWN_TENANT
        assert failure.message.startswith("tenant: ")


def test_a_record_arrived_at_its_timestamp_within_reason() -> None:
    def accepted_ms(timestamp_ms: int) -> int:
        return decide.arrival_of_record(0, 1, timestamp_ms, NOW_MS).accepted_ms

    assert accepted_ms(NOW_MS - 5_000) == NOW_MS - 5_000
    assert accepted_ms(NOW_MS + 5_000) == NOW_MS
    assert accepted_ms(0) == NOW_MS - 7 * DAY_MS
    assert accepted_ms(-1) == NOW_MS - 7 * DAY_MS


def test_a_replay_of_a_record_makes_the_same_request() -> None:
    first = decide.arrival_of_record(3, 7, NOW_MS - 9, NOW_MS)
    again = decide.arrival_of_record(3, 7, NOW_MS - 9, NOW_MS + DAY_MS)
    assert first == again
    assert first != decide.arrival_of_record(3, 8, NOW_MS - 9, NOW_MS)


def test_a_fingerprint_ignores_key_order_spaces_tenant_and_the_idempotency_key_only() -> None:
    def fingerprint(raw: bytes) -> str:
        return decide.read(raw).fingerprint

    one = fingerprint(b'{"prompt": "hi", "model": "m", "idempotency_key": "k"}')
    assert one == fingerprint(b'{"model":"m","idempotency_key":"other","prompt":"hi","tenant":"demo"}')
    assert one != fingerprint(b'{"prompt": "hi", "model": "m", "priority": "batch", "idempotency_key": "k"}')
    assert one != fingerprint(b'{"prompt": "ho", "model": "m", "idempotency_key": "k"}')
    assert one == fingerprint(b'{"prompt": "hi", "model": "m", "idempotency_key": "k", "app": null}'), "null is not given"


def test_a_repeat_is_the_request_that_won_and_another_body_is_refused() -> None:
    winner = Claim(request_id="first", fingerprint="f", claimed_ms=NOW_MS - 500)
    assert decide.under(winner, ARRIVAL, "f") == Arrival("topic", "first", NOW_MS - 500)
    refused = decide.under(winner, ARRIVAL, "g")
    assert isinstance(refused, Failure)
    assert refused.message.startswith("idempotency_key: ")


def test_the_id_of_a_keyed_request_differs_by_tenant_key_and_day() -> None:
    def id(tenant: str, key: str, at_ms: int) -> str:
        return decide.claim_of(tenant, key, "f", at_ms).request_id

    assert id("a", "k", NOW_MS) == id("a", "k", NOW_MS + 1)
    assert len({id("a", "k", NOW_MS), id("b", "k", NOW_MS), id("a", "l", NOW_MS), id("a", "k", NOW_MS + DAY_MS)}) == 4


@given(value=SUBMITTED)
def test_whatever_is_sent_becomes_a_request_that_can_be_written_and_read(value: dict[str, object]) -> None:
    raw = json.dumps(value).encode()   # also writes NaN, Infinity and lone surrogates
    catalogue = a_catalogue()
    submission = decide.read(raw)
    tenant = decide.tenant_of_record(submission.options.get("tenant"), catalogue)
    envelope = decide.accept(submission, tenant, catalogue, ARRIVAL)
    assert decode(REQUESTS, encode(REQUESTS, envelope)) == envelope
    failure = envelope.payload.failure
    assert failure is None or failure.message


@given(raw=st.binary(max_size=60))
def test_any_bytes_become_a_submission(raw: bytes) -> None:
    submission = decide.read(raw)
    assert submission.failure is not None or isinstance(orjson.loads(raw), dict)


def test_a_body_of_very_many_keys_is_read_as_quickly_as_it_is_long() -> None:
    """A caller that could keep intake busy for minutes with one body would keep everybody out."""
    names = ",".join(f'"k{number}":0' for number in range(50_000))
    body = f'{{"metadata":{{"note":"\\u003a",{names},"k7":1}}}}'.encode()
    began_s = time.process_time()
    submission = decide.read(body)
    assert time.process_time() - began_s < 5, "CPU seconds; comparing each key with each takes minutes"
    assert submission.failure is not None
    assert "k7: the key stands twice" in submission.failure.message


@given(*[st.from_regex(r"[a-c%/]{1,6}", fullmatch=True)] * 4)
def test_two_tenants_never_stand_in_one_line(tenant: str, other: str, key: str, other_key: str) -> None:
    if tenant != other:
        assert decide.line_of(tenant, key) != decide.line_of(other, other_key)
