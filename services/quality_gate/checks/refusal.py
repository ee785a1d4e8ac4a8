"""Recognises that a model refuses, or says that it cannot answer, in twelve languages. Pure, linear.

A refusal is the speaker's own, about the request, at the beginning of a short text or in its last words. Letters that
decline an invitation, quotations and grammar about "I cannot" are none: the verbs are those of serving a request.
"""

import re

from schemas.checks import CheckSpec
from services.quality_gate.checks.subject import Subject

CHARS_MAX = 900
"""A refusal is short; a longer text that begins with an apology usually goes on to answer."""
HEAD_CHARS = 300
TAIL_CHARS = 300

_HINTS = (
    "sorry", "apologi", "unfortunately", "i can", "we can", "i am ", "i'm ", "i won't", "i must", "as an ai", "do not have",
    "don't have", "appropriate for me", "policies", "policy", "guidelines", "leid", "ich ", "lo siento", "no puedo", "désolé",
    "je ne ", "dispiace", "non posso", "desculpe", "não posso", "lamento", "sinto muito", "spijt", "ik kan", "przykro", "nie mog",
    "извин", "не могу", "сожалению", "申し訳", "すみません", "抱歉", "对不起", "無法", "无法", "죄송",
)
"""One of these stands in every refusal below: looking for them first spares most answers the patterns."""

_START = r"(?:^[\s*_#>-]*|[.!?,]\s+|\n\s*)"
_SERVE = (
    "help|assist|provide|fulfil|fulfill|comply|answer|create|generate|continue|discuss|share|complete|write|open|browse|"
    "access|give|tell|support|engage|participate|produce|respond|carry out|determine"
)
_CANNOT = r"(?:can(?:not|'t| not)|(?:am|'m|are|'re) (?:not able|unable) to|won't(?: be able to)?|will not be able to)"
_I_CANNOT = rf"i ?{_CANNOT} (?:{_SERVE})\b"

_AT_HEAD = re.compile(
    "|".join(
        (
            rf"^[\s*_#>-]*(?:(?:hi|hello)[!,.] )?(?:i'm |i am |i |we )?(?:very |so |really |truly )?"
            rf"(?:sorry|apologi[sz]e|unfortunately)\b[^.!?\n]{{0,50}}?\b{_I_CANNOT}",
            rf"^[\s*_#>-]*{_I_CANNOT}(?! (?:but|say))",
            r"^[\s*_#>-]*(?:i'm |i am )?(?:sorry|i apologi[sz]e)\b[^.!?\n]{0,40}\bi (?:do not|don't) have "
            r"(?:enough|sufficient|access|the )",
            r"^\W*i must decline to\b",
            r"^\W*i(?: am|'m) not comfortable (?:helping|with|writing|providing|discussing)\b",
            r"^\W*as an ai\b[^.!?\n]{0,90}\bi (?:can(?:not|'t)|(?:am|'m) (?:unable|not able)|do not|don't)\b",
            r"\b(?:appropriate|ethical|right|responsible) for me to\b",
            r"\b(?:violates|goes against|is against|conflicts with) (?:our|my|the) (?:\w+ ){0,2}(?:polic(?:y|ies)|guidelines)\b",
            # German
            r"\b(?:tut mir leid|entschuldigung|leider)\b[^.!?\n]{0,60}\b(?:kann|darf|bin)\b[^.!?\n]{0,60}\b(?:nicht|keine)\b"
            r"[^.!?\n]{0,50}\b(?:helfen|beantworten|erfüllen|auskunft|lage|behilflich|unterstützen)",
            r"^\W*(?:ich kann|dabei kann ich|damit kann ich)\b[^.!?\n]{0,60}\bnicht\b[^.!?\n]{0,20}"
            r"\b(?:helfen|dienen|beantworten|erfüllen)",
            # Spanish, Portuguese, Italian, French
            r"^\W*(?:lo siento\b[^.!?\n]{0,30})?\bno puedo (?:ayudar|cumplir|responder|proporcionar|asistir|continuar)",
            r"^\W*(?:desculpe|sinto muito|lamento)\b[^.!?\n]{0,30}\bnão posso (?:ajudar|responder|fornecer|atender|cumprir)",
            r"^\W*não posso (?:ajudar|responder|fornecer|atender|cumprir)",
            r"^\W*(?:mi dispiace\b[^.!?\n]{0,30})?\bnon posso (?:aiutar|rispondere|fornire|soddisfare|assister)",
            r"^\W*(?:(?:je suis )?désolée?\b[^.!?\n]{0,30})?\bje ne (?:peux pas|suis pas en mesure de)\b[^.!?\n]{0,20}"
            r"\b(?:aider|répondre|fournir|satisfaire|traiter|accéder)",
            # Dutch, Polish, Russian
            r"^\W*(?:het spijt me|sorry)\b[^.!?\n]{0,50}\bniet (?:bij )?(?:helpen|beantwoorden|mee helpen)",
            r"^\W*ik kan\b[^.!?\n]{0,40}\bniet (?:helpen|beantwoorden)",
            r"^\W*(?:przykro mi|przepraszam)\b[^.!?\n]{0,30}\bnie mogę (?:pomóc|odpowiedzieć|udzielić|spełnić)",
            r"^\W*nie mogę (?:pomóc|odpowiedzieć|udzielić|spełnić)",
            r"^\W*(?:извините|простите|к сожалению)\b[^.!?\n]{0,40}\bне могу (?:помочь|ответить|предоставить|выполнить)",
            r"^\W*я не могу (?:помочь|ответить|предоставить|выполнить)",
            # Japanese, Chinese, Korean
            r"^\s*(?:申し訳(?:ありません|ございません)(?:が)?|すみません(?:が)?)[、,。\s].{0,50}(?:できません|いたしかねます|できかねます)",
            r"^\s*(?:很?抱歉|对不起|對不起)[,，。！!\s].{0,30}(?:无法|不能|無法)",
            r"^\s*죄송(?:합니다|하지만).{0,50}(?:없습니다|어렵습니다)",
        )
    )
)
_ANYWHERE = re.compile(
    rf"{_START}(?:therefore|thus|so|hence|consequently|as a result)?,? ?(?:i|we) {_CANNOT} (?:be )?"
    rf"(?:provide|give|determine|answer|solve|complete|offer|select)\b[^.!?\n]{{0,60}}\b(?:answers?|solutions?|questions?|problem)\b|"
    r"\bit(?: is|'s) (?:impossible|not possible) to (?:\w+ly )?(?:determine|answer|calculate|solve)\b|"
    r"\b(?:the|this) (?:answer|question|problem) (?:cannot|can't|can not) be (?:\w+ly )?"
    r"(?:determined|answered|calculated|solved)\b"
)
"""That the question cannot be answered, as a conclusion: it may follow a page of reasoning, so the end is searched."""

_TAIL_HINTS = ("i c", "e c", "unable", "possible to", "can't be", "n cannot", "r cannot", "m cannot")


def refused(subject: Subject, spec: CheckSpec) -> str | None:
    if subject.answer.finish == "content_filter":
        return "the provider filtered the answer"
    if subject.answer.tool_calls:
        return None
    if len(subject.text) <= CHARS_MAX:
        head = subject.text[:HEAD_CHARS].lower().replace("’", "'")
        if any(hint in head for hint in _HINTS) and _AT_HEAD.search(head):
            return "reads as a refusal"
    tail = subject.text[-TAIL_CHARS:].lower().replace("’", "'")
    if any(hint in tail for hint in _TAIL_HINTS) and _ANYWHERE.search(tail):
        return "says that it cannot answer"
    return None
