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
    "can't", "cannot", "can not", "unable", "not able", "won't", "decline to", "comfortable", "as an ai", "have enough",
    "have sufficient", "have access", "for me to", "policies", "policy", "guidelines", "ich kann", "kann ich", "ich darf",
    "darf ich", "ich bin", "bin ich", "decline th", "should not", "shouldn't", "no puedo", "je ne ", "non posso",
    "não posso", "niet ", "nie mog", "не могу", "ません", "かねます", "无法", "不能", "無法", "없습니다", "beyond",
    "outside", "not within", "exceeds", "something", "rather not", "prefer not", "refuse", "will not", "not allowed",
    "not permitted", "not author", "in a position", "ich werde", "werde ich", "möchte", "außerhalb", "jenseits",
    "übersteigt", "ablehnen", "lehne ich", "no podré", "no me es", "no estoy", "no soy", "no se me", "fuera de", "más allá",
    "escapa", "excede", "não consigo", "não poder", "não estou", "não me é", "não é", "não sou", "fora d", "além d", "foge",
    "non potrò", "non sono", "non mi", "oltre", "esula", "al di là", "fuori", "il ne m'est", "dépasse", "hors de", "au-delà",
    "geen ", "buiten ", "nie jestem", "nie wolno", "nie będę", "wykracza", "не смогу", "не в состоянии", "не вправе",
    "не имею", "за рамки", "за предел", "вне мо", "できない", "控え", "断り", "没有办法", "没办法", "没法", "不可以", "不会",
    "have permission", "have the", "have auth", "have any", "难以", "不便", "超出", "없어요", "어렵", "어려", "않습니다",
    "me permit", "allow me", "let me", "forbid", "prohibit", "prevent", "permettent", "interdisent", "empêchent", "erlauben",
    "gestatten", "verbieten", "me impiden", "me prohíben",
)
"""One of these stands in every refusal below: looking for them first spares most answers the patterns."""

_START = r"(?:^[\s*_#>-]*|[.!?;]\s+|\n\s*|^[^\"“„«]{0,150}?,\s+(?:but|however|so|aber|pero|mas|mais|ma|maar|ale|но)\s+)"
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


_LANGUAGES = (   # regret; I cannot; verbs of serving a request
    (
        "(?:es )?tut mir (?:sehr )?leid|entschuldigung|verzeihung|leider|bedauerlicherweise|dabei|damit|dazu|hierzu|darauf|"
        "hierbei|darüber|hierüber",
        "(?:ich (?:kann|darf|bin|werde|möchte)|(?:kann|darf|bin|werde|möchte) ich)\\b[^.!?\\n]{0,60}\\b(?:nicht|keine[nr]?)",
        "helfen|dienen|beantworten|erfüllen|auskunft|auskünfte|lage|behilflich|unterstützen|bereitstellen|nachkommen|befugt|"
        "preisgeben|weitergeben|herausgeben|verfassen|diskutieren|entsprechen",
    ),
    (
        "lo siento|lo lamento|lamentablemente|lamento|desafortunadamente|por desgracia|perdón|disculp[ae]|me temo que",
        "no (?:puedo|podré|me es posible|estoy en condiciones de|estoy autorizad[oa] (?:a|para)|soy capaz de|se me permite)",
        r"\b(?:ayudar|cumplir|responder|contestar|proporcionar|asistir|continuar|ofrecer|facilitar|compartir|brindar|revelar|"
        r"divulgar|generar|redactar|atender|hablar de|darle|darte|decirle|decirte)",
    ),
    (
        "desculp[ae]|peço desculpas?|sinto muito|lamento|lamentavelmente|infelizmente",
        "não (?:posso|consigo|poderei|estou autorizad[oa] a|me é possível|é possível|sou capaz de)",
        r"\b(?:ajud|auxili|responder|fornecer|atender|cumprir|oferecer|partilhar|compartilhar|revelar|divulgar|discutir|gerar|"
        r"prestar|satisfazer)",
    ),
    (
        "mi (?:di)?spiace|purtroppo|spiacente|temo che",
        "non (?:posso|potrò|sono in grado di|mi è possibile|sono autorizzat[oa] a|mi è consentito)",
        r"\b(?:aiutar|risponder|fornir|soddisfar|assister|condivider|divulgar|rivelar|generar|trattar|offrir|darti|darle|dirti)",
    ),
    (
        "(?:je suis )?(?:vraiment )?désolée?|navrée?|malheureusement|je regrette|pardon|je crains que",
        "(?:je ne (?:peux|puis|pourrai|saurais|suis)|il ne m'est)(?: malheureusement)?(?: pas)?",
        r"\b(?:aider|répondre|fournir|satisfaire|traiter|accéder|donner suite|partager|communiquer|divulguer|rédiger|"
        r"transmettre|révéler|assister)",
    ),
    (
        "het spijt me|sorry|helaas|excuses|mijn excuses|daar|daarbij|hierbij|hiermee|daarover|hierover",
        "(?:(?:kan|mag|zal) ik|ik (?:kan|mag|zal|ben))\\b[^.!?\\n]{0,40}\\b(?:niet|geen)",
        r"\b(?:helpen|beantwoorden|verstrekken|verlenen|voldoen|meewerken|delen|bespreken|staat)",
    ),
    (
        "przykro mi|przepraszam|niestety|wybacz",
        "nie (?:mogę|będę mógł|będę mogła|jestem w stanie|wolno mi)",
        r"\b(?:pomóc|pomagać|odpowiedzieć|udzielić|spełnić|podać|udostępnić|zrealizować|przekazać|ujawnić|doradzać)",
    ),
    (
        "извините|простите|к сожалению|сожалею|увы|боюсь",
        "(?:я )?не (?:могу|смогу|в состоянии|вправе|имею права)",
        r"\b(?:помочь|помогать|ответить|отвечать|предоставить|предоставлять|выполнить|дать|раскрыть|раскрывать|поделиться|"
        r"обсуждать|сообщить)",
    ),
)
_BEYOND = (   # that it lies outside of what the speaker does, or that the speaker would rather not
    r"\b(?:beyond|outside(?: of)?|not within|exceeds) (?:the (?:scope|limits|bounds) of )?"
    r"(?:what i(?: can|'m able| am able)|my (?:\w+ )?(?:abilit|capabilit|scope|remit|expertise|competence|limits))",
    rf"\b(?:is not|isn't|not) something (?:that )?i(?: can|(?:'m| am) (?:able|allowed|willing|going) to|'ll| will)"
    rf" (?:{_SERVE}|do)\b",
    rf"{_START}(?:[^.!?\n]{{0,40}}, )?i (?:do not|don't|do n't) have (?:the |any )?(?:permission|authori[sz]ation|authority|"
    rf"ability|means|clearance|right|capability) to (?:\w+ )?(?:{_SERVE}|reveal|disclose|view|see|do|talk)\b",
    rf"{_START}(?:[^.!?\n]{{0,40}}, )?(?:so )?i (?:must|have to|need to|will have to|'ll have to) (?:respectfully |politely )"
    r"?(?:refuse|pass on (?:this|that))\b",
    r"\bmy (?:\w+ )?(?:instructions|guidelines|rules|programming|training|policies|settings) "
    r"(?:(?:do not|don't|does not|doesn't|will not|won't) (?:allow|permit|let) me\b|forbid|prohibit|prevent)",
    r"\bmeine (?:richtlinien|vorgaben|regeln|anweisungen) (?:erlauben|gestatten|verbieten)\b",
    r"\bmis (?:\w+ )?(?:normas|directrices|instrucciones|reglas)[^.!?\n]{0,30} (?:no me permiten|me impiden|me prohíben)\b",
    r"\bmes (?:consignes|règles|instructions) (?:ne me permettent pas|m'interdisent|m'empêchent)\b",
    rf"{_START}(?:[^.!?\n]{{0,40}}, )?i(?:'d| would) (?:rather|prefer) not (?:to )?(?:{_SERVE}|say|talk|get into)\b",
    rf"{_START}(?:[^.!?\n]{{0,40}}, )?i (?:refuse|have to refuse|must refuse|will not|am going to have to decline)"
    rf" (?:to )?(?:{_SERVE}|do that|this|that|your)\b",
    rf"{_START}(?:[^.!?\n]{{0,40}}, )?i(?:'m| am) (?:not (?:allowed|permitted|authori[sz]ed|in a position)|prohibited|forbidden)"
    rf" (?:to|from) (?:{_SERVE})",
    r"\b(?:außerhalb|jenseits) (?:meiner|dessen, was ich)|\bübersteigt meine|\bich (?:\w+ )?(?:leider )?ablehnen\b|\bmuss ich"
    r" (?:\w+ ){0,3}ablehnen\b|\blehne ich (?:\w+ )?ab\b",
    r"\b(?:fuera de|más allá de|escapa (?:a|de)|excede) (?:mis|mi|lo que puedo)\b",
    r"\b(?:fora d[aoe]s?|além d[aoe]s?|foge (?:a|à|ao|às)) (?:meus?|minhas?|que posso)\b",
    r"\b(?:oltre|esula|fuori|al di là)(?: da| d[ae]lle| le| a)? ?(?:mie|mia|mio|miei|ciò che posso|quello che posso)\b",
    r"\b(?:dépasse|hors de|au-delà de) (?:mes|mon|ma|ce que je)\b",
    r"\bbuiten (?:mijn|wat ik)\b|\bwykracza poza (?:moje|mój|to, co)|\b(?:за рамки|за пределами?|вне) мо(?:ей|их|и)\b",
)


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
            *_BEYOND,
            *(_says(*said) for said in _LANGUAGES),
            r"^\s*(?:申し訳(?:ありません|ございません)(?:が)?|すみません(?:が)?|残念ながら)[、,。\s].{0,50}(?:できません|いたしかねます|できかねます)",
            r"(?:ご質問|ご要望|リクエスト|その内容).{0,20}(?:お答え|対応|お手伝い)(?:することは)?(?:でき|いたしかね|しかね)",
            r"^\s*(?:很?抱歉|对不起|對不起|很遗憾)[,，。！!\s].{0,30}(?:无法|不能|無法)",
            r"(?:お答え|お応え|お力|お手伝い|ご提供|ご案内|対応|提供|作成|お伝え)(?:は|を|が)?(?:する(?:こと)?は?)?"
            r"(?:でき(?:ません|かねます|ない)|いたしかねます|しかねます|控えさせて)",
            r"(?:お断り(?:いた)?します|お断りさせて|差し控え)",
            r"(?:我|恕我?|恕)(?:也|确实|暂时|目前|恐怕)?(?:无法|不能|無法|难以|不便|没(?:有)?办法|没法|不可以|不会)(?:为您|为你|向您|向你|就此|對此|对此|给您)?"
            r"(?:回答|帮助|帮您|协助|提供|满足|完成|讨论|处理|生成|撰写|透露|分享|回應|回应|協助|提供|討論)",
            r"超出了?我的(?:能力|职责|范围|權限|权限|知识)|超出了我(?:能|可以)",
            r"^\s*죄송.{0,50}(?:없습니다|없어요|어렵습니다|어려워요|않습니다)",
            r"(?:답변|도움|도와|제공|알려|작성|공유|응답)[^.!?\n]{0,15}(?:수(?:는|가)? 없(?:습니다|어요)|드리기 어렵|드리지 않)",
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
