"""Turns the environment into frozen settings, and secret references into secrets. The only reader of `os.environ`.

What changes while running comes from the `config` topic, not from here. Secrets never reach an error, a log or a repr.
"""

import os
import re
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.topology import REQUEST_PARTITIONS_DEFAULT
from shared.errors import SettingsError

_ENV_NAMES = {"request_partitions": "BATON_PARTITIONS", "replica_index": "BATON_REPLICA"}
_POD = re.compile(r"^.+-(\d{1,3})$")  # a StatefulSet's pod; a Deployment's random suffix has five characters
_SECRET_FIELDS = frozenset({"kafka_sasl_password"})
_PASSWORD_FILE = "KAFKA_SASL_PASSWORD_FILE"
_SHOWN_CHARS_MAX = 40
_ADDRESS = re.compile(r"(?:[^\s:/\[\]]+|\[[0-9A-Fa-f:.]+\])(?::(\d{1,5}))?")   # without a port the client takes 9092


class Settings(BaseModel):
    """Everything a process is told from outside, with its limits. `env_name` gives the environment name of a field."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    kafka_bootstrap_servers: str = ""
    """Brokers to find the cluster by: host:port, comma-separated."""
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """How the brokers are spoken to."""
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    """How SASL_* protocols log in."""
    kafka_sasl_username: str = ""
    """User of SASL_* protocols."""
    kafka_sasl_password: str = Field("", repr=False)
    """Its password; better KAFKA_SASL_PASSWORD_FILE, a file that holds it."""
    kafka_ssl_cafile: str = ""
    """File of the certificate authority; empty: the system's own."""

    request_partitions: int = Field(REQUEST_PARTITIONS_DEFAULT, ge=1, le=1000)
    """Partitions of request-keyed topics at creation: the most replicas a stage can use."""
    replication_factor: int = Field(1, ge=1, le=10)
    """Copies of each partition at creation; 3 in production."""
    replica_index: int = Field(0, ge=0)
    """Number of this replica; by default the end of a StatefulSet pod's HOSTNAME (intake-3: 3), else 0."""

    http_host: str = "127.0.0.1"
    """Address that intake and the health endpoints listen on; 0.0.0.0 inside a container."""
    http_port: int = Field(8080, ge=0, le=65535)
    """Where intake listens for requests; 0: any free port."""
    health_port: int = Field(0, ge=0, le=65535)
    """Where health and metrics are served; 0: off."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severe level that is logged."""

    session_timeout_ms: int = Field(15_000, ge=1000)
    """Silence after which the group gives a member's partitions away."""
    heartbeat_interval_ms: int = Field(1_000, ge=100)
    """Time between two heartbeats; at most a third of the session timeout."""
    rebalance_timeout_ms: int = Field(45_000, ge=1000)
    """Time a member has to give partitions up in a rebalance."""
    transaction_timeout_ms: int = Field(15_000, ge=1000)
    """Age at which the broker ends an open transaction."""
    commit_interval_ms: int = Field(200, ge=1)
    """Time between two commits of a stage's progress."""
    linger_ms: int = Field(0, ge=0)
    """Time a producer waits for more records before it sends."""
    flush_interval_ms: int = Field(10, ge=0)
    """Time the output lane gathers records for one transaction."""
    drain_ms: int = Field(30_000, ge=0)
    """Time to finish what is in flight when told to stop."""

    span_max: int = Field(10_000, ge=1)
    """Records between a partition's oldest unfinished and newest taken one."""
    in_flight_max: int = Field(1000, ge=1)
    """Records a process handles at once."""
    parked_max: int = Field(2000, ge=1)
    """Records of one topic that may wait in a process, beside those it handles, for a gate, a circuit or a free place."""
    held_max: int = Field(5_000, ge=1)
    """Records of one topic that a process holds open for others of their request, and those behind; one more ends a request."""
    tries_max: int = Field(3, ge=1)
    """Tries of a record before it becomes a dead letter."""
    # Half of them is what is always remembered, at 12 to 24 bytes an id: 208 s at 1,200 requests a second, where a request has
    # 60 s unless it asks for more. So a look-up is rare but for a backlog that is older: one of an hour, the longest deadline
    # unless a policy allows more, has them from 70 requests a second on. Each reads a partition's log of that hour, once for all
    # who wait: nothing is wrong then, but slow, and a larger number helps. Output has one such memory, the gate up to four.
    seen_max: int = Field(500_000, ge=1)
    """Request ids that a replica of output or the gate remembers, of all its partitions; older ones are looked up in the log."""
    observe_interval_ms: int = Field(250, ge=10)
    """Time between two observations of a backend by one executor."""

    circuit_cooldown_ms: int = Field(15_000, ge=100)
    """Time a backend's circuit stays open at first; twice as long after each failed probe."""
    circuit_ramp_ms: int = Field(30_000, ge=0)
    """Time in which a recovered backend gets its full share of traffic back."""
    circuit_probe_patience_ms: int = Field(90_000, ge=100)
    """Time executors have to probe a backend before others may. A backend whose `timeout_ms` is within 10 s
    of it, or above, gets 10 s more than that: a call that is under way must be able to count."""

    @classmethod
    def from_environment(cls, env: Mapping[str, str] | None = None, needs_broker: bool = True) -> "Settings":
        """Settings of this process; an empty value counts as unset. Raises one SettingsError that names all problems."""
        env = environment() if env is None else env
        given = {name: value for name in cls.model_fields if (value := env.get(env_name(name), "").strip())}
        problems = _password_from_file(env, given)
        if "log_level" in given:
            given["log_level"] = given["log_level"].upper()
        if "replica_index" not in given and (pod := _POD.match(env.get("HOSTNAME", ""))):
            given["replica_index"] = pod[1]
        settings, invalid = _validated(given)
        problems += invalid + _contradictions(settings) + _unusable(settings)
        if needs_broker and not settings.kafka_bootstrap_servers:
            problems.append("KAFKA_BOOTSTRAP_SERVERS: not set; give host:port of a Kafka broker")
        if problems:
            raise SettingsError("the environment needs a fix:\n  " + "\n  ".join(problems))
        return settings

    @property
    def kafka_security(self) -> tuple[tuple[str, str], ...]:
        """The Kafka client's arguments for encryption and login, as `KafkaOptions.security` takes them."""
        arguments: dict[str, str] = {"security_protocol": self.kafka_security_protocol}
        if self.kafka_ssl_cafile:
            arguments["ssl_cafile"] = self.kafka_ssl_cafile
        if self.kafka_security_protocol.startswith("SASL"):
            arguments["sasl_mechanism"] = self.kafka_sasl_mechanism
            arguments["sasl_plain_username"] = self.kafka_sasl_username
            arguments["sasl_plain_password"] = self.kafka_sasl_password
        return tuple(arguments.items())


def environment() -> Mapping[str, str]:
    """The process's environment, for callers that pass it on to pure functions."""
    return os.environ


def env_name(field: str) -> str:
    """Environment name of a field of Settings: `KAFKA_…` as it is, two short names, else `BATON_` and the field."""
    if field.startswith("kafka_"):
        return field.upper()
    return _ENV_NAMES.get(field, f"BATON_{field.upper()}")


def _validated(given: Mapping[str, str]) -> tuple[Settings, list[str]]:
    """Settings with every invalid value replaced by its default, and a sentence about each of those."""
    try:
        return Settings.model_validate(given), []
    except ValidationError as error:
        invalid = {str(problem["loc"][0]): problem["msg"] for problem in error.errors()}
    settings = Settings.model_validate({name: value for name, value in given.items() if name not in invalid})
    return settings, [_sentence(name, message, given[name]) for name, message in invalid.items()]


def _sentence(name: str, message: str, value: str) -> str:
    field = Settings.model_fields[name]
    found = "" if name in _SECRET_FIELDS else f' (found "{value[:_SHOWN_CHARS_MAX]}")'
    return f"{env_name(name)}: {message[0].lower()}{message[1:]}{found}; {field.description} Default: {field.default}"


def _contradictions(settings: Settings) -> list[str]:
    problems = []
    if settings.heartbeat_interval_ms * 3 > settings.session_timeout_ms:
        problems.append(
            f"BATON_HEARTBEAT_INTERVAL_MS: {settings.heartbeat_interval_ms} is more than a third of "
            f"BATON_SESSION_TIMEOUT_MS, {settings.session_timeout_ms}; lower it or raise the other"
        )
    if settings.kafka_security_protocol.startswith("SASL"):
        problems += [
            f"{env_name(name)}: not set; KAFKA_SECURITY_PROTOCOL={settings.kafka_security_protocol} needs it"
            for name in ("kafka_sasl_username", "kafka_sasl_password")
            if not getattr(settings, name)
        ]
    return problems


def _unusable(settings: Settings) -> list[str]:
    """What the Kafka client would only find out by an exception of its own, in the middle of a start."""
    addresses = [address.strip() for address in settings.kafka_bootstrap_servers.split(",")]
    problems = [
        f'KAFKA_BOOTSTRAP_SERVERS: "{address[:_SHOWN_CHARS_MAX]}" is no address; give host:port, comma-separated'
        for address in addresses
        if settings.kafka_bootstrap_servers and not _is_address(address)
    ]
    if settings.kafka_ssl_cafile and "SSL" in settings.kafka_security_protocol:
        problems += _ca_file_problems(settings.kafka_ssl_cafile)
    return problems


def _is_address(text: str) -> bool:
    found = _ADDRESS.fullmatch(text)
    return found is not None and (found[1] is None or 1 <= int(found[1]) <= 65535)


def _ca_file_problems(path: str) -> list[str]:
    try:
        ssl.create_default_context(cafile=path)
    except OSError as error:
        reason = "holds no certificate" if isinstance(error, ssl.SSLError) else (error.strerror or str(error)).lower()
        return [f"KAFKA_SSL_CAFILE: {path}: {reason}; mount a PEM file there, readable for this process, or unset it"]
    return []


def _password_from_file(env: Mapping[str, str], given: dict[str, str]) -> list[str]:
    """Put the password of KAFKA_SASL_PASSWORD_FILE among what is given; returns what is wrong with it."""
    path = env.get(_PASSWORD_FILE, "").strip()
    if not path:
        return []
    if "kafka_sasl_password" in given:
        return [f"{_PASSWORD_FILE}: KAFKA_SASL_PASSWORD is set too; keep one of them"]
    try:
        given["kafka_sasl_password"] = resolve_secret(f"file:{path}", env)
    except SettingsError as error:
        return [f"{_PASSWORD_FILE}: {error}"]
    return []


_Stamp = tuple[int, int, int]
_secret_files: dict[str, tuple[_Stamp, str]] = {}


def resolve_secret(reference: str, env: Mapping[str, str] | None = None) -> str:
    """The secret behind `env:NAME` or `file:/path`, stripped.

    A file is read again when it changed, so rotation needs no restart. Raises SettingsError that names the reference
    and the fix; of something that is no reference it quotes nothing, for it may be the secret itself.
    """
    kind, _, where = reference.partition(":")
    if kind == "env" and where:
        secret = (environment() if env is None else env).get(where, "").strip()
        if not secret:
            raise SettingsError(f"{reference}: not set; export {where}, or refer to a file with file:/path")
        return secret
    if kind == "file" and where:
        return _secret_of_file(where)
    raise SettingsError("a secret must be given as a reference: env:NAME or file:/path")


def _secret_of_file(path: str) -> str:
    try:
        found = os.stat(path)
        stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
        known = _secret_files.get(path)
        if known is None or known[0] != stamp:
            known = _secret_files[path] = (stamp, Path(path).read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise SettingsError(f"file:{path}: {reason}; mount the secret there, readable for this process") from None
    if not known[1]:
        raise SettingsError(f"file:{path}: is empty; write the secret into it")
    return known[1]


def unresolved(references: Sequence[str], env: Mapping[str, str]) -> list[str]:
    """Why references yield no secret here, one sentence each."""
    problems = []
    for reference in references:
        try:
            resolve_secret(reference, env)
        except SettingsError as error:
            problems.append(str(error))
    return problems
