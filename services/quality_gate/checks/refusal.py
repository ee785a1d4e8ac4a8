"""Recognises that a model refuses, or says that it cannot answer, in twelve languages. Pure, linear.

A refusal is the speaker's own, about the request, in the first sentences of a short text, or a conclusion in its last words.
What is quoted, told of others, written in a letter, or followed by an answer all the same is none.
"""

import re

from schemas.checks import CheckSpec
from services.quality_gate.checks.refusal_grammar import BY_WORDS, WITHOUT_SPACES
from services.quality_gate.subject import Subject, words_of

SHORT_CHARS_MAX = 900
"""A refusal is short. A longer text is one only by its very first sentences, and where it then explains instead of listing."""
CHARS_MAX = 4_000
HEAD_CHARS = 400
SENTENCES_MAX, SENTENCES_MAX_OF_LONG = 4, 2
SENTENCE_CHARS_MAX = 300
TAIL_CHARS = 300
SIGNATURE_CHARS_MAX = 120

_SENTENCE_END = re.compile(r"(?<=[.!?。！？…])[\s*_]+|(?<=[。！？])|\n+")
_QUOTED = re.compile(
    r"\"[^\"\n]{1,300}\"|“[^”\n]{1,300}”|„[^“”\n]{1,300}[“”]|«[^»\n]{1,300}»|「[^」\n]{1,300}」|\"[^\"\n]{1,300}$"
)
_CODE = re.compile(r"```|~~~|^\s*[{\[]")
_LIST = re.compile(r"(?m)^[ \t]*(?:\d{1,2}[.)]|[-*•])[ \t]")

_SALUTATION = re.compile(
    r"^\W*(?:(?:re|subject|betreff|objet|asunto|oggetto|assunto|onderwerp|temat)\s?:|(?:dear|dearest) (?!user|customer)\w|"
    r"(?:hi|hello|hey) (?!there\b)[\w ]{1,30},?\n|(?:sehr geehrte|liebe[rs]?|chère?s?|querid[oa]s?|estimad[oa]s?|car[oaie]|"
    r"gentile|egregi[oa]|prezad[oa]s?|"
    r"beste|geachte|drog[ia]|szanown[yia]|дорог(?:ой|ая|ие)|уважаем(?:ый|ая|ые)) \w)"
)
_SIGNATURE = re.compile(
    r"\n\W*(?:(?:best|kind|warm)(?:est)? (?:wishes|regards)|regards|thanks|thank you|sincerely|cheers|yours(?: \w+)?|love|"
    r"all the best|liebe grüße|"
    r"(?:viele|beste|herzliche) grüße|mit freundlichen grüßen|cordialement|bien à vous|bises|saludos|atentamente|un abrazo|"
    r"cordiali saluti|"
    r"un abbraccio|atenciosamente|abraços?|groeten|groetjes|met vriendelijke groet|pozdrawiam|с уважением),?\s*\n?[^\n]{0,40}\W*$"
)
_NARRATED = re.compile(
    r"(?:^|,|\.)\W*(?:he|she|they|it|\w+)? ?(?:thought|said|murmured|whispered|replied|answered|cried|shouted|muttered|sagte|"
    r"dachte|dit|dijo|disse|zei|powiedział\w*) ?"
    r"(?:he|she|they|\w+)?\b"
)
_SPEAKER = re.compile(
    r"\b(?:i|i'm|i'd|i'll|me|my|let's|sorry|ich|mir|mich|je|j'ai|moi|désolée?|yo|siento|disculp\w+|perdón|io|mi|spiace|eu|"
    r"desculp\w+|lamento|ik|mij|spijt|"
    r"przykro|przepraszam|я|мне|извините|простите)\b"
)
_CONCEDING = re.compile(
    r"^\W*(?:while|although|though|even if|even though|whilst|obwohl|"
    r"auch wenn|bien que|aunque|sebbene|anche se|embora|hoewel)\b[^,]*$"
)
_OFFER = (
    r"(?:(?:instead|perhaps|maybe|here|there|that|if|let|please|feel|you|we|would|happy|it's important|i'm|i'd|i'll|ich|gern|"
    r"bitte|je|j'|vous|puedo|"
    r"posso|estou|ik|graag|mogę|chętnie|могу)\b|i\b(?! (?:think|believe|know|guess|would guess|suspect)))"
)
_ANSWERED = re.compile(
    r"(?:,|;|\s[-–—])\s?(?:but|yet|still|however|though|nevertheless|aber|doch|jedoch|allerdings|mais|pero|sin embargo|ma|"
    r"però|mas|porém|maar|"
    rf"echter|ale|jednak|но|однако)\b,? (?!{_OFFER})\w+ \w+|"
    r"(?:,|;|:|\s[-–—])\s?(?:so )?(?:here(?:'s| is| are)\b|this is how\b|in general\b)(?! (?:some|other|another))"
)
"""After a denial: what is said all the same, and is no offer of something else."""

_CONCLUSION = re.compile(
    r"(?:^|[.!?;,]\s+|\n\s*)(?:therefore|thus|so|hence|consequently|as a result)?,? ?(?:i|we) (?:can(?:not|'t| not)|(?:am|'m|"
    r"are|'re) (?:not able|unable) to|"
    r"won't(?: be able to)?|will not be able to) (?:be )?"
    r"(?:provide|give|determine|answer|solve|complete|offer|select)\b[^.!?\n]{0,60}\b(?:answers?|solutions?|questions?|"
    r"problem)\b|"
    r"\bit(?: is|'s) (?:impossible|not possible) to (?:\w+ly )?(?:determine|answer|calculate|solve)\b|"
    r"\b(?:the|this) (?:answer|question|problem) (?:cannot|can't|can not) be (?:\w+ly )?"
    r"(?:determined|answered|calculated|solved)\b"
)
"""That the question cannot be answered, as a conclusion: it may follow a page of reasoning, so the end is searched."""

_CONCLUSION_HINTS = ("i c", "e c", "unable", "possible to", "can't be", "n cannot", "r cannot", "m cannot")


def refused(subject: Subject, spec: CheckSpec) -> str | None:
    if subject.answer.finish == "content_filter":
        return "the provider filtered the answer"
    if subject.answer.tool_calls:
        return None
    if len(subject.text) <= CHARS_MAX and _begins_with_refusal(subject):
        return "reads as a refusal"
    tail = subject.text[-TAIL_CHARS:].lower().replace("’", "'")
    if any(hint in tail for hint in _CONCLUSION_HINTS) and _CONCLUSION.search(tail):
        return "says that it cannot answer"
    return None


def _begins_with_refusal(subject: Subject) -> bool:
    head = subject.text[:HEAD_CHARS].lower().replace("’", "'")
    is_short = len(subject.text) <= SHORT_CHARS_MAX
    sentences = _SENTENCE_END.split(_QUOTED.sub(" … ", head))[: SENTENCES_MAX if is_short else SENTENCES_MAX_OF_LONG]
    refuses = any(_refuses(sentence[:SENTENCE_CHARS_MAX]) for sentence in sentences)
    return refuses and not _is_material(subject.text, head, is_short)


def _is_material(text: str, head: str, is_short: bool) -> bool:
    """Code, a letter, or a list that follows: written for the one who asked."""
    if _CODE.search(text) or _SALUTATION.match(head) or _is_signed(text):
        return True
    return not is_short and bool(_LIST.search(text))


def _is_signed(text: str) -> bool:
    """Looks at the last lines without the space between them: the pattern would try each way to share that out."""
    lines = filter(None, map(str.strip, text.lower().split("\n")))
    return _SIGNATURE.search("\n".join(lines)[-SIGNATURE_CHARS_MAX:]) is not None


def _refuses(sentence: str) -> bool:
    words = words_of(sentence)
    grammars = [grammar for grammar in BY_WORDS if not grammar.words.isdisjoint(words)]
    if (not grammars and sentence.isascii()) or sentence.endswith("?") or _NARRATED.search(sentence):
        return False
    if not sentence.isascii() and WITHOUT_SPACES.search(sentence):
        return True
    found = next((found for grammar in grammars if (found := grammar.pattern.search(sentence))), None)
    return found is not None and _is_own(sentence[: found.start()]) and not _ANSWERED.search(sentence, found.end())


def _is_own(before: str) -> bool:
    """Not told of somebody else ("The knight answers the queen: I will not"), and not conceded ("While I cannot see it, …")."""
    told, colon, _ = before.rpartition(":")
    is_told = bool(colon) and len(told.split()) > 2 and not _SPEAKER.search(told)
    return not is_told and not _CONCEDING.match(before)
