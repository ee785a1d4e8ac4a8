"""The compose file runs exactly the stages of the table, with settings that exist, images that are pinned and no privileges."""

import re
from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from schemas.config import ConfigFile
from schemas.generate import CHECKOUT
from schemas.topology import STAGES, Stage
from services.cli.up import OPEN_KEY
from shared.config import Settings, env_name

CONFIG = ConfigFile.model_validate(yaml.safe_load((CHECKOUT / "baton.yaml").read_text("utf-8")))
COMPOSE: dict[str, Any] = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text("utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("baton:")}

every_stage = pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
every_service = pytest.mark.parametrize("name", SERVICES)
every_own_service = pytest.mark.parametrize("name", OURS)


@every_stage
def test_a_stage_of_the_table_is_a_service_and_waits_for_its_topics(stage: Stage) -> None:
    service = SERVICES[stage.name]
    assert service["command"] == ["python", "-m", stage.module]
    assert service["depends_on"]["topics"] == {"condition": "service_completed_successfully"}
    assert service["environment"]["KAFKA_BOOTSTRAP_SERVERS"]


def test_services_are_the_stages_and_what_they_need() -> None:
    assert SERVICES.keys() == {stage.name for stage in STAGES} | {"kafka", "topics", "config", "simulator"}


@every_own_service
def test_an_environment_name_is_known(name: str) -> None:
    settings = {env_name(field) for field in Settings.model_fields}
    unknown = OURS[name].get("environment", {}).keys() - settings - _names_in_the_config_file() - _names_it_reads_itself(name)
    assert not unknown, f"{', '.join(sorted(unknown))}: neither a setting nor named in baton.yaml"


def test_the_open_tenants_known_key_is_that_of_baton_up() -> None:
    given = SERVICES["intake"]["environment"]
    assert {name: given[name] for name in OPEN_KEY} == {name: f"${{{name}:-{key}}}" for name, key in OPEN_KEY.items()}


@pytest.mark.parametrize("name", ["config", "executor", "intake"])
def test_what_baton_yaml_refers_to_reaches_the_services_that_resolve_it(name: str) -> None:
    """Else a provider is left out, or a caller turned away, although its key is set where compose runs."""
    resolved = {"config": _names_in_the_config_file(), "executor": _names_of_backends(), "intake": _names_of_tenants()}[name]
    assert resolved
    missing = resolved - OURS[name]["environment"].keys()
    assert not missing, f"{', '.join(sorted(missing))}: baton.yaml refers to it, and {name} never gets it"


@every_service
def test_an_image_has_a_tag(name: str) -> None:
    _, _, tag = SERVICES[name]["image"].partition(":")
    assert tag
    assert tag != "latest"


@every_service
def test_ports_are_open_to_this_machine_only(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", ()))


@every_own_service
def test_a_service_of_ours_can_write_nothing_and_gain_nothing(name: str) -> None:
    service = OURS[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


@every_stage
def test_a_stage_may_drain_before_it_is_killed(stage: Stage) -> None:
    grace_ms = int(SERVICES[stage.name]["stop_grace_period"].removesuffix("s")) * 1000
    assert grace_ms > Settings.model_fields["drain_ms"].default


@every_own_service
def test_a_command_exists_and_takes_its_arguments(name: str) -> None:
    """Stages take no arguments: their settings are the environment."""
    match OURS[name]["command"]:
        case ["baton", *arguments]:
            _parse(import_module("services.cli.__main__").main, arguments)
        case ["python", "-m", module]:
            assert find_spec(f"{module}.__main__"), module
        case ["python", "-m", module, *arguments]:
            _parse(import_module(f"{module}.__main__").main, arguments)
        case other:
            pytest.fail(f"{other}: neither baton nor python -m")


def _parse(command: click.Command, arguments: list[str]) -> None:
    """Raises click.UsageError for an unknown subcommand or option."""
    while isinstance(command, click.Group):
        _, found, arguments = command.resolve_command(click.Context(command), arguments)
        assert found is not None
        command = found
    command.make_context(command.name or "", list(arguments))


def _names_in_the_config_file() -> set[str]:
    """Environment names that baton.yaml refers to: keys, addresses, conditions."""
    conditions = {backend.requires for backend in CONFIG.backends.values() if backend.requires}
    return _names_of_backends() | _names_of_tenants() | conditions


def _names_of_backends() -> set[str]:
    return _named(each for backend in CONFIG.backends.values() for each in (backend.base_url, backend.key or ""))


def _names_of_tenants() -> set[str]:
    return _named(key for tenant in CONFIG.tenants.values() for key in tenant.keys)


def _named(references: Iterable[str]) -> set[str]:
    return {reference.removeprefix("env:") for reference in references if reference.startswith("env:")}


def _names_it_reads_itself(name: str) -> set[str]:
    """Environment names that the service's own `__main__.py` reads beside the settings."""
    spec = find_spec(f"services.{name.replace('-', '_')}") and find_spec(f"services.{name.replace('-', '_')}.__main__")
    source = Path(spec.origin).read_text("utf-8") if spec and spec.origin else ""
    return set(re.findall(r'environment\(\)\.get\("([A-Z_]+)"', source))


def test_the_image_is_not_root_and_installs_only_hashed_packages() -> None:
    dockerfile = (CHECKOUT / "Dockerfile").read_text("utf-8")
    assert "USER 10001" in dockerfile
    assert "ARG BASE=python:3.11-slim" in dockerfile
    assert all("--require-hashes" in line for line in dockerfile.splitlines() if "pip install" in line)
