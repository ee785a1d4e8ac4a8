"""`baton apply` makes the config topic hold exactly what the file says, and closes every apply."""

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner

from schemas.certificate import CapabilityScore, Certificate
from schemas.config import ConfigFile, ConfigRecord, Prices, Quirks
from schemas.topology import CONFIG, topic_spec
from services.cli.apply import apply, apply_certificate, apply_config
from services.cli.config_file import load, offered
from shared.broker import Output
from shared.catalogue import VERSION_KEY, Catalogue
from shared.codec import decode
from shared.errors import BrokerUnavailableError
from shared.local import LocalBroker
from shared.table import Table

BATON_YAML = Path(__file__).resolve().parents[2] / "baton.yaml"
SIMULATOR = {f"BATON_SIMULATOR_{name}_URL": f"http://127.0.0.1:1/{name.lower()}/v1" for name in ("ALPHA", "BETA")}


@pytest.fixture(scope="module")
def config() -> ConfigFile:
    return offered(load(BATON_YAML), SIMULATOR).config


@pytest.fixture
async def broker() -> AsyncIterator[LocalBroker]:
    cluster = LocalBroker()
    yield cluster
    await cluster.close()


async def catalogue_of(broker: LocalBroker) -> Catalogue:
    """What a service makes of the topic."""
    table: Table[ConfigRecord] = Table(broker, CONFIG)
    await table.start()
    await table.close()
    return Catalogue.from_records(table.values)


def log_of(broker: LocalBroker) -> list[tuple[str, ConfigRecord | None]]:
    (records,) = broker.logs[CONFIG.name]
    return [((r.key or b"").decode(), decode(CONFIG, r.value) if r.value else None) for r in records]


def changed(config: ConfigFile, section: str, name: str, **fields: object) -> ConfigFile:
    objects = dict(getattr(config, section))
    objects[name] = objects[name].model_copy(update=fields)
    return config.model_copy(update={section: objects})


async def test_the_first_apply_creates_the_topic_and_the_catalogue_equals_the_file(
    broker: LocalBroker, config: ConfigFile
) -> None:
    report = await apply_config(broker, config, now_ms=1000)
    catalogue = await catalogue_of(broker)
    assert report.version == catalogue.version == 1000
    assert catalogue.problems == ()
    assert (catalogue.models, catalogue.tenants) == (config.models, config.tenants)
    assert (catalogue.backends, catalogue.policies) == (config.backends, config.policies)
    assert catalogue.backends["alpha-nano"].base_url == SIMULATOR["BATON_SIMULATOR_ALPHA_URL"]
    assert "model/sim-small" in report.added
    assert len(report.added) == len(broker.logs[CONFIG.name][0]) - 1


async def test_the_closing_record_comes_last(broker: LocalBroker, config: ConfigFile) -> None:
    await apply_config(broker, config, now_ms=1000)
    keys = [key for key, _ in log_of(broker)]
    assert keys.index(VERSION_KEY) == len(keys) - 1


async def test_nothing_changed_writes_nothing(broker: LocalBroker, config: ConfigFile) -> None:
    await apply_config(broker, config, now_ms=1000)
    before = log_of(broker)
    report = await apply_config(broker, config, now_ms=2000)
    assert report.is_empty
    assert report.version == 1000
    assert log_of(broker) == before


async def test_the_difference_names_added_changed_and_removed_objects(broker: LocalBroker, config: ConfigFile) -> None:
    await apply_config(broker, config, now_ms=1000)
    prices = config.backends["alpha-nano"].prices.model_copy(update={"input": Decimal(1)})
    wanted = changed(config, "backends", "alpha-nano", prices=prices, base_url="http://elsewhere/v1")
    tenants = {"new": config.tenants["demo"], **{n: t for n, t in config.tenants.items() if n != "acme"}}
    report = await apply_config(broker, wanted.model_copy(update={"tenants": tenants}), now_ms=2000)
    assert report.lines() == [
        "+ tenant/new",
        "~ backend/alpha-nano: base_url, prices.input 0.05 -> 1",
        "- tenant/acme",
    ]
    catalogue = await catalogue_of(broker)
    assert catalogue.version == 2000
    assert set(catalogue.tenants) == {"demo", "new"}
    assert ("tenant/acme", None) in log_of(broker)


async def test_every_field_of_a_backend_survives_the_topic_and_no_header_is_shown(broker: LocalBroker) -> None:
    real = load(BATON_YAML)
    later = Prices.model_validate({"input": "0.1", "output": 1, "effective_from": "2027-01-01", "version": "2"})
    quirks = Quirks(headers={"x-team": "canary"}, query={"v": "1"}, drop=("seed",))
    wanted = changed(real, "backends", "gemini-pro", price_changes=(later,), quirks=quirks)
    await apply_config(broker, real, now_ms=1000)
    (line,) = (await apply_config(broker, wanted, now_ms=2000)).lines()
    assert (await catalogue_of(broker)).backends == wanted.backends
    assert "canary" not in line
    assert "quirks.headers.x-team" in line


async def test_a_field_that_goes_back_to_its_default_is_a_change(broker: LocalBroker, config: ConfigFile) -> None:
    await apply_config(broker, changed(config, "backends", "alpha-nano", weight=3.0), now_ms=1000)
    report = await apply_config(broker, config, now_ms=2000)
    assert report.lines() == ["~ backend/alpha-nano: weight 3.0 -> default"]
    assert (await catalogue_of(broker)).backends["alpha-nano"].weight == 1.0


async def test_a_dry_run_writes_nothing_not_even_the_topic(broker: LocalBroker, config: ConfigFile) -> None:
    report = await apply_config(broker, config, now_ms=1000, dry_run=True)
    assert report.added
    assert CONFIG.name not in broker.logs
    await apply_config(broker, config, now_ms=1000)
    before = log_of(broker)
    weighed = changed(config, "backends", "alpha-nano", weight=3.0)
    assert not (await apply_config(broker, weighed, now_ms=2000, dry_run=True)).is_empty
    assert log_of(broker) == before


async def test_versions_rise_even_when_the_clock_does_not(broker: LocalBroker, config: ConfigFile) -> None:
    await apply_config(broker, config, now_ms=5000)
    for now_ms in (5000, 10):
        weight = 2.0 + now_ms
        await apply_config(broker, changed(config, "backends", "alpha-nano", weight=weight), now_ms)
    versions = [record.version for key, record in log_of(broker) if key == VERSION_KEY and record]
    assert versions == [5000, 5001, 5002]


async def test_an_apply_that_was_cut_short_is_completed_by_the_next(broker: LocalBroker, config: ConfigFile) -> None:
    await apply_config(broker, config, now_ms=1000)
    await apply_config(broker, changed(config, "models", "sim-nano", quality=0.1), now_ms=2000)
    broker.logs[CONFIG.name][0].pop()   # it died before the closing record
    report = await apply_config(broker, changed(config, "models", "sim-nano", quality=0.1), now_ms=3000)
    assert report.repaired
    assert log_of(broker)[-1][0] == VERSION_KEY
    assert (await catalogue_of(broker)).version == 3000
    assert (await apply_config(broker, changed(config, "models", "sim-nano", quality=0.1), now_ms=4000)).is_empty


async def test_a_record_that_makes_no_sense_is_replaced_or_removed(broker: LocalBroker, config: ConfigFile) -> None:
    await broker.create_topics([topic_spec(CONFIG)])
    producer = await broker.producer()
    for key in (b"model/sim-nano", b"model/ghost"):
        await producer.send(Output(CONFIG.name, key, b"\xffnonsense"))
    report = await apply_config(broker, config, now_ms=1000)
    assert report.removed == ("model/ghost",)
    assert report.changed == ("model/sim-nano: cannot be read, written anew",)
    assert (await catalogue_of(broker)).models == config.models


async def test_the_last_of_two_applies_wins(broker: LocalBroker, config: ConfigFile) -> None:
    await apply_config(broker, changed(config, "models", "sim-nano", quality=0.1), now_ms=1000)
    await apply_config(broker, changed(config, "models", "sim-small", quality=0.2), now_ms=1000)
    catalogue = await catalogue_of(broker)
    assert catalogue.models["sim-nano"].quality == config.models["sim-nano"].quality
    assert catalogue.models["sim-small"].quality == 0.2


async def test_a_broker_that_is_away_is_told(broker: LocalBroker, config: ConfigFile) -> None:
    broker.unavailable = True
    with pytest.raises(BrokerUnavailableError):
        await apply_config(broker, config, now_ms=1000)


# On the command line --------------------------------------------------------------------------------------------------


def test_a_mistake_ends_the_command_before_any_broker_is_asked(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("models: {}\nbackends: {b: {}}\ntenants: {}\n")
    done = CliRunner().invoke(apply, [str(file)], env={"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"})
    assert done.exit_code == 1
    assert "mine.yaml:2: backends.b.provider: missing" in done.output


def test_settings_that_are_wrong_end_the_command(tmp_path: Path) -> None:
    env = SIMULATOR | {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "BATON_TRIES_MAX": "x"}
    done = CliRunner().invoke(apply, [str(BATON_YAML)], env=env)
    assert done.exit_code == 1
    assert "BATON_TRIES_MAX" in done.output
    assert "left out: openai-mini, openai-4o (OPENAI_API_KEY not set)" in done.output


@pytest.mark.parametrize(("set_to", "option"), [("127.0.0.1:1", []), ("127.0.0.1:2", ["--bootstrap", "127.0.0.1:1"])])
def test_a_broker_that_does_not_answer_is_named_with_the_fix(set_to: str, option: list[str]) -> None:
    done = CliRunner().invoke(apply, [str(BATON_YAML), *option], env=SIMULATOR | {"KAFKA_BOOTSTRAP_SERVERS": set_to})
    assert done.exit_code == 1
    assert "no broker answers at 127.0.0.1:1: correct KAFKA_BOOTSTRAP_SERVERS or --bootstrap, or try --wait" in done.output


async def test_a_certificate_is_in_force_at_once_and_an_apply_neither_removes_nor_reports_it(
    broker: LocalBroker, config: ConfigFile
) -> None:
    await apply_config(broker, config, now_ms=1000)
    shown = CapabilityScore(score=1, certified=True)
    version = await apply_certificate(broker, "sim-small", Certificate(suite="1", tested_ms=500, capabilities={"code": shown}))
    catalogue = await catalogue_of(broker)
    assert (catalogue.version, version) == (1001, 1001)
    assert catalogue.certificates["sim-small"].certified == {"code"}
    assert (await apply_config(broker, config, now_ms=2000)).is_empty
    fewer = config.model_copy(update={"policies": {"default": config.policies["default"]}})
    report = await apply_config(broker, fewer, now_ms=3000)
    assert report.removed == ("policy/careful",)
    assert (await catalogue_of(broker)).certificates["sim-small"].certified == {"code"}
