"""The words and scripts by which preprocessing tells language and domain apart. Data only: add a word, or a row.

Order matters where votes tie: the earlier row wins.
"""

import re


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


PUNCTUATION = ".,;:!?()[]{}\"'`*#<>=/’“”„«»¿¡…–"
"""Marks between words; hyphens and underscores stay, they belong to words."""

STOP_WORDS = {
    "en": _set("the of and to is in that it for you with this are what how do does can an be my from which would please"),
    "de": _set("der die das und ist nicht ein eine zu den mit von wie was ich sie auf für im dem es werden kann bitte sind"),
    "es": _set("el la los las de que y en un una es por con para se del cómo qué como su lo más favor esta al"),
    "fr": _set("le la les des et est un une pour que qui dans ce il je vous sur avec pas au du plus comment quel cette en"),
    "it": _set("il lo gli di che e è un una per con non sono della come del più questo nel alla anche quale perché"),
    "pt": _set("o os as de que e um uma para com não por do da em mais como você qual são isso na no ao"),
    "nl": _set("de het een van en is dat niet op te zijn voor met wat hoe ik aan er ook maar wordt kunt naar"),
    "pl": _set("i w nie na się z do jest to że jak co czy dla od proszę oraz przez są ale jego może"),
}

LANGUAGES_OF = {
    word: tuple(code for code, stop_words in STOP_WORDS.items() if word in stop_words)
    for word in frozenset().union(*STOP_WORDS.values())
}

SCRIPTS = (
    ("ja", re.compile("[\u3040-\u30ff]")),
    ("zh", re.compile("[\u4e00-\u9fff]")),
    ("ko", re.compile("[\uac00-\ud7af\u1100-\u11ff]")),
    ("ru", re.compile("[\u0400-\u04ff]")),
    ("ar", re.compile("[\u0600-\u06ff]")),
    ("hi", re.compile("[\u0900-\u097f]")),
    ("el", re.compile("[\u0370-\u03ff]")),
    ("he", re.compile("[\u0590-\u05ff]")),
    ("th", re.compile("[\u0e00-\u0e7f]")),
)

STRONG_CUES = {
    "code": _set("python javascript typescript java golang sql regex refactor traceback unittest dockerfile bash debug"),
    "maths": _set(
        "solve equation equations integral derivative theorem polynomial algebra calculate gleichung berechne ecuación "
        "calcula calcule équation"
    ),
    "extraction": _set("extract classify extrahiere klassifiziere extrae clasifica extrais classifie"),
    "translation": _set(
        "translate translation translated übersetze übersetzung übersetzen traduce traduzca traducción traduis traduisez "
        "traduction traduci traduzir"
    ),
    "summarisation": _set(
        "summarise summarize summary summaries tldr condense zusammenfassung zusammenfassen fasse resume resumen resumir "
        "résume résumez résumé synthèse"
    ),
}
"""Words that alone tell what is asked; the domain of a request needs one of these, or two of the weak ones."""

WEAK_CUES = {
    "code": _set(
        "code function class rust bug compile compiler script algorithm implement exception api html css program programm "
        "programmiere código función programa fonction"
    ),
    "maths": _set(
        "compute proof prove probability matrix geometry triangle sum product percent remainder integer integers "
        "wahrscheinlichkeit probabilidad probabilité"
    ),
    "extraction": _set("json fields field classification label labels parse entities entity csv schema category felder campos"),
    "translation": _set("ins deutsche englische inglés francés anglais allemand"),
    "summarisation": _set("shorten short sentences brief paragraph bullet points sätzen frases phrases"),
}

HARD_WORDS = _set(
    "why prove proof explain compare analyse analyze derive design evaluate justify reason reasoning optimise optimize "
    "strategy tradeoffs trade-offs architecture implications contrast critique warum beweise vergleiche analysiere begründe "
    "demuestra compara analiza pourquoi démontre justifie"
)

WEIGHT_OF = {word: (domain, 1) for domain, words in reversed(WEAK_CUES.items()) for word in words} | {
    word: (domain, 2) for domain, words in reversed(STRONG_CUES.items()) for word in words
}
"""Word → the domain it speaks for and how loudly."""

ORDERS = {
    word: domain
    for domain in ("extraction", "translation", "summarisation")
    for word in STRONG_CUES[domain] - {"translation", "translated", "summary", "summaries", "resume", "fasse"}
}
"""Verbs that, among the first words, say what is to be done with the text that follows, whatever that is about."""
