"""Settings come from the environment in one go, and secrets never show."""

import os
from pathlib import Path

import pytest

from schemas.topology import stage_named
from shared.config import Settings, env_name, resolve_secret
from shared.errors import SettingsError
from shared.service import runner_options

BROKER = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9092"}


def test_the_broker_alone_is_enough_and_the_rest_has_defaults() -> None:
    settings = Settings.from_environment(BROKER)
    assert settings.kafka_bootstrap_servers == "127.0.0.1:9092"
    assert settings == Settings(kafka_bootstrap_servers="127.0.0.1:9092")


def test_every_setting_has_a_description_and_its_own_environment_name() -> None:
    names = [env_name(field) for field in Settings.model_fields]
    assert len(set(names)) == len(names)
    assert all(name.startswith(("BATON_", "KAFKA_")) for name in names)
    assert all(field.description for field in Settings.model_fields.values())


def test_a_value_is_read_from_its_environment_name() -> None:
    given = {"BATON_PARTITIONS": "12", "BATON_REPLICA": "3", "BATON_DRAIN_MS": " 500 ", "BATON_LOG_LEVEL": "debug"}
    settings = Settings.from_environment(BROKER | given)
    assert (settings.request_partitions, settings.replica_index, settings.drain_ms) == (12, 3, 500)
    assert settings.log_level == "DEBUG"


def test_an_empty_value_counts_as_unset() -> None:
    assert Settings.from_environment(BROKER | {"BATON_TRIES_MAX": ""}).tries_max == 3


def test_one_error_names_all_problems_and_their_fix() -> None:
    given = {
        "BATON_TRIES_MAX": "three",
        "BATON_HTTP_PORT": "70000",
        "BATON_SESSION_TIMEOUT_MS": "2000",
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_SASL_USERNAME": "baton",
    }
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment(given)
    told = str(caught.value)
    wrong = [*given, "KAFKA_SASL_PASSWORD", "KAFKA_BOOTSTRAP_SERVERS"]
    assert all(f"{name}" in told for name in wrong if name != "KAFKA_SASL_USERNAME")
    assert '(found "three")' in told
    assert "Tries of a record before it becomes a dead letter. Default: 3" in told


@pytest.mark.parametrize(
    "wrong",
    ["localhost:abc", "localhost:", "localhost:0", "localhost:70000", "PLAINTEXT://kafka:9092", "a:1,,b:2", "a b:1", "::1"],
)
def test_what_is_no_address_is_said_before_the_client_stumbles_over_it(wrong: str) -> None:
    with pytest.raises(SettingsError, match=r"KAFKA_BOOTSTRAP_SERVERS: .* is no address; give host:port"):
        Settings.from_environment({"KAFKA_BOOTSTRAP_SERVERS": wrong})


@pytest.mark.parametrize("right", ["kafka:19092", "kafka", "10.0.0.1:9092, b-2.kafka_x.example:9094", "[::1]:9092"])
def test_an_address_is_taken_as_it_is(right: str) -> None:
    assert Settings.from_environment({"KAFKA_BOOTSTRAP_SERVERS": right}).kafka_bootstrap_servers == right


def test_a_ca_file_that_cannot_be_used_is_said_where_it_is_used(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("")
    told = {"nope.pem": "no such file or directory", "empty.pem": "holds no certificate"}
    for name, reason in told.items():
        given = BROKER | {"KAFKA_SSL_CAFILE": str(tmp_path / name)}
        with pytest.raises(SettingsError, match=rf"KAFKA_SSL_CAFILE: .*{name}: {reason}; mount"):
            Settings.from_environment(given | {"KAFKA_SECURITY_PROTOCOL": "SSL"})
        assert Settings.from_environment(given).kafka_security_protocol == "PLAINTEXT"


def test_a_command_without_broker_needs_no_broker() -> None:
    assert Settings.from_environment({}, needs_broker=False).kafka_bootstrap_servers == ""


@pytest.mark.parametrize(
    ("hostname", "replica"),
    [("baton-intake-3", 3), ("laptop", 0), ("baton-intake-7d9f8b6c5d-24567", 0), ("9f2c1a7b3e4d", 0)],
)
def test_the_replica_follows_from_the_name_of_a_statefulset_pod(hostname: str, replica: int) -> None:
    assert Settings.from_environment(BROKER | {"HOSTNAME": hostname}).replica_index == replica


def test_a_given_replica_beats_the_host_name() -> None:
    assert Settings.from_environment(BROKER | {"HOSTNAME": "intake-3", "BATON_REPLICA": "0"}).replica_index == 0


def test_the_password_comes_from_a_file_and_is_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("hunter2-secret\n")
    login = {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_USERNAME": "baton"}
    settings = Settings.from_environment(BROKER | login | {"KAFKA_SASL_PASSWORD_FILE": str(file)})
    assert dict(settings.kafka_security) == {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "baton",
        "sasl_plain_password": "hunter2-secret",
    }
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(settings)


def test_two_passwords_are_one_too_many(tmp_path: Path) -> None:
    both = {"KAFKA_SASL_PASSWORD": "hunter2", "KAFKA_SASL_PASSWORD_FILE": str(tmp_path / "none")}
    with pytest.raises(SettingsError, match="KAFKA_SASL_PASSWORD_FILE") as caught:
        Settings.from_environment(BROKER | both)
    assert "hunter2" not in str(caught.value)


def test_a_secret_resolves_from_the_environment_and_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("  sk-from-file\n")
    assert resolve_secret("env:MY_KEY", {"MY_KEY": " sk-from-env "}) == "sk-from-env"
    assert resolve_secret(f"file:{file}") == "sk-from-file"


def test_a_rotated_secret_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("old-one")
    assert resolve_secret(f"file:{file}") == "old-one"
    file.write_text("new-one")
    os.utime(file, ns=(1, 1))
    assert resolve_secret(f"file:{file}") == "new-one"


def test_an_unchanged_secret_is_not_read_twice(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("first")
    stamp = os.stat(file)
    assert resolve_secret(f"file:{file}") == "first"
    file.write_text("other")
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert resolve_secret(f"file:{file}") == "first"


def test_a_secret_that_does_not_resolve_names_the_reference_and_the_fix(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for reference in ("env:NOT_SET", f"file:{tmp_path}/none", f"file:{tmp_path}/empty", f"file:{tmp_path}/binary"):
        with pytest.raises(SettingsError) as caught:
            resolve_secret(reference, {})
        assert reference in str(caught.value)
        assert ";" in str(caught.value)


@pytest.mark.parametrize("pasted", ["sk-live-123456", "env:", "file:", "vault:sk-live", ""])
def test_what_is_no_reference_is_not_quoted_for_it_may_be_the_secret(pasted: str) -> None:
    with pytest.raises(SettingsError) as caught:
        resolve_secret(pasted, {})
    assert "sk-live" not in str(caught.value)
    assert "env:NAME or file:/path" in str(caught.value)


@pytest.mark.parametrize(("rebalance_timeout_ms", "drain_ms"), [(45_000, 10_000), (10_000, 5_000)])
def test_who_gives_partitions_up_has_time_left_to_join_again(rebalance_timeout_ms: int, drain_ms: int) -> None:
    settings = Settings(kafka_bootstrap_servers="b:9092", rebalance_timeout_ms=rebalance_timeout_ms)
    assert runner_options(settings, stage_named("executor")).revoke_drain_ms == drain_ms
