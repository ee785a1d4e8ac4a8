"""The engine and an interpreter that shares nothing with it agree on random trees: same output, same cost, same order."""

from collections import Counter
from itertools import count
from random import Random

from schemas.pipeline import STEPS_MAX, Node, steps_max
from tests.pipelines.bench_of_one import Run
from tests.pipelines.interpreter import End, Interpreter, plain
from tests.pipelines.trees import World, a_tree

TREES = 2_000
QUESTION = "alpha or beta?"


def test_two_thousand_random_trees_end_alike_at_the_same_cost_in_the_same_order() -> None:
    kinds: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    for seed in count():
        if sum(ends.values()) == TREES:
            break
        random = Random(seed)
        tree = a_tree(random)
        if steps_max(tree) > STEPS_MAX:
            continue   # what the check of a config refuses
        world = World(seed, failing=random.choice((0.0, 0.0, 0.1, 0.3)))
        deadline_ms = random.choice((10**9, 10**9, 900_000))
        budget = random.choice((None, None, 10_000, 300))
        wanted = Interpreter(world).run(plain(tree), QUESTION, deadline_ms, budget)
        run = Run(tree, world, QUESTION, deadline_ms, budget).go()
        kinds.update(_kinds(tree))
        ends[wanted.failure or "delivered"] += 1
        assert _told(run) == _expected(wanted), f"seed {seed}"
    assert min(kinds[kind] for kind in ("step", "sequence", "parallel", "branch", "loop", "map")) > 300
    assert min(ends[end] for end in ("delivered", "quality_not_met", "deadline_passed", "over_budget")) > 20


def _told(run: Run) -> tuple[object, ...]:
    assert run.end is not None, "it never ended"
    assert run.end.ended is not None
    ended = run.end.ended
    reason = ended.failure.reason.value if ended.failure else None
    return reason, "" if reason else ended.text, run.end.total.cost_microusd, run.end_ms


def _expected(end: End) -> tuple[object, ...]:
    return end.failure, "" if end.failure else end.text, end.cost, end.ms


def _kinds(tree: Node) -> list[str]:
    return [tree.kind] + [kind for _, part in tree.parts() for kind in _kinds(part)]
