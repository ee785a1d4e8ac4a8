"""The planted faults fit what they are planted in: one that only crashes proves nothing about the checks."""

import inspect
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.chaos.mutant import PLANTS

Place = tuple[Any, str]


def behaviour() -> Iterator[tuple[Place, Any]]:
    """Every function, method and switch of Baton that is loaded, by where it stands."""
    modules = [module for name, module in list(sys.modules.items()) if name.startswith(("shared.", "services."))]
    classes = {each for module in modules for each in vars(module).values() if inspect.isclass(each)}
    for owner in (*modules, *(each for each in classes if each.__module__.startswith(("shared.", "services.")))):
        for name, value in list(vars(owner).items()):
            if inspect.isfunction(value) or isinstance(value, bool):
                yield (owner, name), value


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_fault_takes_all_that_what_it_replaces_takes(name: str) -> None:
    before = dict(behaviour())
    PLANTS[name]()
    replaced = [(place, before[place], value) for place, value in behaviour() if before.get(place) is not value]
    for (owner, attribute), original, _ in replaced:
        setattr(owner, attribute, original)
    assert replaced
    for _, original, planted in replaced:
        if isinstance(original, bool):
            continue
        parameters = inspect.signature(original).parameters
        inspect.signature(planted).bind(*parameters)   # raises TypeError where there is one too few
