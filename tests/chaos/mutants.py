"""Known faults planted in the running system: each must be caught by the invariant that names it, or the checker is no good.

A mutant runs a short load with faults aimed at the stage that carries it. `mutant.py` plants it in that stage's processes.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from services.cli.processes import Say
from tests.chaos.faults import Fault, Kind, stage_of
from tests.chaos.scenario import REPLICAS, Outcome, Plan, run

REQUESTS = 900
RATE_S = 60.0
LATENCY_SCALE = 3.0  # calls take half a second and more: some are in flight whenever an executor is killed
SETTLE_S = 12.0      # what is lost stays lost: no reason to wait for it long


@dataclass(frozen=True)
class Mutant:
    """A fault, the stage it is planted in, what provokes it, and the invariant that must break."""

    name: str
    stage: str
    invariant: str
    faults: Sequence[tuple[float, str, Kind]] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    pipelines: bool = False

    @property
    def replicas(self) -> Mapping[str, int]:
        """Of the stages that carry the fault or are hit; of the others one is enough."""
        concerned = {self.stage, *(stage_of(victim) for _, victim, _ in self.faults)}
        return {stage: count for stage, count in REPLICAS.items() if stage in concerned}

    def plan(self, seed: int) -> Plan:
        return Plan(
            name=f"mutant-{self.name}",
            requests=REQUESTS // (6 if self.pipelines else 1),
            rate_s=RATE_S / (6 if self.pipelines else 1),
            faults=0,
            bounces=0,
            seed=seed,
            replicas=self.replicas,
            aimed=[Fault(*each) for each in self.faults],
            mutant=self.name,
            mutant_stage=self.stage,
            mutant_env=self.env,
            latency_scale=LATENCY_SCALE,
            settle_s=SETTLE_S,
            pipelines=self.pipelines,
        )


def _kill(*victims: str) -> tuple[tuple[float, str, Kind], ...]:
    return tuple((5.0 + 5.0 * place, victim, Kind.KILL) for place, victim in enumerate(victims))


def _freeze(*victims: str) -> tuple[tuple[float, str, Kind], ...]:
    return tuple((4.0 + 6.0 * place, victim, Kind.FREEZE) for place, victim in enumerate(victims))


_LINGER = {"BATON_LINGER_MS": "400"}

# fmt: off
MUTANTS = (
    #      name                      stage            must break           provoked by
    Mutant("commit-before-produce",  "preprocessing", "none-lost",         _kill("preprocessing-0")),
    Mutant("commit-past-unfinished", "executor",      "none-lost",         _kill("executor-0", "executor-1")),
    Mutant("no-read-back",           "executor",      "none-left-open",    _kill("executor-0", "executor-1")),
    Mutant("no-fence",               "output",        "no-duplicates",     _freeze("output-0", "output-1"), _LINGER),
    Mutant("no-dedupe",              "output",        "no-duplicates",     _kill("quality-gate-0", "quality-gate-0")),
    Mutant("no-frozen-check",        "executor",      "zombies-silent",    _freeze("executor-0", "executor-1")),
    Mutant("no-order",               "executor",      "order-kept"),
    Mutant("refund",                 "executor",      "ledger-is-invoice", _kill("executor-0", "executor-1")),
    Mutant("write-behind",           "executor",      "write-ahead"),
    Mutant("forgotten-sibling",      "quality-gate",  "joins-complete",    pipelines=True),
    Mutant("advanced-twice",         "router",        "no-step-paid-twice", pipelines=True),
)
# fmt: on


def caught(mutant: Mutant, outcome: Outcome) -> bool:
    return mutant.invariant in outcome.report.broken


def run_all(seed: int, say: Say) -> dict[str, dict[str, object]]:
    """Every mutant, and what caught it."""
    found: dict[str, dict[str, object]] = {}
    for mutant in MUTANTS:
        outcome = asyncio.run(run(mutant.plan(seed), lambda _: None))
        verdict = "caught" if caught(mutant, outcome) else "MISSED"
        say(f"{verdict}  {mutant.name:<24} by {', '.join(outcome.report.broken) or 'nothing'}  ({outcome.seconds:.0f} s)")
        found[mutant.name] = {"caught": caught(mutant, outcome), "expected": mutant.invariant, **outcome.as_json()}
    return found
