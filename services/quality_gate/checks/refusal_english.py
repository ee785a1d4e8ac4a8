"""How a model refuses in English, the language with by far the most ways of it. Data only."""

from services.quality_gate.checks.refusal_classes import grammar

_ADVERBS = r"(?:(?:\w{2,12}ly|also|just|even|ever|in good conscience|at this time|at the moment|actually),? ){0,2}"
_SERVE = (
    "help|assist|aid|support|provide|offer|give|supply|deliver|share|send|tell|say|speak|talk|discuss|comment|answer|respond|"
    "reply|"
    "address|explain|describe|detail|elaborate|write|compose|draft|create|generate|produce|make|build|craft|draw|depict|portray|"
    "translate|summari[sz]e|analy[sz]e|evaluate|assess|judge|verify|confirm|check|look up|look at|search|browse|access|open|read|"
    "view|see|watch|hear|listen|play|call|place|book|order|buy|pay|schedule|predict|forecast|determine|calculate|solve|complete|"
    "continue|proceed|go along|go into|go there|engage|participate|take part|partake|entertain|indulge|role-?play|impersonate|"
    "act|"
    "comply|fulfil|fulfill|satisfy|accommodate|accept|grant|honou?r|process|execute|run|perform|carry out|handle|do|recommend|"
    "advise|suggest|endorse|advocate|promote|encourage|condone|facilitate|enable|diagnose|prescribe|disclose|reveal|divulge|hand "
    "out|expose|identify|speculate|touch on|get into|weigh in|move forward|contribute|teach|guide|show|render|modify|remember|"
    "recall"
)
_IDIOMS = (   # right after "I can't", "I won't"
    r"wait|help but|believe|imagine|think of|express|overstate|remember when|tell (?:you )?how (?:much|glad|happy)|say (?:it|"
    r"enough)|"
    r"say for (?:sure|certain)|find (?:an?|any) (?:mistake|fault|error|bug|flaw|problem|issue)|see (?:an?|any|why|how)|lie|"
    r"bore|pretend|deny|"
    r"sugar-?coat|always|go into (?:all|the|every)? ?details?|repeat|promise|come|attend|join|make it|be (?:there|at|in|late)|"
    r"(?:recommend|stress|thank|emphasi[sz]e|praise|say|tell|repeat)\b.{0,80}\benough|do without|do justice"
)
_CANNOT = (
    r"(?:can(?:not|'t| not)|could(?:n't| not)|won't|will not|shall not|shouldn't|should not|"
    r"may not|must not)(?: be able to)?"
)
_NOT_ABLE = (
    rf"(?:'m|am) {_ADVERBS}(?:unable to|incapable of|unwilling to|prohibited from|forbidden (?:from|to)|barred from|"
    rf"not {_ADVERBS}(?:able to|"
    r"allowed to|permitted to|authori[sz]ed to|at liberty to|in a position to|supposed to|programmed to|designed to|equipped to|"
    r"qualified to|licensed to|meant to|built to|going to|willing to|prepared to|capable of|here to))"
)
_RATHER_NOT = r"(?:'d|would) (?:rather|prefer|like) not(?: to)?|prefer not to|'d prefer to (?:avoid|refrain from)"
_DENIED = rf"(?:,[^,]{{1,40}},)? ?{_ADVERBS}(?:{_CANNOT}|{_NOT_ABLE}|{_RATHER_NOT})"
_HAVING = (
    r"(?:access|permission|authori[sz]ation|authority|abilit|capabilit|capacity|means|tools?|clearance|right to|information|data|"
    r"details|knowledge|records?|context|memory|visibility|insight|way (?:to|of)|enough|sufficient|opinion|opinions|feelings|"
    r"beliefs)"
)
_RULES = (
    r"(?:polic(?:y|ies)|guidelines?|rules|terms|principles|values|programming|instructions|"
    r"training|standards|ethics|guardrails|settings|design)"
)
_ASKED = r"(?:request|question|prompt|query|message|input|topic|content|conversation)"

ENGLISH = grammar(
    "i my me our we let request prompt question query afraid sorry no not unable",
    rf"(?<!if )(?<!when )(?<!whether )(?<!what )\bi{_DENIED} {_ADVERBS}(?!(?:{_IDIOMS})\b)(?:{_SERVE})(?:ing)?\b",
    rf"(?<!if )(?<!when )(?<!whether )(?<!what )\bi{_NOT_ABLE} (?!{_ADVERBS}(?:{_IDIOMS}|sleep|eat|stop|resist|stay|leave|"
    r"meet)\b)\w+",
    rf"\bwe {_CANNOT} (?:discuss|talk about|answer|help with|assist with|process|share|comment on) (?:this|that|your|such|"
    r"these)\b",
    r"\b(?:not possible|impossible) for me to\b|\b(?:best|better|safer) (?:if i (?:don't|do not|didn't|did not)|not to|"
    r"that i (?:don't|do not)) (?:provide|share|answer|discuss|"
    r"say|comment|write|help|get into|give|go into|continue|do that)\b|\b(?:not|isn't|aren't) (?:available|accessible|visible|"
    r"open) to me\b",
    r"\bi(?:'ve| have|'m| am| was) (?:been )?(?:instructed|told|asked|configured|directed|advised|required|obliged) (?:not to|"
    r"to (?:decline|refuse|avoid|refrain))",
    r"(?:sorry|afraid|unfortunately|sadly|regret\w*|apolog\w+|as an? (?:ai|\w+ model|"
    rf"\w+ assistant))\b.{{0,80}}?\bi{_DENIED} (?!{_ADVERBS}(?:{_IDIOMS})\b)\w+",
    rf"\bi{_DENIED} (?!{_ADVERBS}(?:{_IDIOMS})\b)\w+(?: \w+){{0,2}} (?:this|that|these|such|your|(?:to|for) you)\b",
    rf"\bi(?:'m| am|'ve| have| was| do| don't)\b.{{0,90}}?\b(?:and|so|or)(?: therefore| thus| hence| so|"
    rf" simply)? (?:{_CANNOT}|(?:am )?(?:unable|not able) to) {_ADVERBS}(?:{_SERVE})\b",
    # No access, means or knowledge.
    rf"\bi {_ADVERBS}(?:don't|do not) {_ADVERBS}have (?:[\w-]+ ){{0,3}}?{_HAVING}|\bi have no (?:[\w-]+ )?{_HAVING}|"
    r"\bi lack (?:the|any|enough)\b",
    r"\bi (?:have(?:n't| not) (?:been (?:given|provided|shown|trained|granted)|received)|(?:was|am|'m)(?:n't| not) (?:given|"
    r"provided))\b",
    r"\bi (?:can't|cannot|can not|couldn't|could not|was(?:n't| not) able to|was unable to|did(?:n't| not)) (?:find|locate|"
    r"see|identify) (?:[\w-]+ ){{0,3}}?"
    r"(?:information|answers?|details|data|mention|records?|reference|results?|attachment|file|document|image|picture|link)\b",
    r"\bi (?:don't|do not) know (?:the answer|how to (?:help|answer|respond))|^\W*(?:sorry, |i'm afraid )?i (?:don't|"
    r"do not) know\W*(?:sorry\W*)?$",
    r"\bi(?:'m| am) not sure (?:how|what|that|whether|if) (?:to|i can|i could) (?:help|answer|respond|do|say|assist)",
    r"\bi(?:'m| am) (?:still|not) (?:learning|trained)\b|\bi(?:'m| am) not (?:a|an) (?:\w+ ){0,2}and (?:can't|cannot)\b",
    # An open refusal.
    r"\bi(?: must| have to| need to|'ll(?: have to| need to)?| will(?: have to| need to)?|'m going to(?: have to)?|"
    rf" am going to(?: have to)?|'m afraid i must)? ?{_ADVERBS}"
    r"(?:decline|refuse|abstain|refrain|pass on (?:this|that)|say no to (?:this|that)|stop (?:here|there|this|"
    r"you))(?! to (?:believe|accept that))\b",
    r"\bi(?:'ll| will| must| have to)(?: have to)? (?:pass|decline)\W*$|\bi(?:'m| am) (?:\w+ly )?(?:declining|refusing)\b|"
    r"\bi(?:'ll| will) have to (?:leave|turn) (?:this|that|it)\b",
    r"\bi(?:'m| am| would| do|'d)?(?: not|n't)\b(?: \w+ly)? (?:feel |"
    r"be )?(?:\w+ly )?comfortable (?:with )?(?:(?:\w+ly )?\w+ing|this|that|such|your)\b|\bi(?: don't|'m not|"
    r"do not) think (?:that )?i (?:should|can|could)\b",
    rf"\bi (?:don't|do not) {_ADVERBS}(?:write|create|generate|produce|provide|give|share|discuss|offer|engage|participate|"
    r"take part|assist|help|answer|comment|"
    r"disclose|reveal|condone|promote|endorse|identify|draw|engage|speculate|predict|diagnose|prescribe|translate|open|browse|"
    r"entertain|take sides|"
    r"do (?:that|this|requests)|talk about|get involved|hold (?:\w+ ){0,2}(?:opinions?|views?))\b",
    r"^\W*(?:no can do|no comment|hard pass)\b|^(?:\w+, )?not (?:doing|going there|writing|touching|happening)\b|"
    r"\bno way (?:that )?i|\bneither confirm nor deny|\bi draw the line|\bnot the right (?:assistant|tool|person) for\b|"
    r"\bthat's a no\b|\bmakes me uncomfortable|\bi'd be uncomfortable|(?:^|"
    r"sorry, )\W*(?:sorry, )?(?:i'm )?afraid (?:i can)?not\b|\bnothing (?:\w+ )?(?:that )?i can (?:tell|say|do|share|offer)\b",
    rf"^\W*(?:sorry,? |unfortunately,? )?unable to (?:{_SERVE}) (?:with )?(?:this|that|your|the) (?:\w+ )?{_ASKED}",
    r"\blet's (?:try|talk about|discuss|change|switch|move on|stick|explore|chat about|pick) (?:to |about )?(?:a different|"
    r"something else|another|the (?:topic|subject))",
    # Rules and ethics.
    r"\b(?:violat\w+|breach\w*|conflict\w* with|contraven\w+|contrary to|against|infring\w+|prohibited by|not (?:allowed|"
    r"permitted) (?:by|under))"
    rf" (?:of )?(?:(?:my|our|openai'?s?|\w+'s) (?:\w+ ){{0,3}}?{_RULES}|the (?:content|usage|use|safety|"
    rf"community) (?:\w+ )?{_RULES})\b",
    rf"\b(?:my|our) (?:\w+ ){{0,2}}{_RULES} (?:(?:do|does|will|would)(?:n't| not) (?:allow|permit|let) me\b|(?:forbid|"
    r"prohibit|prevent|stop|keep|bar|preclude|restrict)s? (?:me\b|this\b|that\b|such\b))",
    rf"\b(?:this|that|such|your|the) (?:\w+ ){{0,3}}?{_ASKED} (?:\w+ ){{0,2}}(?:violates|goes against|(?:was|is|"
    r"has been) (?:flagged|disallowed|restricted|prohibited|off[ -]limits|not (?:allowed|permitted) here)|can(?:not|'t|"
    r" not) be (?:answered|fulfilled|completed here|discussed))",
    r"\bno (?:\w+ )?(?:output|response|answer|content|image|text|description) (?:can|will|could) be (?:produced|generated|"
    r"given|provided|created)",
    r"\b(?:right|wrong|proper|improper|appropriate|inappropriate|ethical|unethical|responsible|irresponsible|acceptable|"
    r"dangerous) (?:of|for) me to\b|\b(?:not|isn't) my (?:place|role|job)\b",
    r"\bit(?:'s| is| would be| wouldn't be| would not be) (?:not )?(?:appropriate|inappropriate|ethical|unethical|illegal|"
    r"wrong|irresponsible|okay|ok|acceptable|right)(?: (?:and|or) \w+)? "
    r"(?:to|for an? \w+ to) (?:create|generate|provide|write|engage|discuss|share|assist|help|promote|answer|produce|"
    r"speculate|comment|encourage|mock|make (?:jokes|fun))\b",
    # A limit of what the speaker does.
    r"\b(?:beyond|outside(?: of)?|not within|out of|exceeds?) (?:the (?:\w+ )?(?:scope|limits|bounds|range|"
    r"realm) of )?(?:what i\b|"
    r"me\b|my (?:\w+ ){0,2}(?:abilit|capabilit|scope|remit|expertise|competence|limits?|programming|knowledge|purview|role|"
    r"power|training))",
    r"\b(?:isn't|aren't|is not|are not|not) (?:something|anything|a thing|things|among the things|one of the things|a topic|"
    rf"content|the kind of \w+) (?:that |which )?i (?:can|am|will|do|{_SERVE})\b|"
    r"\b(?:isn't|is not|not) something (?:that )?i(?:'m|'ll)\b",
    r"\bi can only (?:answer|help|assist|discuss|respond|talk|speak|chat)(?: \w+)? (?:questions|with|to|about|on|regarding)\b|"
    r"\bi(?:'m| am) (?:only|just) (?:here|able|trained|designed|built|programmed|meant) (?:to|for)\b|\bi(?:'m|"
    r" am) here to (?:help|assist|answer|discuss)\b.{0,60}\bonly\b|\boff[ -](?:the table|limits)\b.{0,10}(?:for|to) me\b",
    r"\bi(?:'m| am|was) (?:designed|programmed|trained|built|made) (?:\w+ )?(?:to (?:avoid|decline|refuse|not)|not to)\b",
)
