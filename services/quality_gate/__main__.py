"""Starts one replica of the quality gate: `python -m services.quality_gate`."""

from services.quality_gate.main import QualityGate
from shared.service import World, run_service


def _quality_gate(world: World) -> QualityGate:
    return QualityGate(world.catalogue, world.clock, world.broker, world.settings.seen_max, world.quality)


if __name__ == "__main__":
    run_service("quality-gate", _quality_gate)
