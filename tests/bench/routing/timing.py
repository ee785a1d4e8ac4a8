"""What a decision takes, in CPU microseconds of this machine: by models, with words, by tenants; and the features of a text.

CPU time of this thread: what else runs on the machine must not show as the router's slowest percent.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

from schemas.config import Tenant
from schemas.envelope import Envelope
from schemas.messages import Chat, Task
from schemas.spend import SpendEntry
from services.preprocessing.features import features
from services.router.beliefs import of_sketch
from services.router.decide import Limits, decide
from services.router.main import Router
from services.router.offers import Option
from services.router.rank import Terms
from services.router.terms import Beliefs
from shared.broker import Record
from shared.clock import SystemClock
from shared.handler import Context
from shared.quality import Knowledge
from shared.words import sketch
from tests.bench import stages
from tests.bench.report import percentile
from tests.bench.routing.learning import TENANT, pool, teach
from tests.bench.routing.rows import Prices, Row

TEXT = ("Why does the enzyme of a cell bind the substrate, and what would a court say of the contract? " * 50)[:4_096]
ROUNDS = 2_000


def decision_us(models: int, with_words: bool, rounds: int = 400) -> tuple[float, float]:
    """A choice among so many models, beliefs included: p50 and p99."""
    names = [f"model-{number}" for number in range(models)]
    seen = features(Chat(messages=({"role": "user", "content": TEXT},)))
    row = Row(seen, sketch(TEXT), dict.fromkeys(names, 1.0), dict.fromkeys(names, 1.0), dict.fromkeys(names, 100), {})
    listed = {name: Prices(1.0 + number, 4.0 + number) for number, name in enumerate(names)}
    chosen = pool([row], names, listed, dict.fromkeys(names, 0.5))
    knowledge = Knowledge()
    for name in names:
        teach(knowledge, row, name, 0, 0.5)
    options: list[Option] = list(chosen.options.values())
    priors, taken = [(name, 0.5) for name in names], []
    for _ in range(rounds):
        began = time.thread_time()
        beliefs: Beliefs = of_sketch(knowledge, priors, sketch(TEXT) if with_words else (), seen, TENANT)
        terms = Terms(mode="utility", microusd_price=1e-4, believed=beliefs.quality, tokens_out=beliefs.tokens_out)
        decide(seen, options, Limits(quality_min=0.0, time_left_ms=60_000, terms=terms))
        taken.append(1e6 * (time.thread_time() - began))
    return percentile(taken, 0.5), percentile(taken, 0.99)


def tenants_us(*counts: int) -> list[tuple[float, float]]:
    """A whole plan by the stage's handler, of 20 models, each request from the next of so many tenants with budgets."""
    return [_timed(_plans(count)) for count in counts]


def features_us() -> tuple[float, float]:
    chat = Chat(messages=({"role": "user", "content": TEXT},))
    return _timed(lambda at: features(chat))


def _timed(work: Callable[[int], object]) -> tuple[float, float]:
    taken = []
    for at in range(ROUNDS + ROUNDS // 10):
        began = time.thread_time()
        work(at)
        taken.append(1e6 * (time.thread_time() - began))
    warm = taken[ROUNDS // 10 :]
    return percentile(warm, 0.5), percentile(warm, 0.99)


def _plans(count: int) -> Callable[[int], object]:
    names = [f"tenant-{number}" for number in range(count)]
    known = replace(stages.catalogue(), tenants={name: Tenant(budget_usd_per_day=Decimal(100)) for name in names})
    spend = {name: SpendEntry(account=name) for name in names}
    clock = SystemClock()
    router, now_ms = Router(lambda: known, dict, clock, lambda: spend), clock.now_ms()
    chat = Chat(messages=({"role": "user", "content": TEXT},))
    task, kind = Task(chat=chat, features=features(chat)), Envelope[Task]
    envelopes = [
        kind(id=name, request_id=name, key=name, tenant=name, accepted_ms=now_ms, deadline_ms=now_ms + 600_000, payload=task)
        for name in names[:ROUNDS]
    ]
    context = Context(Record("tasks", 0, 0, now_ms, b"k", b""), (), stages.Ledger(), lambda: None)
    return lambda at: router.handle(envelopes[at % len(envelopes)], context)
