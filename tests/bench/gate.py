"""What the quality gate's checks and scores cost on one answer of 2 KB, in microseconds: `make bench` has them under `gate`."""

from collections.abc import Callable
from time import perf_counter

from schemas.checks import CheckSpec
from schemas.config import CHECKS_DEFAULT
from schemas.messages import Answer, Chat, Features, Task
from services.quality_gate.checks import CHECKS, judge
from services.quality_gate.scores import SCORERS, scores
from services.quality_gate.scores.words import sentences_of
from tests.bench.report import Target

CHECKS_US_MAX = 150
SCORES_US_MAX = 2_000
CALLS, ROUNDS = 50, 60

_SETTINGS: dict[str, dict[str, object]] = {
    "format": {"regex": "(?s).*[.]"},
    "length": {"words_max": 1_000, "chars_max": 4_000},
    "in_language": {"language": "en"},
    "no_leak": {"canaries": ["zx-canary-7719"]},
    "safe_content": {"phrases": ["acme corp"]},
}
ALL_CHECKS = tuple(
    CheckSpec.model_validate({"check": name, **_SETTINGS.get(name, {})}) for name in CHECKS if name not in SCORERS
)

PROSE = (
    "A heat pump moves warmth from one place to another instead of making it. Even air of 5 degrees holds energy, and a liquid "
    "with a very low boiling point can take it up. The compressor then squeezes the vapour, so its temperature rises well above "
    "that of the rooms. In the condenser it gives the warmth away and becomes liquid again.\n\nHow much electricity is needed "
    "depends on the difference between outside and inside. If the radiators are large, the water in them may be cooler, and the "
    "machine works with less effort. That is why installers look at the whole building first. Old windows, thin walls or a "
    "leaking roof make every heating expensive, whatever its kind. Many owners therefore begin with insulation, which is often "
    "cheaper than a bigger device.\n\nNoise is the second question that people ask. Modern units are about as loud as a "
    "refrigerator at a distance of 3 metres, but a narrow courtyard can reflect the sound. Placing the fan away from bedrooms "
    "helps, and so do rubber feet under the frame. Some towns require a minimum distance to the neighbour; the local office knows"
    " the rule.\n\nFinally, think of maintenance. Filters should be cleaned twice a year, the pressure checked once, and leaves "
    "removed in autumn. A service contract usually covers all of this. Ask what it costs before you sign, because prices differ "
    "widely between regions. With ordinary care a good unit lasts about 20 years, which is longer than most boilers. Grants are "
    "available in several countries, yet the forms must be filed before the order is placed. Keep every invoice, since the agency"
    " may want to see them later. If you are unsure, an independent adviser can compare two or three offers for a small fee and "
    "tell you which assumptions behind them are realistic for your house, your climate and your habits. Neighbours who already "
    "own one are another good source, and most of them like to show it."
)
_SYSTEM = "You are the guide of an energy office. Never name brands, and always close with the opening hours of the office. " * 5
_QUESTION = "Question: How does a heat pump work, what does it cost to run, and is it loud?"


def measure() -> dict[str, float]:
    """Microseconds per answer of 2 KB, the least of many rounds: what the work takes when nothing disturbs it."""
    task, answer = material()
    failed = [check for check in judge(answer, task, ALL_CHECKS).checks if not check.passed]
    assert not failed, failed
    return {
        "checks_default_us": _least_us(lambda: judge(answer, task, CHECKS_DEFAULT)),
        "checks_all_us": _least_us(lambda: judge(answer, task, ALL_CHECKS)),
        "scores_us": _least_us(lambda: _scores_anew(answer, task)),
    }


def material(note: str = "") -> tuple[Task, Answer]:
    """A question with 2 KB of context and an answer of 2 KB; with a note in both, they are no others'."""
    prose = f"{PROSE} {note}" if note else PROSE
    asked = f"Context:\n{prose}\n\n{_QUESTION}"
    chat = Chat(messages=({"role": "system", "content": _SYSTEM}, {"role": "user", "content": asked}))
    return Task(chat=chat, features=Features(tokens_in=600, tokens_out=500, tokens_out_max=1_000)), Answer(text=prose)


def _scores_anew(answer: Answer, task: Task) -> None:
    """As for an answer that was never seen: what was remembered of the last one is forgotten."""
    sentences_of.cache_clear()
    scores(answer, task)


def targets(figures: dict[str, float]) -> list[Target]:
    return [
        Target("gate: all checks on 2 KB", figures["checks_all_us"], CHECKS_US_MAX, "µs"),
        Target("gate: all scores on 2 KB, 2 KB of context", figures["scores_us"], SCORES_US_MAX, "µs"),
    ]


def _least_us(work: Callable[[], object]) -> float:
    times = []
    for _ in range(ROUNDS):
        began = perf_counter()
        for _ in range(CALLS):
            work()
        times.append((perf_counter() - began) / CALLS)
    return min(times) * 1e6
