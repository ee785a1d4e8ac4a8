"""Builders of records and catalogues for tests: every argument has a default, so that a test names only what matters."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeVar

from schemas.config import Backend, Model, Policy, Prices, Tenant
from schemas.envelope import Envelope, Fact
from schemas.fleet import Circuit, FleetEntry, Window
from schemas.ledger import Usage
from schemas.messages import (
    Answer,
    Candidate,
    Chat,
    Completion,
    Escalation,
    Failure,
    Features,
    Plan,
    Reason,
    Request,
    Task,
    Tried,
    Why,
)
from shared.broker import Headers, Record
from shared.catalogue import Catalogue
from shared.handler import Context
from shared.outcome import Out

P = TypeVar("P", bound=Fact)

NOW_MS = 1_800_000_000_000
REQUEST_ID = "0123456789abcdef0123456789abcdef"


@dataclass
class ManualClock:
    """Time that passes only when a test says so."""

    ms: int = NOW_MS

    def now_ms(self) -> int:
        return self.ms

    def monotonic_s(self) -> float:
        return self.ms / 1000


class _NoLedger:
    """For stages that must not write beside their outcome."""

    async def write(self, out: Out, trace: Headers, record: Record) -> None:
        raise AssertionError("this stage writes nothing beside its outcome")

    async def send(self, out: Out, trace: Headers, record: Record) -> Any:
        raise AssertionError("this stage writes nothing beside its outcome")


def a_context() -> Context:
    record = Record(topic="t", partition=0, offset=0, timestamp_ms=NOW_MS, key=b"k", value=b"{}")
    return Context(record=record, trace=(), ledger=_NoLedger(), check_alive=lambda: None)


def an_envelope(payload: P, id: str = "", **fields: Any) -> Envelope[P]:
    """An envelope of one minute around a payload; its id is the request's unless given."""
    defaults: dict[str, Any] = {
        "request_id": REQUEST_ID,
        "key": REQUEST_ID,
        "tenant": "acme",
        "accepted_ms": NOW_MS,
        "deadline_ms": NOW_MS + 60_000,
    }
    kind: Any = Envelope.__class_getitem__(type(payload))
    built: Envelope[P] = kind(id=id or REQUEST_ID, payload=payload, **(defaults | fields))
    return built


def a_failure(reason: Reason = Reason.INVALID_REQUEST, stage: str = "intake") -> Failure:
    return Failure(reason=reason, stage=stage, message="for the caller")


def a_request(**body: Any) -> Request:
    return Request(source="topic", body=body or {"prompt": "Say hello."})


def a_chat(text: str = "Say hello.", **fields: Any) -> Chat:
    return Chat(messages=({"role": "user", "content": text},), **fields)


def some_features(**fields: Any) -> Features:
    return Features(**({"tokens_in": 100, "tokens_out": 200, "tokens_out_max": 1000} | fields))


def a_task(chat: Chat | None = None, **features: Any) -> Task:
    return Task(chat=chat or a_chat(), features=some_features(**features))


def a_candidate(model: str = "small", **fields: Any) -> Candidate:
    defaults = {"backends": (f"{model}-a",), "quality": 0.5, "cost_microusd": 100, "cost_max_microusd": 500}
    return Candidate(model=model, **(defaults | fields))


def a_why(**fields: Any) -> Why:
    return Why(**({"policy": "default", "rule": "cheapest of 1 able models with quality ≥ 0.00"} | fields))


def a_plan(*models: str, **fields: Any) -> Plan:
    candidates = tuple(a_candidate(model) for model in models or ("small",))
    return Plan(**({"number": 0, "task": a_task(), "candidates": candidates, "why": a_why()} | fields))


def an_answer(text: str = "Hello.", **fields: Any) -> Answer:
    defaults = {"model": "small", "backend": "small-a", "usage": Usage(tokens_in=100, tokens_out=20)}
    return Answer(text=text, **(defaults | fields))


def a_completion(answer: Answer | None = None, **fields: Any) -> Completion:
    """A completion of the request's first plan: with an answer, unless it is given a failure."""
    said = answer or (None if fields.get("failure") else an_answer())
    number = fields.get("plan_number", 0)
    defaults = {"plan_id": f"{REQUEST_ID}/plan/{number}", "plan_number": 0, "task": a_task(), "why": a_why()}
    return Completion(answer=said, **(defaults | fields))


def an_escalation(*tried: str, **fields: Any) -> Escalation:
    was_tried = tuple(Tried(model=model, backend=f"{model}-a", failed_checks=("not_empty",)) for model in tried or ("small",))
    return Escalation(**({"plan_number": 1, "task": a_task(), "tried": was_tried} | fields))


def a_model(**fields: Any) -> Model:
    return Model(**({"quality": 0.5, "context_tokens": 8192} | fields))


def a_backend(model: str = "small", price_in: str = "1", price_out: str = "4", **fields: Any) -> Backend:
    prices = Prices(input=Decimal(price_in), output=Decimal(price_out))
    return Backend(**({"model": model, "provider": "sim", "base_url": "http://127.0.0.1:1/v1", "prices": prices} | fields))


def a_catalogue(
    models: Mapping[str, Model] | None = None,
    backends: Mapping[str, Backend] | None = None,
    tenant: Tenant | None = None,
    **policy: Any,
) -> Catalogue:
    """Three models, small to large, dearer and better, one backend `<model>-a` each, unless others are given."""
    known = models or {
        "small": a_model(quality=0.5, capabilities=("json_schema",)),
        "medium": a_model(quality=0.7, capabilities=("json_schema", "tools")),
        "large": a_model(quality=0.9, context_tokens=128_000, capabilities=("json_schema", "tools", "vision")),
    }
    prices = {"small": ("0.2", "0.8"), "medium": ("1", "4"), "large": ("5", "20")}
    return Catalogue(
        version=7,
        models=known,
        backends=backends or {f"{name}-a": a_backend(name, *prices.get(name, ("1", "4"))) for name in known},
        tenants={"acme": tenant or Tenant()},
        policies={"default": Policy(**policy)},
    )


def a_fleet_entry(backend: str, circuit: Circuit = Circuit.CLOSED, p95_ms: float | None = None, calls: int = 100) -> FleetEntry:
    """A backend as the fleet sees it; without `p95_ms` it has no windows."""
    windows = () if p95_ms is None else (Window(seconds=60, calls=calls, p95_ms=p95_ms),)
    return FleetEntry(backend=backend, circuit=circuit, windows=windows)
