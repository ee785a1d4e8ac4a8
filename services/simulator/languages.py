"""Words of the four languages the simulator answers in: stop words to recognise one, templates to build sentences."""

import re
from dataclasses import dataclass
from types import MappingProxyType

_WORD = re.compile(r"[^\W_]+")
_READ_CHARS = 4000  # of a prompt, for recognising the language and the salient words


@dataclass(frozen=True, slots=True)
class Language:
    """Stop words never count as salient; the templates take the words a, b and c of the prompt."""

    code: str
    stop_words: frozenset[str]
    fillers: tuple[str, ...]
    templates: tuple[str, ...]
    refusal: str


def word_set(text: str) -> frozenset[str]:
    """The words of a line, as a set."""
    return frozenset(text.split())


_EN = Language(
    "en",
    word_set(
        "a an and are as at be been but by can could did do does for from had has have he her his how i if "
        "in into is it its just like me more most my no not of on or our out please she should so some than "
        "that the their them then there these they this to too two up us was we were what when where which "
        "who why will with would you your about write explain describe tell give list say make show answer "
        "question summarise summarize short sentence sentences words between one must help let much many "
        "often works don isn doesn json extract return"
    ),
    ("topic", "detail", "context"),
    (
        "In short, {a} depends above all on {b} and on {c}.",
        "A good way to approach {a} is to look at {b} first, because it shapes the rest.",
        "{C} then follows, and it keeps {b} within reasonable limits.",
        "People who know {a} well usually begin with {c} and return to {b} later.",
        "There is one trade-off: the more weight {b} gets, the less room there is for {c}.",
        "So the practical advice is to settle {a} early, check {c} often and let {b} grow step by step.",
    ),
    "I'm sorry, but I can't help with that request.",
)
_DE = Language(
    "de",
    word_set(
        "aber alle als also am an auch auf aus bei bin bis bitte das dass dem den der des die dir doch du "
        "durch ein eine einem einen einer eines er es für hat haben hier ich ihr im in ist ja kann kannst "
        "können man mehr mich mir mit nach nicht noch nur oder sein sich sie sind so über um und uns unter "
        "vom von vor war warum was wenn wer werden wie wieder wieso wir wird wo zu zum zur zwischen erkläre "
        "erklären beschreibe schreibe sage nenne gib antworte frage kurz funktioniert satz sätze worten"
    ),
    ("Thema", "Einzelheiten", "Zusammenhang"),
    (
        "Kurz gesagt hängt {a} vor allem von {b} und von {c} ab.",
        "Am besten betrachtet man bei {a} zuerst {b}, denn davon hängt das Übrige ab.",
        "Danach folgt {c}, und so bleibt {b} in einem vernünftigen Rahmen.",
        "Wer {a} gut kennt, beginnt meist mit {c} und kommt später auf {b} zurück.",
        "Es gibt eine Abwägung: Je mehr Gewicht {b} erhält, desto weniger Raum bleibt für {c}.",
        "Der praktische Rat ist also, {a} früh zu klären, {c} oft zu prüfen und {b} schrittweise auszubauen.",
    ),
    "Es tut mir leid, aber dabei kann ich nicht helfen.",
)
_ES = Language(
    "es",
    word_set(
        "a al algo ante como con cual cuál cuando cuándo cómo de del desde donde dónde el ella en entre era "
        "es esta este esto está ha hay la las le lo los me mi muy más ni no nos o otra para pero por porque "
        "qué que quién se ser si sin sobre son su sus también te tiene todo tu un una uno unos y ya yo "
        "explica explique describe escribe dime favor responde pregunta breve frase frases palabras puedes "
        "puede funciona"
    ),
    ("tema", "detalle", "contexto"),
    (
        "En resumen, {a} depende sobre todo de {b} y de {c}.",
        "Una buena manera de abordar {a} es mirar primero {b}, porque de ahí sale lo demás.",
        "Después viene {c}, que mantiene {b} dentro de unos límites razonables.",
        "Quienes conocen bien {a} suelen empezar por {c} y volver más tarde a {b}.",
        "Hay que elegir: cuanto más peso tiene {b}, menos espacio queda para {c}.",
        "Así que el consejo práctico es decidir {a} pronto, revisar {c} a menudo y ampliar {b} paso a paso.",
    ),
    "Lo siento, pero no puedo ayudar con esa petición.",
)
_FR = Language(
    "fr",
    word_set(
        "à ai au aux avec c ce ces cette comme comment dans de des donc du elle en entre es est et eu il ils "
        "j l d je la le les leur lui ma mais me mes moi mon même ne nous on ou où par pas plus peux pour "
        "pourquoi qu quand que quel quelle qui quoi fonctionne sa se ses si son sont sur ta te tu un une va "
        "vos votre vous y été être explique expliquez décris décrivez écris dis donne réponds question bref "
        "phrase phrases mots plaît plait"
    ),
    ("sujet", "détail", "contexte"),
    (
        "En bref, {a} dépend surtout de {b} et de {c}.",
        "Pour aborder {a}, le mieux est de regarder d'abord {b}, car le reste en découle.",
        "Ensuite vient {c}, qui garde {b} dans des limites raisonnables.",
        "Ceux qui connaissent bien {a} commencent souvent par {c} et reviennent plus tard à {b}.",
        "Il y a un compromis : plus {b} prend de poids, moins il reste de place pour {c}.",
        "Le conseil pratique est donc de fixer {a} tôt, de vérifier {c} souvent et de faire grandir {b} peu à peu.",
    ),
    "Je suis désolé, mais je ne peux pas répondre à cette demande.",
)

LANGUAGES = MappingProxyType({language.code: language for language in (_EN, _DE, _ES, _FR)})
POSITIVE = word_set(
    "love loves great excellent good happy wonderful perfect amazing gut toll super zufrieden excelente bueno "
    "contento bon génial content"
)
NEGATIVE = word_set(
    "hate hates bad terrible awful broken poor worst angry disappointed schlecht kaputt enttäuscht malo horrible mauvais nul déçu"
)
_OTHER = MappingProxyType({"en": "de", "de": "fr", "es": "en", "fr": "es"})


def words_of(text: str) -> list[str]:
    """The words of the start of a text, as written."""
    return _WORD.findall(text[:_READ_CHARS])


def language_of(words: list[str]) -> Language:
    """The language whose stop words occur most often; English when in doubt."""
    lowered = [word.lower() for word in words[:200]]
    return max(LANGUAGES.values(), key=lambda language: sum(word in language.stop_words for word in lowered))


def other_than(language: Language) -> Language:
    """A language the answer should not be in."""
    return LANGUAGES[_OTHER[language.code]]


def salient(words: list[str], language: Language, most: int = 8) -> list[str]:
    """Words that carry the prompt's meaning, in order of appearance, each once."""
    found: dict[str, str] = {}
    for word in words:
        key = word.lower()
        says = len(key) > 2 or (len(key) == 2 and word[0].isupper())
        if says and key not in found and key not in language.stop_words and not key.isdigit():
            found[key] = word
            if len(found) == most:
                break
    return list(found.values())
