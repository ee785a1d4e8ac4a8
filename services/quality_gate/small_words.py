"""The small words of eight languages: no sentence is without them. Data only: checks tell languages by them, scores skip them."""

SMALL_WORDS = {
    "en": "the of and to is in that it for you with this are what how be on at by from not was have has we they which would your "
    "or but if can will all there their when who more about into than then its our his her been before after",
    "de": "der die das und ist nicht ein eine zu den mit von wie ich sie auf für im dem es werden kann auch bei um aus wir sich "
    "einen einer oder aber wenn dass nach vor zum zur wird hat sind bitte durch über noch nur so als ihr ihre bevor haben",
    "es": "el la los las de que y en un una es por con para se del no su lo más esta al como sale fue está son pero "
    "o si sin sobre antes después cuando porque muy ya hay ha puede también este entre hasta desde todo todos sus le",
    "fr": "le la les des et est un une pour que qui dans ce il je vous sur avec pas au du plus en ne à se par ou sont nous "
    "l d qu n s c j de si avant après puis aussi peut très être cette ces leur votre faut tout mais elle on aux sans sous",
    "it": "il lo gli di che e è un una per con non sono della del più questo nel alla dalle anche in si alle dei delle ma "
    "l la le i da prima dopo quando perché molto può tutti dal nella come se o ha essere suo sua",
    "pt": "o os as de que e um uma para com não por do da em mais como você na no ao foi está às à dos das é sim "
    "ou se sem sobre antes depois quando porque muito já há pode também este esta entre até seu sua são foram",
    "nl": "de het een van en is dat niet op te zijn voor met wat hoe ik aan er ook maar wordt om uur in die deze komt "
    "u uit voordat kan naar dit bij nog geen heeft als of dan wel over door ze je worden moet hebben na",
    "pl": "i w nie na się z do jest to że jak co czy dla od oraz przez są ale o ze po który nie przed "
    "lub a za tym jego jej może być już tylko gdy przy aby ma te ten ta tego można",
}
