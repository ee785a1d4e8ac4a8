"""Recognises that a model refuses, or says that it cannot answer, in twelve languages. Pure, linear.

A refusal is the speaker's own, about the request, at the beginning of a short text or in its last words. Letters that
decline an invitation, quotations and grammar about "I cannot" are none: the verbs are those of serving a request.
"""

import re

from schemas.checks import CheckSpec
from services.quality_gate.subject import Subject

CHARS_MAX = 900
"""A refusal is short; a longer text that begins with an apology usually goes on to answer."""
HEAD_CHARS = 300
TAIL_CHARS = 300

_HINTS = (
    "can't", "cannot", "can not", "unable", "not able", "won't", "will not be able", "decline to", "comfortable", "as an ai",
    "have enough", "have sufficient", "have access", "for me to", "policies", "policy", "guidelines", "ich kann",
    "kann ich", "ich darf", "darf ich", "ich bin", "bin ich", "decline th", "should not", "shouldn't",
    "no puedo", "je ne ", "non posso", "não posso", "niet ", "nie mog", "не могу", "ません", "かねます", "无法", "不能", "無法",
    "없습니다",
)
"""One of these stands in every refusal below: looking for them first spares most answers the patterns."""

_START = r"(?:^[\s*_#>-]*|[.!?]\s+|\n\s*)"
_SERVE = (
    "help|assist|provide|fulfil|fulfill|comply|answer|create|generate|continue|discuss|share|complete|write|open|browse|"
    "access|give|tell|support|engage|participate|produce|respond|carry out|determine"
)
_CANNOT = r"(?:can(?:not|'t| not)|(?:am|'m|are|'re) (?:not able|unable) to|won't(?: be able to)?|will not be able to)"
_I_CANNOT = rf"i ?{_CANNOT} (?:{_SERVE})\b(?![^.!?\n]{{0,100}}\bbut\b)"
_REGRET = (
    r"(?:i'm |i am |i |my )?(?:very |so |really |truly |sincere )?(?:sorry|afraid|apologi[sz]e|apologies|unfortunately|regret)\b"
)


def _says(regret: str, cannot: str, serve: str) -> str:
    """A refusal in a language that needs no more than this: maybe regret, then "I cannot", then a verb of serving a request."""
    return rf"{_START}(?:(?:{regret})\b[^.!?\n]{{0,50}}?)?\b(?:{cannot})\b[^.!?\n]{{0,50}}?(?:{serve})"


_AT_HEAD = re.compile(
    "|".join(
        (
            rf"{_START}{_REGRET}[^.!?\n]{{0,60}}?\b(?:i ?{_CANNOT} (?:{_SERVE}|do that)\b|"
            r"i (?:do not|don't) have (?:enough|sufficient|access|the ))",
            rf"{_START}(?:however|but),? {_I_CANNOT}",
            rf"{_START}{_I_CANNOT}",
            rf"{_START}i (?:must|have to|will have to|need to) decline (?:to|this|that|your)\b",
            rf"{_START}i(?:'m| am| do| don't)?(?: not)? (?:feel )?comfortable "
            r"(?:helping|with|writing|providing|discussing|answering)\b",
            r"^\W*as an ai\b[^.!?\n]{0,90}\bi (?:can(?:not|'t)|(?:am|'m) (?:unable|not able)|do not|don't)\b",
            r"\b(?:appropriate|ethical|right|responsible) for me to\b",
            r"\b(?:violates|goes against|is against|conflicts with) (?:our|my|the) (?:\w+ ){0,2}(?:polic(?:y|ies)|guidelines)\b",
            _says(
                "(?:es )?tut mir (?:sehr )?leid|entschuldigung|leider|bedauerlicherweise|dabei|damit|dazu|hierzu|darauf|hierbei",
                "(?:ich (?:kann|darf|bin)|(?:kann|darf|bin) ich)\\b[^.!?\\n]{0,60}\\b(?:nicht|keine)",
                "helfen|dienen|beantworten|erfüllen|auskunft|lage|behilflich|unterstützen|bereitstellen|nachkommen",
            ),
            _says(
                "lo siento|lamentablemente|lamento|desafortunadamente|perdón", "no puedo",
                r"\b(?:ayudar|cumplir|responder|proporcionar|asistir|continuar|ofrecer|facilitar)",
            ),
            _says(
                "desculpe|sinto muito|lamento|infelizmente", "não posso",
                r"\b(?:ajud|responder|fornecer|atender|cumprir|oferecer)",
            ),
            _says("mi dispiace|purtroppo|spiacente", "non posso", r"\b(?:aiutar|risponder|fornir|soddisfar|assister)"),
            _says(
                "(?:je suis )?(?:vraiment )?désolée?|malheureusement|je regrette",
                "je ne (?:peux pas|suis pas en mesure de|peux malheureusement pas)",
                r"\b(?:aider|répondre|fournir|satisfaire|traiter|accéder|donner suite)",
            ),
            _says(
                "het spijt me|sorry|helaas", "(?:kan ik|ik kan)\\b[^.!?\\n]{0,40}\\bniet",
                r"\b(?:helpen|beantwoorden|verstrekken)",
            ),
            _says("przykro mi|przepraszam|niestety", "nie mogę", r"\b(?:pomóc|odpowiedzieć|udzielić|spełnić|podać)"),
            _says("извините|простите|к сожалению", "(?:я )?не могу", r"\b(?:помочь|ответить|предоставить|выполнить|дать)"),
            r"^\s*(?:申し訳(?:ありません|ございません)(?:が)?|すみません(?:が)?|残念ながら)[、,。\s].{0,50}(?:できません|いたしかねます|できかねます)",
            r"(?:ご質問|ご要望|リクエスト|その内容).{0,20}(?:お答え|対応|お手伝い)(?:することは)?(?:でき|いたしかね|しかね)",
            r"^\s*(?:很?抱歉|对不起|對不起|很遗憾)[,，。！!\s].{0,30}(?:无法|不能|無法)",
            r"^\s*我(?:无法|不能|無法)(?:回答|帮助|协助|提供|满足|完成)",
            r"^\s*죄송(?:합니다|하지만|하지만요).{0,50}(?:없습니다|어렵습니다)",
        )
    )
)
_ANYWHERE = re.compile(
    rf"(?:{_START}|,\s+)(?:therefore|thus|so|hence|consequently|as a result)?,? ?(?:i|we) {_CANNOT} (?:be )?"
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
