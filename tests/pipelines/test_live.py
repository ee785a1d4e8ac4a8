"""Every example of the page, and a nest of all patterns, end to end: a real broker, processes, the simulator as the provider."""

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
import yaml

from schemas.config import ConfigFile
from schemas.ledger import AttemptPhase
from schemas.messages import Status
from schemas.topology import COMPLETIONS
from services.cli.config_file import load, offered
from shared.codec import decode
from tests.pipelines.test_examples import examples
from tests.support.system import ROOT, Setup, System, evidence, running
from tests.support.traffic import Asked, Stream, of_stream

NEST = yaml.safe_load("""
sequence:
  - name: kind
    step: {prompt: "Classify this as question or order: {{ request.text }}", gate: {checks: [not_empty]}}
  - branch:
      cases:
        - when: {value: kind.text, matches: "."}
          then:
            parallel:
              merge: all
              branches:
                - loop:
                    at_most: 2
                    until: {value: output.text, contains: [e]}
                    body: {step: {prompt: "Turn {{ turn.number }}"}}
                - sequence:
                    - name: list
                      step:
                        prompt: "Name the sections of an article about: {{ request.text }}"
                        model: sim-large
                        output:
                          type: object
                          required: [items]
                          properties: {items: {type: array, minItems: 2, maxItems: 4, items: {type: string}}}
                    - map: {over: list.json.items, body: {step: {prompt: "Say in a sentence: {{ item }}", gate: {checks: []}}}}
              quorum: 1
              limit_ms: 20000
      default: {step: {}}
""")
EACH = 6


def config(url: str) -> ConfigFile:
    providers = {"BATON_SIMULATOR_ALPHA_URL": f"{url}/alpha/v1", "BATON_SIMULATOR_BETA_URL": f"{url}/beta/v1"}
    base = offered(load(ROOT / "baton.yaml"), providers).config
    return ConfigFile.model_validate({**base.model_dump(), "pipelines": {**examples(), "nest": NEST}})


async def _asked(system: System) -> list[Asked]:
    names = [*examples(), "nest"]
    streams = [Stream(name, 2, EACH / 2, {"pipeline": name, "deadline_ms": 60_000}) for name in names]
    return await system.answered(await system.send(*streams))


def test_every_pattern_runs_on_a_real_broker_and_its_cost_is_what_the_provider_billed() -> None:
    async def main() -> None:
        async with running(Setup(config, replicas={"router": 2, "executor": 2}, latency_scale=0.2), print) as system:
            asked = await _asked(system)
            await asyncio.sleep(1)
            ledger = await system.attempts()
            invoice = {line["attempt_id"]: line["cost_microusd"] for line in await system.simulator.invoice()}
            completions = [decode(COMPLETIONS, record.value) for record in await system.records(COMPLETIONS)]
        assert all(one.result is not None for one in asked)
        for name in [*examples(), "nest"]:
            delivered = [one for one in of_stream(asked, name) if one.is_delivered]
            assert len(delivered) >= EACH // 3, f"{name}: {[one.result and one.result.message for one in of_stream(asked, name)]}"
        closed = {line.attempt_id: line for line in ledger if line.phase is AttemptPhase.FINISHED and line.cost_known}
        assert all(invoice.get(id, 0) == line.cost_microusd for id, line in closed.items())
        _check_maps(asked, completions)

    evidence(main())


def _check_maps(asked: list[Asked], completions: Sequence[Any]) -> None:
    """What a nest's map yielded is what its items said, in their order."""
    said = {(each.request_id, each.payload.slip.step): each.payload.answer.text
            for each in completions if each.payload.answer is not None}
    nests = [one.result for one in of_stream(asked, "nest") if one.is_delivered]
    assert nests
    for result in nests:
        assert result is not None
        assert result.answer is not None
        assert result.status is Status.DELIVERED
        for part in orjson.loads(result.answer.text):
            if isinstance(part, list):
                assert part == [said[result.request_id, f"p.1.0.1.1.{number}"] for number in range(len(part))]
