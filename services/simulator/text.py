"""Turns a call into an answer: a small deterministic text engine, never a table of canned replies.

Pure: the same model, messages and seed give the same answer in every process, whatever the simulator's own seed.
The model's quality decides, by a seeded draw, whether the answer is right or degraded in one of several ways.
"""

import re
from dataclasses import replace

import orjson

from services.simulator.arithmetic import spell
from services.simulator.call import Answer, Call, Tool, count_tokens, first_tokens
from services.simulator.decide import is_right
from services.simulator.draws import draw, pick, seed_of
from services.simulator.facts import Facts
from services.simulator.faults import FaultKind
from services.simulator.languages import NEGATIVE, POSITIVE, Language, other_than, salient, words_of
from services.simulator.pictures import colour_asked
from services.simulator.text_code import asks_for_code, code
from services.simulator.text_json import conforming, required_of
from services.simulator.text_logic import extreme_asked

_SUMMARY = re.compile(r"\b(?:summari[sz]e|summary|tl;dr|zusammenfass\w*|fasse|resume|resumen|résume[zr]?|résumé)\b")
_EXTRACT = re.compile(r"\b(?:extract|extrahiere|extrae|extrais)\b|\bas json\b|\bals json\b|\bjson\b")
_OPTIONS = re.compile(
    r"(?:one of|either|classify\b[^.:\n]{0,60}?\bas|klassifiziere\b[^.:\n]{0,60}?\bals)\s*:?\s*([^.\n?]{3,120})"
)
_OPTION_SPLIT = re.compile(r"\s*(?:,|/|\||\bor\b|\band\b|\boder\b|\bund\b)\s*")
_LENGTH = re.compile(r"\b(\d{1,4}) (words|sentences|wörter|wörtern|sätze|sätzen|palabras|frases|mots|phrases)\b")
_SENTENCE_WORDS = frozenset({"sentences", "sätze", "sätzen", "frases", "phrases"})
_WORDS_PER_SENTENCE = 14
_WORDS_MAX = 4000
_OFF_TOPIC = ("weather", "garden", "music", "breakfast", "furniture", "holidays")
_TOOL_RESULT_CHARS = 400


def answer(call: Call) -> Answer:
    """What the model says, max_tokens honoured."""
    prompt_seed = seed_of(call.prefix, call.prompt, call.seed)
    seed = seed_of(call.model.name, prompt_seed)
    facts = Facts(call.prompt)
    right = is_right(call.model.quality, prompt_seed, seed)
    tool = _wanted_tool(call, facts)
    if tool is not None:
        said = _tool_call(tool, facts, prompt_seed, right)
    elif call.wants_json:
        said = _json_answer(call, facts, prompt_seed, seed, right)
    else:
        said = _prose(call, facts, prompt_seed, seed, right)
    if call.logprobs is not None:
        said = replace(said, certainty=_certainty(seed, right))
    return within_limit(stopped(_with_reasoning(call, said, seed), call.stop), call.max_tokens)


def spoiled(said: Answer, call: Call, kind: FaultKind) -> Answer:
    """The answer as a fault of the control plane leaves it; faults of other kinds leave it alone."""
    if kind is FaultKind.EMPTY:
        return replace(said, text="", tool_name="", finish="stop", reasoning_tokens=0)
    if kind is FaultKind.TRUNCATE:
        return replace(said, text=said.text[: len(said.text) // 2], finish="length")
    if kind is FaultKind.REFUSE:
        return replace(said, text=Facts(call.prompt).language.refusal, tool_name="", finish="stop")
    if kind is FaultKind.WRONG_JSON:
        return replace(said, text=said.text[: max(1, len(said.text) * 2 // 3)] if call.wants_json else '{"answer": ')
    return said


def stopped(said: Answer, stops: tuple[str, ...]) -> Answer:
    """Cut before the first stop sequence; a tool's arguments are never cut."""
    if not stops or said.tool_name:
        return said
    found = [(at, stop) for stop in stops if (at := said.text.find(stop)) >= 0]
    if not found:
        return said
    at, stop = min(found)
    return replace(said, text=said.text[:at], finish="stop", stop_text=stop)


def within_limit(said: Answer, max_tokens: int | None) -> Answer:
    """Cut to max_tokens; reasoning may take at most half of them, so that something is left to say."""
    if max_tokens is None:
        return said
    reasoning = min(said.reasoning_tokens, max_tokens // 2)
    left = max_tokens - reasoning
    if count_tokens(said.tool_name + said.text) <= left:
        return replace(said, reasoning_tokens=reasoning) if reasoning != said.reasoning_tokens else said
    left -= count_tokens(said.tool_name)
    return replace(said, text=first_tokens(said.text, max(0, left)), finish="length", reasoning_tokens=reasoning, stop_text="")


def _certainty(seed: int, right: bool) -> float:
    """How sure the model sounds of its tokens: mostly, not always, surer when it is right."""
    return (0.80 if right else 0.60) + 0.18 * draw(seed, 31)


def _with_reasoning(call: Call, said: Answer, seed: int) -> Answer:
    if "reasoning" not in call.model.capabilities:
        return said
    return replace(said, reasoning_tokens=48 + int(160 * draw(seed, 30)) + min(512, call.tokens_in // 4))


# Tools


def _wanted_tool(call: Call, facts: Facts) -> Tool | None:
    """The forced tool, or the one whose name or description shares most words with the prompt."""
    if not call.tools or call.tool_choice == "none" or (call.role == "tool" and call.tool_choice == "auto"):
        return None
    said = {word.lower() for word in facts.words}
    scored = [(_overlap(tool, said, facts.language), -at) for at, tool in enumerate(call.tools)]
    score, at = max(scored)
    if call.tool_choice == "any":
        return call.tools[-at]
    if call.tool_choice == "named":
        return next((tool for tool in call.tools if tool.name == call.tool_named), None)
    return call.tools[-at] if score > 0 else None


def _overlap(tool: Tool, said: set[str], language: Language) -> int:
    name_words = {word for word in re.split(r"[_\W]+", tool.name.lower()) if word not in language.stop_words}
    described = {word.lower() for word in salient(tool.description.split(), language, most=40)}
    return 2 * len(name_words & said) + 2 * (tool.name.lower() in said) + len(described & said)


def _tool_call(tool: Tool, facts: Facts, prompt_seed: int, right: bool) -> Answer:
    arguments = conforming({"type": "object", **tool.parameters}, facts, prompt_seed)
    if not right:
        _break_object(arguments, tool.parameters, prompt_seed)
    return Answer(orjson.dumps(arguments).decode(), finish="tool_calls", tool_name=tool.name)


def _break_object(value: object, schema: object, seed: int) -> None:
    """Take away a required field (any field if none is required)."""
    if isinstance(value, dict) and value:
        required = [name for name in required_of(schema) if name in value] if isinstance(schema, dict) else []
        del value[pick(seed, 20, required or list(value))]


# JSON


def _json_answer(call: Call, facts: Facts, prompt_seed: int, seed: int, right: bool) -> Answer:
    value = conforming(call.schema, facts, prompt_seed) if call.schema else _found(facts, seed)
    if right:
        return Answer(orjson.dumps(value).decode())
    way = pick(seed, 2, ("missing", "missing", "broken", "refusal", "empty"))
    if way == "missing":
        _break_object(value, call.schema or {}, seed)
    text = orjson.dumps(value).decode()
    if way == "broken":
        text = text[: max(1, len(text) - 1 - len(text) // 5)]
    return Answer(facts.language.refusal if way == "refusal" else "" if way == "empty" else text)


def _found(facts: Facts, seed: int) -> dict[str, object]:
    """Without a schema: whatever the prompt holds, under plain names."""
    found: dict[str, object] = {
        name: values for name in ("names", "emails", "dates", "phones", "urls") if (values := getattr(facts, name))
    }
    if facts.numbers:
        found["numbers"] = [int(value) if value.is_integer() else value for value in facts.numbers]
    if facts.computed:
        found["result"] = facts.computed[1]
    return found or {"answer": _sentences(facts, facts.language, seed, 2)}


# Prose


def _prose(call: Call, facts: Facts, prompt_seed: int, seed: int, right: bool) -> Answer:
    if not right:
        return _degraded(call, facts, prompt_seed, seed)
    text = _right_prose(call, facts, prompt_seed, seed)
    return Answer(f"{text}\n\n{call.model.afterword}" if call.model.afterword else text)


def _right_prose(call: Call, facts: Facts, prompt_seed: int, seed: int) -> str:
    lowered = call.prompt.lower()
    asked = f"{call.system[:500].lower()}\n{lowered}"
    if call.role == "tool":
        return call.prompt.strip()[:_TOOL_RESULT_CHARS]
    if (seen := _seen(call, lowered)) is not None:
        return seen
    if facts.computed is not None:
        return f"{facts.computed[0]} = {spell(facts.computed[1])}"
    if asks_for_code(lowered[:2000]):
        return code(facts, right=True)
    if (extreme := extreme_asked(facts.source)) is not None:
        return extreme
    if _SUMMARY.search(asked):
        return _summary(facts, lowered)
    if options := _options(asked):
        return _label(options, lowered, prompt_seed)
    if _EXTRACT.search(asked):
        return orjson.dumps(_found(facts, seed)).decode()
    return _from_context(facts) or _sentences(facts, facts.language, seed, _sentence_count(lowered, seed))


def _seen(call: Call, lowered: str) -> str | None:
    """What a model with eyes says of the last picture, where it is asked for a colour."""
    images = call.turns[-1].images if call.turns else ()
    return colour_asked(lowered[:2000], images[-1]) if images and "vision" in call.model.capabilities else None


def _degraded(call: Call, facts: Facts, prompt_seed: int, seed: int) -> Answer:
    """A wrong number where there is one to get wrong, else one of the ways weak models fail."""
    if facts.computed is not None and draw(seed, 2) < 0.8:
        written, value = facts.computed
        return Answer(f"{written} = {spell(value + 1 + int(9 * draw(seed, 3)))}")
    if asks_for_code(call.prompt.lower()[:2000]) and draw(seed, 2) < 0.6:
        return Answer(code(facts, right=False))
    count = _sentence_count(call.prompt.lower(), seed)
    way = draw(seed, 4)
    if way < 0.35:
        return Answer(_sentences(replace(facts, text=" ".join(_OFF_TOPIC)), facts.language, seed, count))
    if way < 0.50:
        return Answer(" ".join([_sentences(facts, facts.language, seed, 1)] * 5))
    if way < 0.65:
        text = _right_prose(call, facts, prompt_seed, seed)
        return Answer(text[: len(text) * 3 // 5], finish="length")
    if way < 0.80:
        return Answer(facts.language.refusal)
    if way < 0.95:
        return Answer(_sentences(facts, other_than(facts.language), seed, count))
    return Answer("")


def _sentence_count(lowered: str, seed: int) -> int:
    asked = _LENGTH.search(lowered)
    if asked is None:
        return 3 + int(3 * draw(seed, 5))
    words = int(asked[1]) * (_WORDS_PER_SENTENCE if asked[2] in _SENTENCE_WORDS else 1)
    return max(1, round(min(words, _WORDS_MAX) / _WORDS_PER_SENTENCE))


def _sentences(facts: Facts, language: Language, seed: int, count: int) -> str:
    """Template sentences around the prompt's salient words, the first about the first word."""
    words = facts.salient if len(facts.salient) > 2 else [*facts.salient, *language.fillers]
    turn = int(draw(seed, 6) * len(language.templates))
    made = []
    for at in range(count):
        a, b, c = (words[(at * step + shift) % len(words)] for step, shift in ((0, 0), (1, 1), (1, 2)))
        template = language.templates[0 if at == 0 else 1 + (turn + at) % (len(language.templates) - 1)]
        made.append(template.format(a=a, b=b, c=c, C=c.capitalize()))
    return " ".join(made)


def _summary(facts: Facts, lowered: str) -> str:
    """The leading sentences of what follows the instruction."""
    head, colon, tail = facts.source.partition(":")
    body = Facts(tail) if colon and len(head) < 200 and len(tail) > 40 else facts
    sentences = [s for s in body.sentences if not (body is facts and _SUMMARY.search(s.lower()))] or body.sentences
    asked = _LENGTH.search(lowered)
    count = int(asked[1]) if asked and asked[2] in _SENTENCE_WORDS else 2
    return " ".join(sentences[:count])


def _options(asked: str) -> list[str]:
    found = _OPTIONS.search(asked)
    options = [option.strip(" \"'`:;()") for option in _OPTION_SPLIT.split(found[1])] if found else []
    return [option for option in options if 0 < len(option) <= 40] if len(options) > 1 else []


def _label(options: list[str], lowered: str, prompt_seed: int) -> str:
    """By sentiment if that is the question, else the option the text mentions most, else any."""
    words = set(re.findall(r"\w+", lowered))
    if "positive" in options and "negative" in options:
        balance = len(words & POSITIVE) - len(words & NEGATIVE)
        neutral = "neutral" if "neutral" in options else "positive"
        return "positive" if balance > 0 else "negative" if balance < 0 else neutral
    counts = [lowered.count(option.rstrip("s")) for option in options]
    return options[counts.index(max(counts))] if max(counts) > min(counts) else pick(prompt_seed, 7, options)


def _from_context(facts: Facts) -> str | None:
    """The sentence of the given text that shares most words with the question, if there is a text and a question."""
    if "?" not in facts.source:
        return None
    questions = [s for s in facts.sentences if s.endswith("?")]
    told = [s for s in facts.sentences if not s.endswith("?") and len(s) > 20]
    if not questions or not told:
        return None
    asked = {word.lower() for word in salient(words_of(questions[-1]), facts.language, most=20)}
    overlap, at = max((len(asked.intersection(words_of(s.lower()))), -i) for i, s in enumerate(told))
    return told[-at].removeprefix("Context:").strip() if overlap >= max(1, min(2, len(asked))) else None
