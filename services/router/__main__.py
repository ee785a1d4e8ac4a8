"""Starts one replica of the router: `python -m services.router`."""

from services.router.main import Router
from shared.service import World, run_service
from shared.slips import Slips


def _router(world: World) -> Router:
    return Router(world.catalogue, world.fleet, world.clock, world.spend, world.quality, Slips(world.broker))


if __name__ == "__main__":
    run_service("router", _router)
