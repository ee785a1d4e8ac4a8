"""How a model refuses, language by language, as classes instead of phrases. Data only; `refusal.py` reads it.

Each language says who speaks, what is denied (ability, permission, will, knowledge), and which verbs serve a request; further
classes need no verb: no access, an open refusal, a policy, ethics, a limit of what the speaker does. All patterns are matched
against one sentence in lower case, so that no gap in them runs further than that.
"""

import re

from services.quality_gate.checks.refusal_classes import grammar, inability
from services.quality_gate.checks.refusal_english import ENGLISH

GERMAN = grammar(
    "ich mir mich mein meine meiner meinen meines meinem unsere unserer unseren unser bedaure bedauere",
    inability(
        r"(?:ich (?:kann|darf|werde|möchte|will)|(?:kann|darf|werde|möchte|will) ich)\b.{0,60}?\b(?:nicht|nichts|keine[nrms]?)",
        r"\bgenug\b|\bnur\b|\baufhören\b|\bwarten\b|\babstreiten\b|\bverhehlen\b|\bfinden, (?:dass|der|die|das)",
        r"\w*(?:helfen|dienen|antworten|erfüllen|geben|erteilen|behilflich|unterstützen|stellen|nachkommen|fassen|schreiben|"
        r"generieren|erzeugen|diskutieren|besprechen|entsprechen|sagen|nennen|verraten|öffnen|abrufen|einsehen|zugreifen|"
        r"lesen|prüfen|"
        r"führen|äußern|sprechen|anbieten|liefern|fortsetzen|fortfahren|beurteilen|bewerten|vorhersagen|übersetzen|offenlegen|"
        r"mitwirken|beteiligen|senden|buchen|anrufen|mitteilen|beraten|einlassen|eingehen|tun\b|machen\b)|$",
    ),
    r"(?:leider|tut mir leid|verständnis|bedaure|bedauerlicherweise|dazu|hierzu|darüber|dabei)\b.{0,60}?\b(?:ich (?:kann|darf|"
    r"werde|möchte)|(?:kann|darf|werde|möchte) ich)\b"
    r"(?!.{0,60}\b(?:kommen|teilnehmen|sein|schlafen|warten|bleiben)\b).{0,50}?\b(?:nicht|nichts|keine\w*)\b.{0,50}\w+en\b|"
    r"\bich\b.{0,40}\b(?:keine\w*|nicht)\b.{0,40}\b(?:treffen|abgeben|äußern) (?:kann|darf|möchte)",
    r"\b(?:steht|ist|liegt|gehört|fällt|kommt)\b.{0,30}\b(?:mir (?:nicht zu|untersagt|verboten|verwehrt|unmöglich|"
    r"nicht (?:möglich|erlaubt|gestattet))|nicht (?:in|zu|unter|für) (?:mein|mich)\w*)|\bbin ich überfragt|"
    r"\bich bin überfragt|"
    r"\bich muss (?:sie|dich|euch) (?:\w+ )?enttäuschen",
    r"\b(?:ich (?:habe|besitze|verfüge über)|(?:habe|besitze|verfüge) ich(?: über)?|mir (?:fehlt|"
    r"fehlen))\b.{0,50}?\b(?:keine\w*|nicht) (?:\w+ ){0,2}(?:zugriff|"
    r"zugang|möglichkeit|information|kenntnis|daten|berechtigung|befugnis|erlaubnis|einsicht|angaben|meinung|fähigkeit)",
    r"\bliegen mir\b.{0,40}?\b(?:keine|nicht)|\b(?:ist (?:es )?mir|mir ist(?: es)?)\b.{0,30}?\bnicht (?:möglich|erlaubt|"
    r"gestattet)",
    r"\b(?:ich bin|bin ich)\b.{0,50}?\bnicht (?:in der lage|befugt|berechtigt|autorisiert|imstande|bereit|qualifiziert|dafür|"
    r"dazu|ermächtigt)",
    r"\b(?:ich weigere|weigere ich)\b|\b(?:ich (?:muss|möchte|werde)|(?:muss|möchte|werde) ich)\b.{0,50}?\b(?:ablehnen|"
    r"verweigern|passen|verzichten|absehen)\b|"
    r"\b(?:ich lehne|lehne ich)\b.{0,50}\bab\b|\bich verzichte\b",
    r"\b(?:ich )?(?:schreibe|verfasse|gebe|erteile|beantworte|erstelle|erzeuge|generiere|helfe|unterstütze|liefere|diskutiere|"
    r"äußere|leiste)(?: ich)?\b.{0,40}?\b(?:nicht|keine\w*)(?= |\W*$)(?<!nicht nur)",
    r"\b(?:verstößt|verstoßen|verstieße|widerspricht|widersprechen)\b.{0,20}?\b(?:mein|unser)\w* (?:\w+ )?(?:richtlinien|"
    r"regeln|grundsätze\w*|vorgaben|nutzungs\w+|prinzipien|werte\w*|programmierung)",
    r"\b(?:meine|unsere) (?:\w+ )?(?:richtlinien|regeln|vorgaben|anweisungen|grundsätze|"
    r"nutzungsbedingungen)\b.{0,30}?\b(?:erlauben|gestatten|verbieten|untersagen|lassen)",
    r"\b(?:außerhalb|jenseits) (?:meine|dessen, was ich)|\bübersteigt mein|\büberfordert mich",
    r"\b(?:unangemessen|unethisch|unverantwortlich|nicht (?:angemessen|richtig))\b.{0,20}\b(?:von mir|wenn ich)",
    r"\b(?:als|bin)(?: nur| lediglich| bloß)? (?:eine? )?(?:\w+ )?(?:ki\b|ki-\w+|künstliche|sprachmodell|"
    r"chatbot).{0,60}?\b(?:kann|habe|darf|bin)\b.{0,40}?\b(?:nicht|keine\w*)",
)

FRENCH = grammar(
    "je j m mes ma mon me moi nos",
    inability(
        r"je (?:ne|n')(?: le| la| les| vous| te| l')? ?(?:peux|puis|pourrai|pourrais|saurais|dois|veux|souhaite|vais|suis|"
        r"m'autorise)\b",
        r"\bque\b|\btrop\b|\bassez\b|m'empêcher|à quel point|\bcroire\b|\battendre\b|\bmentir\b|\bvenir\b",
        r"aider|répon|fourni|satisf|traiter|accéder|donner|partager|communiqu|divulg|rédiger|transm|révél|assist|écrire|créer|"
        r"géné|"
        r"produire|discut|parler|abord|dire\b|comment|prononcer|ouvrir|consult|voir\b|lire\b|vérif|effectu|réalis|faire\b|"
        r"continu|"
        r"poursuiv|particip|propos|offrir|recommand|conseill|évalu|prédire|prévoir|confirm|appeler|envoy|analys|expliqu|"
        r"indiqu|montr|"
        r"résum|tradui|exécut|accept|renseign|suite\b|en mesure|autorisé|habilité|en position|disposé|qualifié",
    ),
    r"\bje n'ai (?:malheureusement )?(?:pas|aucun\w*)\b.{0,25}?\b(?:accès|droit|possibilité|moyen|information|données|"
    r"permission|autorisation|connaissance|"
    r"capacité|opinion|avis|outil)|\bje ne (?:dispose|possède)\b.{0,20}?\b(?:pas|aucun)|\bje ne connais pas la réponse",
    r"\b(?:crains|regrette|désolée?|navrée?) (?:\w+ )?de (?:ne pas|ne pouvoir|devoir (?:refuser|décliner))|"
    r"\b(?:impossible pour moi|hors de question que je|ne m'appartient pas|ne me revient pas)|"
    r"\b(?:relève|entre|rentre|fait partie|figure)\b.{0,10}\bpas (?:de|dans|parmi) (?:mes|mon|ma)\b|"
    r"\bj'ai (?:pour )?(?:consigne|instruction|ordre) de ne pas|\bje n'ai pas été (?:conçu|programmé|entraîné|autorisé)",
    r"\bil (?:ne )?m'est .{0,20}?(?:pas possible|impossible|interdit|pas permis)|\bne me permet(?:tent)? pas|"
    r"\bm'(?:interdi(?:t|sent)|empêche(?:nt)?)\b",
    r"\bje (?:me )?(?:refuse|décline|m'abstien\w+|(?:dois|vais devoir|suis contrainte? de|"
    r"suis obligée? de) (?:\w+ )?(?:refuser|décliner|m'abstenir)|préf(?:ère|érerais) "
    r"(?:ne pas|éviter|m'abstenir))",
    r"\bje (?:ne|n')(?: l'| le | vous )? ?(?:écris|rédige|fournis|donne|partage|crée|génère|produis|réponds|traite|aborde|"
    r"discute)\b.{0,10}?\b(?:pas|aucun\w*|jamais)\b",
    r"\b(?:enfrein\w+|viol\w+|contrevien\w+ à|(?:va|vont|est|serait) (?:à l'encontre de|contre|contraire à)|"
    r"contraire à) (?:mes|nos) ",
    r"\b(?:inapproprié|irresponsable|contraire à l'éthique|pas (?:approprié|éthique|correct)) (?:de ma part|pour moi|que je)",
    r"\b(?:dépasse|hors d[eu]|au-delà de|sort (?:du cadre )?de|en dehors de) (?:cadre de )?(?:mes|mon|ma|ce que je)\b",
    r"(?:en tant qu(?:e |')|je ne suis qu'|je suis (?:seulement |juste )?)(?:une? )?(?:simple )?(?:ia\b|intelligence|modèle|"
    r"assistant).{0,60}?\b(?:je (?:n'ai|ne|n')|et ne)",
)

SPANISH = grammar(
    "no me mí niego mis nuestras nuestros mi rechazo prefiero preferiría desconozco debo",
    inability(
        r"no (?:(?:me|te|se|le|les|lo|la|los|las|os) ){0,2}(?:puedo|podré|podría|debo|voy a|quiero|estoy (?:\w+ ){0,2}(?:para|"
        r"a|de)|soy capaz de|(?:me|te|le|se me) (?:es|está|resulta|permite\w*)|sería|"
        r"tengo (?:\w+ ){0,2}(?:para|de))\b",
        r"\bdejar de\b|\bcreer\b|\besperar\b|\bevitar\b|\bmentir|\bnegar|\baburrir|\bimaginar|\blo suficiente|\bbastante\b|"
        r"\bmás que\b",
        r"ayud|cumpl|respond|contest|proporcion|asist|continu|ofrec|facilit|compart|brind|revel|divulg|gener|redact|atend|"
        r"habl|dar(?:te|le|les)?\b|"
        r"dec(?:ir|irte|irle)\b|escrib|crear|abrir|acced|ver\b|mostr|opin|coment|discut|trat|realiz|hacer|proced|prest|"
        r"diagnost|confirm|"
        r"predec|inform|explic|llam|envi|consult|busc|naveg|prove|complac|satisf|aconsej|particip|produc|elabor|apoy|recom|"
        r"posible\b|permitido",
    ),
    r"\bno (?:tengo|dispongo de|cuento con|poseo) (?:\w+ ){0,3}?(?:acceso|información|datos|permiso|capacidad|conocimiento|"
    r"autorización|forma de|manera de|medios|"
    r"herramientas|opini|detalles)|\bdesconozco\b|\bno (?:sé|conozco) la respuesta",
    r"\b(?:temo|lamento|siento|disculp\w+)\b.{0,20}\bno poder\b|\b(?:imposible para mí|me (?:es|resulta) imposible|"
    r"no me corresponde|no está (?:en mis manos|a mi alcance)|no forma parte de mis)\b|"
    r"\bme han (?:indicado|pedido|ordenado) (?:que no|no)\b|\bno (?:he sido|fui) (?:diseñad|programad|entrenad|autorizad)",
    r"\bme (?:niego|abstengo|rehúso|opongo)\b|\b(?:debo|tengo que|he de|me veo obligad[oa] a) (?:\w+ )?(?:negarme|rechazar|"
    r"declinar|abstenerme)|"
    r"\b(?:prefiero|preferiría) (?:no|evitar|abstenerme)\b|\bno me siento cómod|\brechazo (?:esta|esa|tu|su|la) (?:petición|"
    r"solicitud)",
    r"\bno (?:escribo|genero|comparto|redacto|ofrezco|respondo|proporciono|produzco|creo contenido)\b",
    r"\b(?:viol\w+|infring\w+|incumpl\w+|(?:va|van|iría) en contra de|contravien\w+|vulner\w+) (?:mis|nuestr[oa]s) ",
    r"\bmis (?:\w+ )?(?:normas|directrices|instrucciones|reglas|políticas)[^.!?\n]{0,30} (?:no me permiten|me impiden|"
    r"me prohíben)\b",
    r"\bno (?:sería|es) (?:apropiado|ético|correcto|adecuado|responsable) (?:que yo|de mi parte|por mi parte|para mí)",
    r"\b(?:fuera de|más allá de|escapa (?:a|de)|excede) (?:mis|mi|lo que puedo)\b",
    r"\b(?:como|soy)(?: solo| sólo| solamente)? (?:una? )?(?:simple )?(?:modelo de|ia\b|inteligencia|"
    r"asistente).{0,60}?\bno (?:puedo|tengo|soy|dispongo)",
)

PORTUGUESE = grammar(
    "não prefiro preferiria recuso recuso-me nego meus minhas minha meu mim me abstenho devo desconheço",
    inability(
        r"não (?:(?:o|a|os|as|lhe|te|me) )?(?:posso|consigo|poderei|poderia|devo|vou|quero|estou (?:\w+ ){0,2}(?:a|para)|"
        r"sou capaz de|me é|é possível|me sinto|tenho (?:\w+ ){0,2}(?:para|de))(?= )",
        r"\bdeixar de\b|\bacreditar\b|\besperar\b|\bevitar\b|\bmentir|\bnegar|\bimaginar|\bo suficiente|\bbastante\b",
        r"ajud|auxili|respond|fornec|atend|cumpr|oferec|partilh|compartilh|revel|divulg|discut|ger(?:ar|i)|prest|satisf|"
        r"escrev|cri(?:ar|á)|abrir|acess|"
        r"aceder|ver\b|mostr|opin|coment|trat|realiz|fazer|fazê|prosseg|continu|diagnost|confirm|prever|inform|expli|lig|envi|"
        r"consult|"
        r"procur|naveg|aconselh|particip|produz|elabor|apoi|recom|dar\b|dizer|redig|falar|mostrar|vontade|possível\b|"
        r"permitido|autorizad",
    ),
    r"\bnão (?:tenho|disponho de|possuo) (?:\w+ ){0,3}?(?:acesso|informaç|dados|permissão|capacidade|conhecimento|autorização|"
    r"como |forma de|meios|ferramentas|"
    r"opini)|\bdesconheço\b|\bnão sei a resposta",
    r"\b(?:receio|lamento|temo|sinto muito)\b.{0,20}\bnão poder\b|\b(?:é-me|me é) impossível|\bimpossível para mim|"
    r"\bnão (?:me cabe|me compete|está ao meu alcance|faz parte d)|\bfui (?:instruíd|programad|orientad)[oa] a não|"
    r"\bnão (?:fui|tenho como)\b",
    r"\b(?:recuso-me|me recuso|nego-me|me abstenho|abstenho-me)\b|\b(?:devo|tenho (?:de|que)|preciso|vou ter (?:de|"
    r"que)) (?:\w+ )?(?:recusar|declinar|negar|abster)|"
    r"\b(?:prefiro|preferiria) (?:não|evitar|abster)",
    r"\bnão (?:escrevo|gero|compartilho|partilho|redijo|ofereço|respondo|forneço|produzo|crio)\b",
    r"\b(?:viol\w+|infring\w+|(?:vai|vão|iria) contra|contrari\w+|desrespeit\w+) (?:as |os )?(?:minhas|meus|nossas|nossos) ",
    r"\b(?:minhas|meus) (?:\w+ )?(?:diretrizes|regras|instruções|políticas|princípios)\b.{0,20}?\b(?:não me permitem|"
    r"me impedem|impedem-me|proíbem)",
    r"\bnão (?:seria|é) (?:apropriado|ético|correto|adequado|responsável) (?:que eu|da minha parte|para mim|eu )",
    r"\b(?:fora d[aoe]s?|além d[aoe]s?|foge (?:a|à|ao|às)) (?:meus?|minhas?|que posso)\b",
    r"\b(?:como|sendo|sou)(?: apenas| só| somente)? (?:uma? )?(?:simples )?(?:modelo de|ia\b|inteligência|"
    r"assistente).{0,60}?\bnão (?:posso|tenho|sou|consigo)",
)

ITALIAN = grammar(
    "non mi me mie miei mio mia preferisco preferirei devo rifiuto nostre",
    inability(
        r"non (?:ti |vi |le |lo |la )?(?:posso|potrò|potrei|devo|voglio|intendo|riesco a|sono (?:\w+ ){0,2}(?:di|a)|mi è|"
        r"me la sento di|ho (?:\w+ ){0,2}di)\b",
        r"\bche consigli|\bfare a meno\b|\bcredere\b|\baspettare\b|\bmentir|\bnegare\b|\bimmaginare\b|\babbastanza\b|"
        r"\bposso che\b",
        r"aiut|rispond|forn|soddisf|assist|condivid|divulg|rivel|gener|tratt|offr|dar(?:ti|le|e|vi)?\b|dir(?:ti|le|e|vi)?\b|"
        r"scriv|creare|apri|acced|vede|mostr|"
        r"comment|discut|realizz|fare\b|farlo|proced|prest|diagnos|conferm|preved|inform|spieg|chiam|invi|consult|cerc|navig|"
        r"partecip|"
        r"produrre|elabor|parlar|esprim|affront|redig|consigl|permesso|consentito|possibile\b|autorizzat|in grado",
    ),
    r"\bnon (?:ho|dispongo di|possiedo) (?:[\w']+ ){0,3}?(?:accesso|informazion|dati|permesso|capacità|conoscenz|"
    r"autorizzazione|modo di|mezzi|strumenti|opinion)|"
    r"\bnon (?:so|conosco) la risposta",
    r"\b(?:temo|spiace|dispiace|rincresce|duole)\b.{0,20}?\bdi non (?:poter|essere)|\bmi è impossibile|\bimpossibile per me|"
    r"\bnon (?:spetta a me|mi spetta|mi compete|rientra (?:nelle|nei|tra) (?:le |i )?mi)|"
    r"\bho (?:istruzioni|l'istruzione|l'ordine) di non|\bnon sono stat[oa] (?:progettat|programmat|addestrat|autorizzat)",
    r"\bmi (?:rifiuto|astengo|oppongo)\b|\b(?:devo|sono costrett[oa] a|sono tenut[oa] a) (?:\w+ )?(?:rifiutar|declinar|astener)|"
    r"\b(?:preferisco|preferirei) (?:non|evitare|astenermi)|\bnon mi sento",
    r"\bnon (?:scrivo|genero|condivido|redigo|offro|rispondo|fornisco|produco|creo)\b",
    r"\b(?:viol\w+|infrang\w+|(?:va|vanno|andrebbe) contro|contravvien\w+|contrari[oa] a(?:lle|i)) (?:le |i )?(?:mie|miei|"
    r"nostre|nostri) ",
    r"\ble mie (?:\w+ )?(?:linee guida|regole|istruzioni|direttive)\b.{0,20}?\b(?:non mi permettono|mi impediscono|mi vietano|"
    r"non mi consentono)",
    r"\bnon (?:sarebbe|è) (?:appropriato|etico|corretto|opportuno|responsabile) (?:che io|da parte mia|per me)",
    r"\b(?:oltre|esula|fuori|al di là)(?: da| d[ae]lle| le| a)? ?(?:mie|mia|mio|miei|ciò che posso|quello che posso)\b",
    r"\b(?:in quanto|come|sono)(?: solo| soltanto| semplicemente)? (?:un['a]? ?)?(?:semplice )?(?:modello|ia\b|intelligenza|"
    r"assistente).{0,60}?\bnon (?:posso|ho|sono)",
)

DUTCH = grammar(
    "ik mijn mij me onze",
    inability(
        r"(?:(?:kan|mag|zal|wil|ga) ik|ik (?:kan|mag|zal|wil|ga))\b.{0,50}?\b(?:niet|geen|niets)",
        r"\bgenoeg\b|\bstoppen\b|\bwachten\b|\bgeloven\b|\bontkennen\b|\bkomen\b",
        r"\w*(?:helpen|beantwoorden|antwoorden|verstrekken|verlenen|voldoen|meewerken|delen|bespreken|staat|geven|schrijven|"
        r"maken|genereren|zeggen|vertellen|"
        r"openen|zien|lezen|uitvoeren|doen|spreken|praten|aanbieden|leveren|onthullen|beoordelen|voorspellen|ondersteunen|"
        r"bellen|sturen|"
        r"zoeken|adviseren|deelnemen|ingaan|opstellen|bekijken)|$",
    ),
    r"\b(?:ik (?:heb|beschik over)|(?:heb|beschik) ik(?: over)?)\b.{0,40}?\b(?:geen|niet) (?:\w+ ){0,2}(?:toegang|informatie|"
    r"gegevens|toestemming|mogelijkheid|kennis|"
    r"bevoegdheid|manier|mening|middelen)|\b(?:is (?:het )?mij|is het voor mij|mij is)\b.{0,20}?\bniet (?:mogelijk|toegestaan)",
    r"\b(?:ik ben|ben ik)\b.{0,40}?\bniet (?:in staat|bevoegd|gemachtigd|bereid|gekwalificeerd|ontworpen|geprogrammeerd)",
    r"\bik vrees dat ik\b.{0,40}\b(?:niet|geen)\b|\b(?:is|wordt)\b.{0,15}\bmij (?:niet|verboden|onmogelijk)|"
    r"\bonmogelijk voor mij|\b(?:hoort|behoort|ligt|past) niet (?:tot|bij|binnen) mijn\b|\bik moet (?:u|je) teleurstellen",
    r"\b(?:ik weiger|weiger ik|ik onthoud)\b|\b(?:ik moet|moet ik|ik zal)\b.{0,40}?\b(?:weigeren|afwijzen|passen|afslaan|"
    r"bedanken)\b|\bik wijs\b.{0,30}\baf\b|"
    r"\bik (?:liever|bij voorkeur)\b.{0,40}?\b(?:niet|geen)\b|\bik .{0,20}\bliever (?:niet|geen)\b|\bik voel me er niet\b",
    r"\b(?:ik )?(?:schrijf|geef|beantwoord|maak|verstrek|deel|bespreek|verleen|doe|genereer)(?: ik)?\b.{0,30}?\b(?:niet|"
    r"geen)\b(?<!niet alleen)(?! (?:zorgen|fout))",
    r"\b(?:in strijd met|tegen|schendt|overtreedt) (?:mijn|onze) (?:\w+ )?(?:richtlijnen|regels|beleid|principes|voorwaarden|"
    r"waarden|instructies)",
    r"\b(?:mijn|onze) (?:\w+ )?(?:richtlijnen|regels|instructies)\b.{0,30}?\b(?:niet toe|verbieden|verhinderen)",
    r"\bbuiten (?:mijn|wat ik)\b|\bgaat mijn .{0,20}te boven",
    r"\b(?:als|ben)(?: maar| slechts| alleen)? (?:een )?(?:ai\b|ai-\w+|taalmodel|virtuele|kunstmatige|"
    r"digitale).{0,60}?\b(?:kan|heb|mag|ben)\b.{0,40}?\b(?:geen|niet)\b",
)

POLISH = grammar(
    "nie mogę mi mnie moje moich moim mój muszę odmawiam odmówić wolałbym wolałabym wolę jestem brak",
    inability(
        r"nie (?:mogę|będę|będę mógł|będę mogła|jestem|wolno mi|potrafię|zamierzam|chcę|powinienem|powinnam|umiem|"
        r"mam (?:\w+ ){0,2}(?:by|aby|do))\b",
        r"\bsię doczekać\b|\buwierzyć\b|\bprzestać\b|\bprzyjść\b|\bukrywać\b|\bwystarczająco\b",
        r"pomóc|pomagać|pomocy|odpowie|odpowiad|udziel|spełni|poda[ćj]|udostępn|zrealizow|przekaz|ujawni|doradz|napisać|pisać|"
        r"tworz|stworz|wygener|"
        r"generow|otwier|otworzy|zobacz|przeczyt|sprawdz|omawia|rozmawia|mówić|powiedzieć|wypowiad|komentow|kontynu|"
        r"uczestnicz|w stanie|"
        r"upoważni|uprawni|zrobić|wykona|oceni|przewidzieć|dzwoni|wysłać|wysyła|wyszuk|tłumacz|przygotow|opracow|pokaza",
    ),
    r"\bnie (?:mam|posiadam|dysponuję) (?:\w+ ){0,3}?(?:dostępu|informac|danych|uprawnień|możliwości|wiedzy|pozwolenia|zgody|"
    r"zdania|narzędzi)|\bbrak mi\b|"
    r"\bnie znam odpowiedzi|\bnie jest mi\b",
    r"\bobawiam się, że nie\b|\b(?:nie leży w|nie należy do|przekracza|poza) (?:moi\w+|moj\w+)|\bnie mam (?:jak|prawa|sposobu|"
    r"takiej możliwości)\b|\bnie zosta\w+ (?:zaprojektowan|zaprogramowan|upoważnion|wyszkolon)|"
    r"\bmuszę (?:pana|panią|cię|państwa) rozczarować",
    r"\bodmawiam\b|\bmuszę (?:\w+ )?(?:odmówić|odrzucić)|\b(?:wolałbym|wolałabym|wolę) (?:\w+ )?nie\b|\bnie czuję się\b",
    r"\bnie (?:udzielam|piszę|tworzę|generuję|odpowiadam|podaję|udostępniam|komentuję|omawiam)\b",
    r"\b(?:narusza\w*|łami\w+|sprzeczn\w+ z|niezgodn\w+ z) (?:\w+ )?(?:moj\w+|nasz\w+|mój) ",
    r"\b(?:moje|nasze) (?:\w+ )?(?:zasady|wytyczne|instrukcje|reguły)\b.{0,30}?\b(?:nie pozwalają|zabraniają|zakazują|"
    r"uniemożliwiają)",
    r"\bwykracza poza (?:moje|mój|to, co)",
    r"\b(?:jako|jestem)(?: tylko| jedynie)? (?:\w+ )?(?:model|si\b|sztuczn|asystent|ai\b)\w*.{0,60}?\bnie (?:mam|mogę|"
    r"potrafię|jestem|posiadam)",
)

RUSSIAN = grammar(
    "я не мне меня мой моё моего мою моей моих моим моими вынужден вынуждена отказываюсь увы простите извините",
    inability(
        r"не (?:могу|смогу|буду|хочу|стану|в состоянии|вправе|имею права|должен|должна|умею|готов|готова|уполномочен\w*)",
        r"не порекомендовать|не отметить|дождаться|поверить|нарадоваться|согласиться|прийти",
        r"помо|ответ|отвеч|предостав|выполн|дать|давать|раскры|подел|обсужд|сообщ|напис|писать|созда|генерир|откры|посмотр|"
        r"увид|прочит|провер|говорить|"
        r"сказать|комментир|продолж|участв|оцен|предсказ|позвон|отправ|найти|искать|перев|консульт|рекоменд|совет",
    ),
    r"\b(?:я )?не (?:имею|располагаю|обладаю) (?:\w+ ){0,3}?(?:доступ|информац|данны|возможност|знани|полномоч|сведени|прав|"
    r"мнени)|"
    r"\bу меня нет (?:\w+ ){0,2}?(?:доступ|информац|данны|возможност|знани|полномоч|сведени|прав\b|разрешени|мнени)|"
    r"\bне знаю ответа|\bмне не (?:разреш|позвол)|\bмне запрещ",
    r"\bя (?:\w+ ){0,2}(?:помочь|ответить|сделать|выполнить|сказать|написать|дать|обсуждать|раскрыть|"
    r"сообщить) (?:\w+ ){0,2}не (?:могу|смогу|буду|вправе)|\bне (?:входит в мои|в моих силах|в моей компетенции|"
    r"относится к моим)|"
    r"\bмне (?:нельзя|запрещено|не положено)|\bвыходит за (?:рамки|пределы) мо",
    r"\b(?:отказываюсь|воздержусь|воздерживаюсь)\b|\bвынужден\w* (?:\w+ )?отказать|\b(?:я )?(?:предпоч\w+|лучше) (?:бы )?не\b|"
    r"\bдолж[еа]н\w* отказать",
    r"\bя не (?:пишу|создаю|генерирую|даю|отвечаю|предоставляю|обсуждаю|комментирую)\b",
    r"\b(?:наруша\w+|противореч\w+) (?:мои|моим|наши|нашим) |\b(?:мои|наши) (?:\w+ )?(?:правила|инструкции|"
    r"принципы)\b.{0,30}?\b(?:не позволяют|запрещают)",
    r"\b(?:за рамки|за рамками|за пределами?|вне) мо(?:ей|их|и)\b",
    r"\b(?:как|я)(?: всего)?(?: лишь| только)? ?(?:-|—)? ?(?:языковая|искусственный|ии\b|виртуальный|модель|"
    r"ассистент).{0,60}?\bне (?:могу|имею|умею|способ)",
)

BY_WORDS = (ENGLISH, GERMAN, FRENCH, SPANISH, PORTUGUESE, ITALIAN, DUTCH, POLISH, RUSSIAN)

WITHOUT_SPACES = re.compile(
    "|".join(
        (
            # Japanese: what the speaker cannot or will not do for the one who asks; in the polite forms of service.
            r"(?:お答え|お応え|お力|お手伝い|ご提供|ご案内|ご紹介|ご回答|回答|対応|提供|作成|お伝え|生成|協力|支援|述べる|書く|話す|教える|開く|見る|アクセス(?:する)?|"
            r"応じ|従う|続ける|説明(?:する)?|判断(?:する)?|確認(?:する)?|お受け|開示(?:する)?|共有(?:する)?)(?:は|を|が|に)?(?:する)?(?:こと)?(?:は|が)?(?:でき(?:ません|"
            r"かねます|ない)|"
            r"いたしかねます|しかねます|致しかねます|かねます|控えさせて)",
            r"(?:お断り(?:いた)?します|お断りさせて|お断り申し|差し控え|ご遠慮|権限が(?:ありません|ございません)|許可されていません|情報(?:が|は)(?:ありません|ございません)|分かりかねます|わかりかねます)",
            r"(?:ご質問|ご要望|リクエスト|その内容|ご依頼|そのような).{0,20}(?:お答え|対応|お手伝い)(?:することは)?(?:でき|いたしかね|しかね)",
            # Chinese: the speaker's inability, or a request that breaks the rules.
            r"(?:我|恕我?|恕|本人)(?:只|也|确实|暂时|目前|恐怕|现在|还|無|并|並)?(?:是一?个?.{0,12}[，,].{0,4})?(?:无法|不能|無法|难以|不便|没(?:有)?办法|没有能力|没法|不可以|"
            r"不会|拒绝|没有权限|沒有權限|"
            r"不方便|没有权利)(?!想象|相信|确定|肯定|不|否认|忘记|理解)(?:为您|为你|向您|向你|就此|對此|对此|给您|再|在)?(?:\w{0,2})(?:回答|帮助|帮您|帮你|协助|提供|满足|完成|讨论|处理|"
            r"生成|撰写|写|透露|分享|回應|回应|協助|討論|访问|打开|"
            r"继续|创作|创建|查看|执行|参与|评论|给出|告诉|支持|访|查询|连接|浏览)",
            r"(?:这个|您的|你的|该|此|這個)(?:问题|请求|要求|話題|话题|問題|請求).{0,8}(?:无法|不能|無法|不便)(?:回答|提供|满足|处理|完成|讨论)",
            r"超出了?我的|超出了我(?:能|可以)|违反了?.{0,8}(?:政策|准则|规定|规则|原则|條款|条款).{0,12}(?:不能|无法|不会)|换个话题|作为.{0,14}(?:模型|助手|人工智能|AI|"
            r"ai)[，,].{0,6}(?:无法|不能|没有|不具备)",
            r"(?:抱歉|对不起|對不起|很遗憾|不好意思)[,，。！!\s].{0,16}(?:我|恕).{0,10}(?:无法|不能|無法|没有办法)",
            # Korean.
            r"(?:답변|도움|도와|제공|알려|작성|공유|응답|접근|안내|처리|말씀|생성|수행|확인|"
            r"열어|열)[^.!?\n]{0,15}(?:수(?:는|가)? 없(?:습니다|어요)|드리기 어렵|드리지 않|할 수 없)",
            r"죄송[^.!?\n]{0,50}(?:수 없(?:습니다|어요)|어렵습니다|어려워요|않습니다|불가)|거절(?:하겠습니다|합니다|해야)",
        )
    )
)
"""Chinese, Japanese and Korean: no spaces to find words by."""
