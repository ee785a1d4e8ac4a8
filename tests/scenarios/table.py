"""The sixteen faults: what happens to the primary, what must come of it, and the catalogue in which it does. Pure.

A model's name chooses the fault (`sim-s08@...`), and what follows the @ sets one variant's backends apart from all others.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from schemas.config import Backend, ConfigFile, Model, Policy, Prices, Tenant
from services.simulator.scenarios import STORY
from tests.scenarios.evidence import Evidence, Side, Weight
from tests.scenarios.judge import (
    Rule,
    answered,
    answered_by,
    asked_exactly,
    attempts_at_most,
    failures_are_free,
    fallback,
    left_alone,
    never_refuses,
    primary,
    refused,
    returns,
    spares,
    within,
)

Dialect = Literal["openai", "anthropic", "gemini"]
DIALECTS: tuple[Dialect, ...] = ("openai", "anthropic", "gemini")

QUESTION = "What is 17 + 25?"
ANSWER = "17 + 25 = 42"
LONG_ANSWER = f"{ANSWER}\n\n{STORY}"
"""Where the fault comes in the middle of an answer, the primary has more to say: a cut one is no whole one of anybody."""

TOKENS_OUT_MAX = 300
PRICES = Prices(input=Decimal("0.15"), cached_input=Decimal("0.075"), cache_write=Decimal("0.188"), output=Decimal("0.60"))
DOWN_MS = 60_000
BACK_MS = 30_000
PROBES = 3

FILTERED: dict[Dialect, str] = {"openai": "safety system", "anthropic": "refusal", "gemini": "SAFETY"}
"""What stands in the provider's own answer when its filter says no."""


@dataclass(frozen=True)
class Pace:
    """How patient the catalogue is with a backend, and the factor on every duration of a fault. Milliseconds."""

    timeout_ms: int = 60_000
    first_token_ms: int = 10_000
    stall_ms: int = 10_000
    scale: float = 1.0


DEFAULT = Pace()
"""The catalogue's defaults and the faults at full length."""
HASTY = Pace(timeout_ms=4_000, first_token_ms=1_500, stall_ms=1_500, scale=0.2)


@dataclass(frozen=True)
class Scenario:
    """One fault. `requests` come `every_s`; `streams_only`: it has no meaning for a plain answer; `is_long`: it comes in the
    middle of an answer; `pins`: whether the caller names the primary's model, for a plain and for a streamed call."""

    id: str
    fault: str
    expected: str
    rules: tuple[Rule, ...]
    requests: int = 1
    every_s: float = 1.0
    deadline_ms: int = 60_000
    streams_only: bool = False
    is_long: bool = False
    pins: tuple[bool, bool] = (False, False)
    fallback_model: str = "sim-scenario-fallback"
    fallback_dialect: Dialect = "openai"


BY_FALLBACK = (answered, answered_by(fallback))
STREAM: dict[str, Any] = {"streams_only": True, "is_long": True}
# fmt: off
SCENARIOS = {scenario.id: scenario for scenario in (
    Scenario("S01", "429, Retry-After 2, once", "left alone for 1.8 s or failed over; at most 2 attempts in 1.5 s",
             (answered, attempts_at_most(2, within_ms=1_500), left_alone(1_800))),
    Scenario("S02", "429 for ever", "failed over; at most 4 attempts in 3 s, 6 in all",
             (*BY_FALLBACK, attempts_at_most(4, within_ms=3_000), attempts_at_most(6))),
    # A caller who names the model gets it: one more call of the same backend. Else another model may answer.
    Scenario("S03", "500 once", "one more call, of the same backend where the caller named the model",
             (answered, attempts_at_most(2)), pins=(True, False)),
    Scenario("S04", "503 for ever", "failed over; at most 6 attempts",
             (*BY_FALLBACK, attempts_at_most(6))),
    Scenario("S05", "reset before headers, once", "tried again or failed over; at most 6 attempts",
             (answered, attempts_at_most(6))),
    Scenario("S06", "never answers", "failed over after one timeout; the silent one is not asked again",
             (*BY_FALLBACK, asked_exactly(primary, 1))),
    Scenario("S07", "first token after 20 s", "failed over within 15 s",
             (*BY_FALLBACK, within(15_000)), streams_only=True),
    Scenario("S08", "cut after 40 of 60 tokens", "the whole answer, from the fallback",
             BY_FALLBACK, **STREAM),
    Scenario("S09", "silent after 20 tokens", "failed over within 45 s, and so is the next request",
             (*BY_FALLBACK, within(45_000)), requests=2, every_s=12.0, **STREAM),
    Scenario("S10", "tenth event is no JSON", "the whole answer, from whomever; nothing dies",
             (answered,), **STREAM),
    Scenario("S11", "no end marker", "the whole answer within 8 s, with its usage",
             (answered, within(8_000), answered_by(primary, Weight.ADVISORY)), **STREAM),
    # Where the caller named the model, the configured chain leads to the bigger window; else the next candidate does.
    Scenario("S12", "400, context too long", "one call there; a bigger window answers",
             (*BY_FALLBACK, asked_exactly(primary, 1)), pins=(False, True)),
    Scenario("S13", "content policy", "one call, and a clean error with the provider's reason",
             (asked_exactly(primary, 1), asked_exactly(fallback, 0))),
    Scenario("S14", "cut, fallback wants no prefill", "a clean restart; no 400 on the way",
             (*BY_FALLBACK, never_refuses), fallback_model="sim-noprefill", fallback_dialect="anthropic", **STREAM),
    # Twenty requests, and three more: so that there is a caller up to the last moment at which it must be back.
    Scenario("S15", "503 for 60 s, then well", "the fallback meanwhile; back within 30 s",
             (answered, returns(DOWN_MS, BACK_MS), spares(DOWN_MS, PROBES)), requests=23, every_s=4.0),
    Scenario("S16", "503 for ever: the bill", "the fallback and its usage are named; failures cost nothing",
             (*BY_FALLBACK, failures_are_free), requests=3),
)}
# fmt: on


@dataclass(frozen=True)
class Variant:
    """One scenario with its primary in one dialect, streamed upstream or not."""

    scenario: Scenario
    dialect: Dialect
    streamed: bool

    @property
    def name(self) -> str:
        """Of the variant, its tenant, and what follows the @ of its models."""
        return f"{self.scenario.id.lower()}-{self.dialect}-{'stream' if self.streamed else 'plain'}"

    @property
    def is_pinned(self) -> bool:
        return self.scenario.pins[self.streamed]

    @property
    def primary(self) -> Side:
        whole = LONG_ANSWER if self.scenario.is_long else ANSWER
        return Side(f"{self.name}-primary", f"sim-{self.scenario.id.lower()}@{self.name}", whole)

    @property
    def fallback(self) -> Side:
        return Side(f"{self.name}-fallback", f"{self.scenario.fallback_model}@{self.name}", ANSWER)

    @property
    def rules(self) -> tuple[Rule, ...]:
        own = (refused(FILTERED[self.dialect]),) if self.scenario.id == "S13" else ()
        pinned = (answered_by(primary),) if self.scenario.id == "S03" and self.is_pinned else ()
        return (*self.scenario.rules, *own, *pinned)

    def evidence(self) -> Evidence:
        """Nothing seen yet."""
        return Evidence(self.primary, self.fallback, self.scenario.deadline_ms, self.streamed)

    def body(self, number: int) -> dict[str, Any]:
        """A request as it is produced to `intake`. Where it names no model it names the order: what the router learns of the
        two, such as how long their answers are, is not what this is about."""
        both = [self.primary.backend, self.fallback.backend]
        named: dict[str, Any] = {"model": self.primary.backend} if self.is_pinned else {"models": both}
        return {"prompt": QUESTION, "tenant": self.name, "priority": "interactive", "max_tokens": TOKENS_OUT_MAX,
                "deadline_ms": self.scenario.deadline_ms, "metadata": {"number": number}, **named}


def variants(only: Collection[str] = (), dialects: Iterable[Dialect] = DIALECTS) -> list[Variant]:
    """Every scenario in every dialect, streamed, and plain where that makes sense; those named, or all."""
    return [
        Variant(scenario, dialect, streamed)
        for scenario in SCENARIOS.values()
        if not only or scenario.id in only
        for dialect in dialects
        for streamed in (True, False)
        if streamed or not scenario.streams_only
    ]


def mix(without: Collection[str] = ()) -> list[Variant]:
    """Every scenario once: the dialects in turn, plain and streamed in turn where both make sense."""
    return [
        Variant(scenario, DIALECTS[place % 3], scenario.streams_only or place % 2 == 0)
        for place, scenario in enumerate(SCENARIOS.values())
        if scenario.id not in without
    ]


def catalogue(wanted: Iterable[Variant], url: str, pace: Pace) -> ConfigFile:
    """A tenant, two models and two backends per variant.

    Every second backend is healthy, so the cap on the share of the fleet that may be out at once is never reached.
    """
    wanted = list(wanted)
    models: dict[str, Model] = {}
    backends: dict[str, Backend] = {}
    for variant in wanted:
        first, second = variant.primary, variant.fallback
        capabilities = ("tools", "json_schema", "streaming")
        models[first.backend] = Model(
            quality=0.9, context_tokens=128_000, capabilities=capabilities, on_context_length=(second.backend,)
        )
        models[second.backend] = Model(quality=0.8, context_tokens=200_000, capabilities=capabilities)
        backends[first.backend] = _backend(first, variant.dialect, variant.streamed, url, "alpha", pace)
        backends[second.backend] = _backend(second, variant.scenario.fallback_dialect, variant.streamed, url, "beta", pace)
    return ConfigFile(
        models=models,
        backends=backends,
        tenants={v.name: Tenant(models=(v.primary.backend, v.fallback.backend)) for v in wanted},
        policies={"default": Policy(quality_min_hard=0.0)},
    )


def _backend(side: Side, dialect: Dialect, streamed: bool, url: str, provider: str, pace: Pace) -> Backend:
    """A backend serves the catalogue model of its own name: each variant's are its own."""
    version = "v1beta" if dialect == "gemini" else "v1"
    return Backend(
        model=side.backend, provider=provider, dialect=dialect, base_url=f"{url}/{provider}/{version}", model_name=side.model,
        prices=PRICES, stream="always" if streamed else "never", timeout_ms=pace.timeout_ms,
        first_token_ms=pace.first_token_ms, stall_ms=pace.stall_ms,
    )
