"""Writes a config file to the `config` topic: `baton apply`. What the file no longer has is removed from the topic.

It never writes a secret, and never an apply without the record that closes it.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from schemas.certificate import Certificate
from schemas.config import ConfigFile, ConfigRecord, Strict
from schemas.pipeline import expanded
from schemas.topology import CONFIG, topic_spec
from services.cli.address import BOOTSTRAP, bootstrap_option, known_environment, known_settings
from services.cli.config_file import SECRET_FIELDS, load, offered
from shared.broker import Broker, Output
from shared.catalogue import VERSION_KEY
from shared.clock import SystemClock
from shared.codec import decode, encode, headers_for
from shared.errors import BatonError, BrokerUnavailableError, UndecodableError
from shared.kafka import KafkaBroker
from shared.service import kafka_options

POLL_MS = 200
RETRY_S = 1.0
WAIT_S = 60

TESTED = "certificate/"
"""Keys of what `baton certify` wrote: no file has them, and no apply removes them."""

Spec = Mapping[str, Any]


@dataclass(frozen=True)
class Current:
    """The `config` topic as read: objects by key, None where a record makes no sense."""

    specs: Mapping[str, Spec | None] = field(default_factory=dict)
    version: int = 0
    closed: bool = True     # whether the newest record closes an apply; if not, one was cut short


@dataclass(frozen=True)
class ApplyReport:
    """What an apply did, or would do. `version` is the one in force afterwards, in epoch milliseconds."""

    version: int
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    repaired: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether there was nothing to write."""
        return not (self.added or self.changed or self.removed or self.repaired)

    def lines(self) -> list[str]:
        """The difference, one line per object."""
        signs = (("+", self.added), ("~", self.changed), ("-", self.removed))
        repair = ["! the last apply was cut short; this one completes it"] if self.repaired else []
        return [f"{sign} {line}" for sign, lines in signs for line in lines] + repair


async def apply_config(broker: Broker, config: ConfigFile, now_ms: int, dry_run: bool = False) -> ApplyReport:
    """Make the `config` topic hold exactly this config; running services swap to it when the closing record arrives.

    Objects come first, then tombstones, then the closing record, so a crash on the way changes nothing for services that
    run; the next apply completes it. Every object is written even if one changed: when two applies race, the one that
    writes last wins wholly, but for objects that only the other added; applying again removes those.
    Raises BrokerUnavailableError.
    """
    if not await broker.partition_counts([CONFIG.name]):
        if dry_run:
            return _report(Current(), specs_of(config), now_ms)
        await broker.create_topics([topic_spec(CONFIG)])
    current = await _read(broker)
    specs = specs_of(config)
    report = _report(current, specs, now_ms)
    if not dry_run and not report.is_empty:
        await _write(broker, specs, current.specs.keys() - specs.keys(), report.version)
    return report


async def apply_certificate(broker: Broker, model: str, certificate: Certificate) -> int:
    """Put one model's certificate into force, and nothing else. Returns the version. Raises BrokerUnavailableError."""
    current = await _read(broker)
    version = max(certificate.tested_ms, current.version + 1)
    await _write(broker, {f"{TESTED}{model}": certificate.model_dump(mode="json", exclude_defaults=True)}, set(), version)
    return version


def specs_of(config: ConfigFile) -> dict[str, Spec]:
    """Objects by `kind/name`; defaults are left out, as in every record."""
    kinds: dict[str, Mapping[str, Strict]] = {
        "model": config.models,
        "backend": config.backends,
        "tenant": config.tenants,
        "policy": config.policies,
        "pipeline": {name: expanded(name, config.pipelines) for name in config.pipelines},
    }
    return {
        f"{kind}/{name}": spec.model_dump(mode="json", exclude_defaults=True)
        for kind, objects in kinds.items()
        for name, spec in objects.items()
    }


def _report(current: Current, wanted: Mapping[str, Spec], now_ms: int) -> ApplyReport:
    report = ApplyReport(
        version=max(now_ms, current.version + 1),
        added=tuple(sorted(wanted.keys() - current.specs.keys())),
        changed=tuple(
            f"{key}: {_difference(current.specs[key], wanted[key])}"
            for key in sorted(wanted.keys() & current.specs.keys())
            if current.specs[key] != wanted[key]
        ),
        removed=tuple(sorted(current.specs.keys() - wanted.keys())),
        repaired=not current.closed,
    )
    return report if not report.is_empty else ApplyReport(version=current.version)


def _difference(old: Spec | None, new: Spec) -> str:
    if old is None:
        return "cannot be read, written anew"
    before, after = dict(_flat(old)), dict(_flat(new))
    names = [name for name in before | after if before.get(name) != after.get(name)]
    shown = {name: f"{name} {before.get(name, 'default')} -> {after.get(name, 'default')}" for name in names}
    return ", ".join(name if SECRET_FIELDS.intersection(name.split(".")) else shown[name] for name in names)


def _flat(spec: Spec, prefix: str = "") -> list[tuple[str, Any]]:
    """Fields with dotted names."""
    flat: list[tuple[str, Any]] = []
    for name, value in spec.items():
        flat += _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(prefix + name, value)]
    return flat


async def _read(broker: Broker) -> Current:
    """The topic from beginning to end, as of now."""
    specs: dict[str, Spec | None] = {}
    version, newest = 0, VERSION_KEY
    reader = await broker.reader(CONFIG.name)
    try:
        ends = await reader.ends()
        while any([await reader.position(partition) < end for partition, end in ends.items()]):
            for record in await reader.poll(POLL_MS):
                newest = (record.key or b"").decode("utf-8", "replace")
                found = _decoded(record.value)
                version = max(version, found.version if found else 0)
                if record.value is None:
                    specs.pop(newest, None)
                else:
                    specs[newest] = found.spec if found else None
    finally:
        await reader.close()
    specs = {key: spec for key, spec in specs.items() if key != VERSION_KEY and not key.startswith(TESTED)}
    return Current(specs, version, closed=newest == VERSION_KEY)


def _decoded(value: bytes | None) -> ConfigRecord | None:
    try:
        record: ConfigRecord = decode(CONFIG, value)
        return record
    except UndecodableError:
        return None


async def _write(broker: Broker, specs: Mapping[str, Spec], removed: set[str], version: int) -> None:
    """Objects and tombstones, then the closing record. Raises BrokerUnavailableError."""
    producer = await broker.producer()
    try:
        objects = [_output(key, version, spec) for key, spec in specs.items()]
        tombstones = [Output(CONFIG.name, key.encode(), None) for key in sorted(removed)]
        await asyncio.gather(*[await producer.send(output) for output in objects + tombstones])
        await (await producer.send(_output(VERSION_KEY, version, {})))
    finally:
        await producer.close()


def _output(key: str, version: int, spec: Spec) -> Output:
    kind, _, name = key.partition("/")
    record = ConfigRecord.model_validate({"kind": kind, "name": name, "version": version, "spec": spec})
    return Output(CONFIG.name, key.encode(), encode(CONFIG, record), headers_for(CONFIG, "cli", None))


# On the command line --------------------------------------------------------------------------------------------------


@click.command("apply")
@click.argument("file", default="baton.yaml", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
@click.option("--wait", is_flag=True, help=f"Wait up to {WAIT_S} s for a broker that does not answer yet.")
@bootstrap_option
def apply(file: Path, dry_run: bool, wait: bool, bootstrap: str | None) -> None:
    """Check FILE (default: baton.yaml) and put it into force, without a restart of anything."""
    try:
        choice = offered(load(file), known_environment(bootstrap))
        for note in choice.left_out:
            click.echo(note, err=True)
        report = asyncio.run(_apply(choice.config, dry_run, WAIT_S if wait else 0, bootstrap))
    except BatonError as error:
        raise click.ClickException(str(error)) from None
    for line in report.lines():
        click.echo(line)
    click.echo(_conclusion(report, dry_run))


def _conclusion(report: ApplyReport, dry_run: bool) -> str:
    if report.is_empty:
        return f"nothing changed; version {report.version} stays in force"
    return "nothing written (--dry-run)" if dry_run else f"version {report.version} is in force"


async def _apply(config: ConfigFile, dry_run: bool, wait_s: float, bootstrap: str | None) -> ApplyReport:
    """Raises BrokerUnavailableError when the broker does not answer in time."""
    settings = known_settings(bootstrap)
    broker = KafkaBroker(kafka_options(settings, "baton-apply"))
    clock = SystemClock()
    give_up_s = clock.monotonic_s() + wait_s
    try:
        while True:
            try:
                return await apply_config(broker, config, clock.now_ms(), dry_run)
            except BrokerUnavailableError as error:
                if clock.monotonic_s() >= give_up_s:
                    where = f"no broker answers at {settings.kafka_bootstrap_servers}"
                    fix = f"correct {BOOTSTRAP} or --bootstrap, or try --wait"
                    raise BrokerUnavailableError(f"{where}: {fix} ({error})") from error
            await asyncio.sleep(RETRY_S)
    finally:
        await broker.close()
