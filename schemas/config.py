"""What `baton.yaml` may say, and the records of the `config` topic it becomes. Every field has a unit in its name or text."""

import re
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from schemas.checks import CheckSpec, JudgeRule, ReviewRule, Sampling, Share
from schemas.envelope import Fact
from schemas.pipeline import Node
from schemas.strict import Name
from schemas.strict import Strict as Strict

FLAVOURS = (
    "", "openai", "azure", "vllm", "ollama", "groq", "mistral", "deepseek", "openrouter", "together", "fireworks", "xai"
)
CAPABILITIES = ("json_schema", "tools", "vision", "reasoning", "streaming", "logprobs")
CERTIFIABLE = ("code", "maths", "json_schema", "tools", "vision", "languages", "long_context", "reasoning")
"""What `baton certify` tests."""

SECRET_REFERENCE = re.compile(r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)$")


def _is_reference(value: str) -> str:
    if not SECRET_REFERENCE.match(value):
        raise ValueError("must be a reference, env:NAME or file:/path; secrets never stand in the config")
    return value


SecretReference = Annotated[str, AfterValidator(_is_reference)]
Usd = Annotated[Decimal, Field(ge=0)]


class Rates(Strict):
    """USD per million tokens, which is the same number as micro-USD per token."""

    input: Usd
    output: Usd
    cached_input: Usd | None = Field(None, description="input read from the provider's prompt cache; default: as input")
    cache_write: Usd | None = Field(None, description="input written to that cache; default: as input")
    reasoning: Usd | None = Field(None, description="output tokens spent on reasoning; default: as output")


class Tier(Rates):
    """Rates of a whole call whose input is over `above_tokens`, as providers charge for long contexts."""

    above_tokens: int = Field(gt=0)


class Prices(Rates):
    """What a backend charges from a day on. `version` stands on every ledger entry: change it with the figures."""

    version: str = "1"
    effective_from: date | None = Field(None, description="first day, UTC; none: from the beginning")
    tiers: tuple[Tier, ...] = ()


class Quirks(Strict):
    """How an endpoint differs from its dialect. What is not given is as the backend's flavour has it."""

    path: str | None = Field(None, description="after base_url; {model} stands for the provider's name of the model")
    query: dict[str, str] | None = None
    headers: dict[str, str] | None = Field(None, description="sent with every call; never a secret")
    key_header: str | None = Field(None, description="header that carries the key, bare; empty: as Authorization: Bearer")
    max_tokens_field: str | None = None
    stream_usage: bool | None = Field(None, description="whether it takes stream_options.include_usage")
    drop: tuple[str, ...] | None = Field(None, description="request parameters it refuses: they are left out")


class Model(Strict):
    """A model that may be chosen, whoever serves it."""

    quality: float = Field(ge=0, le=1, description="prior of how often its answers are right, in [0, 1]")
    context_tokens: int = Field(gt=0, description="input and output together")
    output_tokens_max: int = Field(4096, gt=0)
    capabilities: tuple[str, ...] = ()
    on_context_length: tuple[Name, ...] = Field((), description="models to ask, in order, when the context is too small")
    on_content_filtered: tuple[Name, ...] = Field((), description="models to ask, in order, when a content filter refuses")

    @model_validator(mode="after")
    def _capabilities_known(self) -> "Model":
        unknown = [name for name in self.capabilities if name not in CAPABILITIES]
        if unknown:
            raise ValueError(f"capabilities: unknown {', '.join(unknown)}; known: {', '.join(CAPABILITIES)}")
        return self


class Backend(Strict):
    """One callable provider, model and endpoint: the unit of windows and circuits."""

    model: Name = Field(description="the catalogue model it serves")
    provider: str
    dialect: Literal["openai", "anthropic", "gemini"] = "openai"
    flavour: str = Field("", description="a known provider's way with its dialect: azure, vllm, ollama …; default: plain")
    quirks: Quirks | None = None
    base_url: str = Field(pattern=r"^(https?://|env:)", description="up to and including /v1, or env:NAME that holds it")
    key: SecretReference | None = None
    model_name: str = Field("", description="the provider's name of the model; default: the catalogue name")
    prices: Prices
    price_changes: tuple[Prices, ...] = Field((), description="later prices, each with the day from which it holds")
    timeout_ms: int = Field(60_000, gt=0, description="longest one call may take")
    stream: Literal["auto", "always", "never"] = Field(
        "auto", description="whether calls are streamed upstream, so that silence is noticed; auto: long answers are"
    )
    first_token_ms: int = Field(10_000, gt=0, description="patience with a stream that has not begun")
    stall_ms: int = Field(10_000, gt=0, description="patience with a stream that has fallen silent")
    weight: float = Field(1.0, gt=0)
    region: str = Field("", description="where it runs; a policy may prefer one")
    rpm: int | None = Field(None, gt=0, description="requests per minute of the whole fleet; default: what the provider says")
    tpm: int | None = Field(None, gt=0, description="tokens per minute of the whole fleet, input and output")
    concurrency_max: int = Field(256, gt=0, description="calls in flight per replica, at the most; fewer when it slows down")
    requires: str | None = Field(None, description="an environment name that must be set for the backend to be offered")

    @model_validator(mode="after")
    def _flavour_known(self) -> "Backend":
        if self.flavour not in FLAVOURS:
            raise ValueError(f"flavour: unknown {self.flavour!r}; known: {', '.join(FLAVOURS[1:])}, or leave it out")
        if self.flavour and self.dialect != "openai":
            raise ValueError(f"flavour: {self.flavour} is a way of the openai dialect; leave it out, or use that dialect")
        return self

    @model_validator(mode="after")
    def _changes_have_days(self) -> "Backend":
        days = [change.effective_from for change in self.price_changes]
        if None in days:
            raise ValueError("price_changes: each needs effective_from, the first day it holds")
        if days != sorted(set(days), key=str):
            raise ValueError("price_changes: effective_from must rise from one to the next")
        return self


class Tenant(Strict):
    """Who may ask. Keys are references; the tenant of a request over HTTP follows from its key alone."""

    keys: tuple[SecretReference, ...] = ()
    open: bool = Field(False, description="whether HTTP requests without a key belong to this tenant (development only)")
    policy: Name = "default"
    models: tuple[Name, ...] = Field((), description="models it may use; empty: all")
    max_cost_usd: Decimal | None = Field(None, gt=0, description="default and ceiling of a request's max_cost_usd")
    budget_usd_per_day: Decimal | None = Field(None, gt=0, description="what its calls may cost in a day, UTC; none: no limit")
    budget_usd_per_month: Decimal | None = Field(None, gt=0, description="the same, of a calendar month")

    @model_validator(mode="after")
    def _day_fits_month(self) -> "Tenant":
        day, month = self.budget_usd_per_day, self.budget_usd_per_month
        if day is not None and month is not None and day > month:
            raise ValueError("budget_usd_per_day: above budget_usd_per_month; lower it, or raise the month's")
        return self


BUDGET_USD_MIN = Decimal("0.000001")


def _has_countable_budgets(tenant: Tenant) -> Tenant:
    for field in ("budget_usd_per_day", "budget_usd_per_month"):
        usd = getattr(tenant, field)
        if usd is not None and usd < BUDGET_USD_MIN:
            raise ValueError(f"{field}: below {BUDGET_USD_MIN:f} USD, and spending is counted in no smaller parts; raise it")
    return tenant


# Asked of a file only: a service that refused a tenant's record would not know of its budget, and let it spend without one.
FileTenant = Annotated[Tenant, AfterValidator(_has_countable_budgets)]

CHECKS_DEFAULT = tuple(CheckSpec(check=name) for name in ("not_empty", "not_truncated", "not_refused", "matches_schema"))


class CascadeRule(Strict):
    """A cheap model is asked first, and a dearer one where its answer is expected to gain more than it costs."""

    threshold: float | None = Field(
        None, ge=0, le=1, description="the simple form: ask on below this confidence; default: by the expected gain"
    )
    depth_max: int = Field(3, ge=2, le=3, description="most models asked for one request; escalations_max does not count them")


class ShadowRule(Strict):
    """Another model is asked the same once a request has been answered; nobody gets its answer, its model is learned about."""

    model: Name
    share: Share = Field(description="of all requests, by a hash of the request's id")
    max_cost_usd: Decimal = Field(
        Decimal("0.25"), gt=0, description="the most that one may cost, all tokens counted that it may write"
    )
    spend_share: float = Field(
        0.1, gt=0, le=1, description="the most that shadows may be of what the tenant spends in a day, UTC, all calls together"
    )


class Policy(Strict):
    """How requests are decided and judged."""

    deadline_ms: int = Field(60_000, gt=0, description="of a request that names none")
    deadline_ms_max: int = Field(3_600_000, gt=0)
    attempts_max: int = Field(3, ge=1, le=10, description="calls per plan, fail-over included")
    attempt_timeout_ms: int = Field(60_000, gt=0)
    candidates_max: int = Field(3, ge=1, le=10)
    escalations_max: int = Field(1, ge=0, le=5)
    quality_min: float = Field(0.0, ge=0, le=1, description="of a task of complexity 0")
    quality_min_hard: float = Field(0.85, ge=0, le=1, description="of a task of complexity 1; between them linear")
    hedge: bool = Field(True, description="whether a slow interactive call may be made a second time elsewhere")
    region: str = Field("", description="backends of this region are preferred")
    checks: tuple[CheckSpec, ...] = CHECKS_DEFAULT
    scoring: Sampling = Field(Sampling(share=0.01), description="answers whose scores are computed and stand on the verdict")
    review: ReviewRule | None = Field(None, description="which answers wait for a person; default: none")
    judge: JudgeRule | None = Field(None, description="which answers a model judges; default: none")
    prompt_bytes_max: int = Field(900_000, gt=0)
    require_certified: bool | tuple[str, ...] = Field(
        False, description="whether only models that `baton certify` has tested may be asked; or for which capabilities"
    )
    pipeline: Name | None = Field(None, description="pipeline of requests that name none; default: one call")
    choose: Literal["quality_min", "utility", "lexicographic"] = Field(
        "quality_min",
        description="cheapest with quality_min, best of quality less cost, lateness and failures, or cheapest near the best",
    )
    quality_within: float = Field(0.03, ge=0, le=1, description="lexicographic: how far below the best is near")
    answer_worth_usd: Decimal = Field(
        Decimal("0.01"), gt=0, description="utility and cascade: what a perfect answer is worth over none"
    )
    cascade: CascadeRule | None = Field(
        None, description="begin with a cheap model where a dearer one after it pays; {}: by the expected gain; none: never"
    )
    explore: float = Field(
        0.0,
        ge=0,
        le=0.2,
        description="share of requests that try a little-known model, no interactive one; four times it with money to spare",
    )
    deny: tuple[Name, ...] = Field((), description="models that are never asked")
    split: dict[Name, float] = Field(default_factory=dict, description="A/B: model to weight; a session stays with its arm")
    shadow: ShadowRule | None = Field(None, description="which model is asked beside, without being heard; default: none")

    @model_validator(mode="after")
    def _can_be_certified(self) -> "Policy":
        asked = self.require_certified if isinstance(self.require_certified, tuple) else ()
        if unknown := [name for name in asked if name not in CERTIFIABLE]:
            raise ValueError(f"require_certified: unknown {', '.join(unknown)}; known: {', '.join(CERTIFIABLE)}, or true for all")
        return self


class ConfigFile(Strict):
    """A whole `baton.yaml`."""

    models: dict[Name, Model]
    backends: dict[Name, Backend]
    tenants: dict[Name, FileTenant]
    policies: dict[Name, Policy] = Field(default_factory=lambda: {"default": Policy()})
    pipelines: dict[Name, Node] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _references_exist(self) -> "ConfigFile":
        problems = [
            f"backends.{name}.model: no model {backend.model!r}; define it under models"
            for name, backend in self.backends.items()
            if backend.model not in self.models
        ]
        for name, model in self.models.items():
            for field in ("on_context_length", "on_content_filtered"):
                problems += [f"models.{name}.{field}: no model {other!r}" for other in getattr(model, field)
                             if other not in self.models]
        for name, tenant in self.tenants.items():
            if tenant.policy not in self.policies:
                problems.append(f"tenants.{name}.policy: no policy {tenant.policy!r}; define it under policies")
            problems += [
                f"tenants.{name}.models: no model {model!r}" for model in tenant.models if model not in self.models
            ]
        problems += [
            f"policies.{name}.pipeline: no pipeline {policy.pipeline!r}; define it under pipelines"
            for name, policy in self.policies.items() if policy.pipeline not in {None, *self.pipelines}
        ]
        problems += [
            f"policies.{name}.judge.models: no model {model!r}; define it under models"
            for name, policy in self.policies.items() if policy.judge for model in policy.judge.models if model not in self.models
        ]
        problems += [
            f"policies.{name}.shadow.model: no model {policy.shadow.model!r}; define it under models"
            for name, policy in self.policies.items() if policy.shadow and policy.shadow.model not in self.models
        ]
        if "default" not in self.policies:
            problems.append("policies.default: missing; every tenant falls back to it")
        if problems:
            raise ValueError("; ".join(problems))
        return self


class ConfigRecord(Fact):
    """One object on the `config` topic, keyed `kind/name`. A record of kind `version` closes an apply: readers swap then."""

    kind: Literal["model", "backend", "tenant", "policy", "pipeline", "certificate", "version"]
    name: str
    version: int = Field(description="epoch milliseconds of the apply that wrote it")
    spec: dict[str, Any] = Field(default_factory=dict)
