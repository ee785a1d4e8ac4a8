"""Starts one replica of preprocessing: `python -m services.preprocessing`."""

from services.preprocessing.main import Preprocessing
from shared.service import World, run_service


def _preprocessing(world: World) -> Preprocessing:
    return Preprocessing(world.catalogue)


if __name__ == "__main__":
    run_service("preprocessing", _preprocessing)
