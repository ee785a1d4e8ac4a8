"""What the quality gate may be asked to check of an answer, and with which settings: a policy's `checks`, or a step's.

A check is a name, `not_empty`, or a mapping with its settings, `{check: length, words_max: 200}`. A name that no release
knows yet is allowed, so that a config may be ahead of a roll-out; the settings of a known check are held to what it reads.
"""

from decimal import Decimal
from typing import Annotated, Any, Literal

import jsonschema_rs
from pydantic import Field, GetJsonSchemaHandler, SerializerFunctionWrapHandler, model_serializer, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from schemas.strict import Name, Strict

LEAK_KINDS = ("system_prompt", "keys", "cards", "ibans", "ssns", "emails", "phones")
UNSAFE_KINDS = ("weapons", "self_harm", "malware", "active_content", "phrases")
LANGUAGES = ("en", "de", "es", "fr", "it", "pt", "nl", "pl", "ru", "ja", "zh", "ko", "ar", "hi", "el", "he", "th")
SCORES = ("relevance", "coherence", "factuality")

LINEAR = jsonschema_rs.RegexOptions(size_limit=262_144)
"""Patterns in the syntax of RE2: no look-around and no back-references, so no text makes one slow."""

SETTINGS: dict[str, frozenset[str]] = {
    "not_empty": frozenset(),
    "not_truncated": frozenset(),
    "not_refused": frozenset(),
    "matches_schema": frozenset({"repair"}),
    "format": frozenset({"regex", "choices", "number", "min", "max"}),
    "length": frozenset({"chars_min", "chars_max", "words_min", "words_max"}),
    "ends_whole": frozenset(),
    "in_language": frozenset({"language"}),
    "not_repetitive": frozenset(),
    "no_leak": frozenset({"canaries", "kinds"}),
    "safe_content": frozenset({"kinds", "phrases"}),
    "code_parses": frozenset(),
    "arithmetic_adds_up": frozenset(),
    "citations_exist": frozenset(),
} | {score: frozenset({"min"}) for score in SCORES}
"""The checks of this release and what each may be told."""

Share = Annotated[float, Field(ge=0, le=1)]


class Sampling(Strict):
    """Which share of all answers is looked at more closely. A model that answers seldom needs a larger share to be seen."""

    share: Share = Field(0.0, description="of every model that is not named")
    models: dict[Name, Share] = Field(default_factory=dict, description="by model: rare ones more, busy ones less")


class ReviewRule(Strict):
    """Which answers wait for a person. One is parked when any of the first three says so."""

    failed_checks: bool | tuple[Name, ...] = Field(
        False, description="whether an answer that fails a check, and would not be delivered, waits; or which checks it must fail"
    )
    score_below: dict[Literal["relevance", "coherence", "factuality"], Share] = Field(
        default_factory=dict, description="by score: an answer with less waits; what is unknown does not"
    )
    share: Share = Field(0.0, description="of all answers, by a hash of the request's id")
    deadline_ms: int = Field(600_000, gt=0, description="from the answer until the default applies; never past the request's own")
    default: Literal["accept", "reject"] = Field("reject", description="what applies when nobody decided in time")

    @model_validator(mode="after")
    def _parks_something(self) -> "ReviewRule":
        if not (self.failed_checks or self.score_below or self.share):
            raise ValueError("failed_checks: nothing would be reviewed; set failed_checks, score_below or share")
        return self


class JudgeRule(Strict):
    """Which delivered answers a model judges, afterwards and beside the user's way; its grades are learned from."""

    share: Share = Field(description="of all delivered answers, by a hash of the request's id")
    models: Annotated[tuple[Name, ...], Field(min_length=1)] = Field(
        description="who may judge, first choice first; never a model that tried the request itself"
    )
    rubric: Annotated[tuple[Literal["relevance", "coherence", "factuality", "completeness"], ...], Field(min_length=1)] = Field(
        ("relevance", "completeness"), description="what is graded; factuality needs a context in the prompt"
    )
    max_cost_usd: Decimal = Field(Decimal("0.05"), gt=0, description="the most that one judgement may cost")
    calibration: dict[Name, Annotated[tuple[tuple[Share, Share], ...], Field(min_length=1)]] = Field(
        default_factory=dict,
        description="by judge: its mean grade in [0, 1], and the share of such answers that people called good; both rising. "
        "`make judge MODEL=name` measures it, for one rubric; a judge without one is believed as it says",
    )

    @model_validator(mode="after")
    def _rising(self) -> "JudgeRule":
        for model, pairs in self.calibration.items():
            if model not in self.models:
                raise ValueError(f"calibration: {model} is not among models, so it never judges; remove it or add it there")
            grades, shares = zip(*pairs, strict=True)
            if list(grades) != sorted(set(grades)) or list(shares) != sorted(shares):
                raise ValueError(f"calibration: {model}: grades must rise, and shares must not fall with them")
        return self


Count = Annotated[int | None, Field(ge=0)]


class CheckSpec(Strict):
    """One check with its settings; what is not set is the check's own default."""

    check: Name = Field(description="the check's name")
    regex: str | None = Field(None, description="format: the whole answer matches it; RE2 syntax, linear in time")
    choices: tuple[str, ...] = Field((), description="format: the answer is one of these; case and a final stop do not count")
    number: bool = Field(False, description="format: the answer is one number; min and max imply it")
    min: float | None = Field(None, description="format: smallest number; a score: the least that passes, in [0, 1]")
    max: float | None = Field(None, description="format: largest number")
    chars_min: Count = Field(None, description="length: fewest characters")
    chars_max: Count = Field(None, description="length: most characters")
    words_min: Count = Field(None, description="length: fewest words")
    words_max: Count = Field(None, description="length: most words")
    language: str | None = Field(None, description="in_language: a code such as de; default: the language of the question")
    canaries: tuple[str, ...] = Field((), description="no_leak: markers that stand in prompts and never in answers")
    kinds: tuple[str, ...] = Field((), description="no_leak, safe_content: only these kinds; default: all")
    phrases: tuple[str, ...] = Field((), description="safe_content: phrases that must not stand in an answer")
    repair: bool = Field(True, description="matches_schema: whether JSON with slips of form is mended before it is judged")

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"check": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _makes_sense(self) -> "CheckSpec":
        known = SETTINGS.get(self.check)
        if known is not None:
            if foreign := sorted(self._settings_given() - known):
                reads = ", ".join(sorted(known)) or "no settings"
                raise ValueError(f"{foreign[0]}: {self.check} does not read it; it reads {reads}")
            _check_settings(self)
        return self

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> Any:
        return handler(self) if self._settings_given() else self.check

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        mapping = handler.resolve_ref_schema(handler(core)).copy()
        return {"anyOf": [{"type": "string", "description": "the check's name"}, mapping]}

    def _settings_given(self) -> set[str]:
        return {
            name for name, field in type(self).model_fields.items() if name != "check" and getattr(self, name) != field.default
        }


def _check_settings(spec: CheckSpec) -> None:
    """Raises ValueError that starts with the setting that is wrong and ends with the fix; never quotes a canary."""
    for low, high in (("min", "max"), ("chars_min", "chars_max"), ("words_min", "words_max")):
        least, most = getattr(spec, low), getattr(spec, high)
        if least is not None and most is not None and least > most:
            raise ValueError(f"{low}: is above {high}; nothing could pass")
    if spec.check in SCORES and (spec.min is None or not 0 <= spec.min <= 1):
        raise ValueError("min: give the least score that passes, between 0 and 1")
    if spec.check == "format":
        _check_format(spec)
    if spec.check == "length" and not spec._settings_given():
        raise ValueError("check: length needs chars_min, chars_max, words_min or words_max")
    if spec.check == "in_language" and spec.language is not None and spec.language not in LANGUAGES:
        raise ValueError(f"language: not one that can be told apart; known: {', '.join(LANGUAGES)}")
    if any(len(canary) < 6 for canary in spec.canaries):
        raise ValueError("canaries: each needs 6 characters or more, or answers would hold it by chance")
    if any(not phrase.strip() for phrase in spec.phrases):
        raise ValueError("phrases: an empty one stands in every answer; remove it")
    known = LEAK_KINDS if spec.check == "no_leak" else UNSAFE_KINDS
    if strange := [kind for kind in spec.kinds if kind not in known]:
        raise ValueError(f"kinds: unknown {strange[0]!r}; known: {', '.join(known)}")


def _check_format(spec: CheckSpec) -> None:
    numeric = spec.number or spec.min is not None or spec.max is not None
    if (spec.regex is not None) + bool(spec.choices) + numeric != 1:
        raise ValueError("check: format needs exactly one of regex, choices, or number with min and max")
    if spec.regex is not None:
        whole_match(spec.regex)


def whole_match(regex: str) -> jsonschema_rs.Validator:
    """What tells whether a whole text matches. Raises ValueError for a pattern outside RE2's syntax, or too large a one."""
    try:
        return jsonschema_rs.validator_for({"type": "string", "pattern": f"^(?:{regex})$"}, pattern_options=LINEAR)
    except (jsonschema_rs.ValidationError, ValueError):
        raise ValueError("regex: not in RE2 syntax (no look-around, no back-references), or too large") from None
