import hashlib
from pathlib import Path

import pytest

from services.cli import jvm
from services.cli.jvm import LOCK, BrokerError, Jar, fetch_all, read_lock, verify, write_lock

BYTES = b"the right bytes"
JAR = Jar("org.example:thing:1.0", hashlib.sha256(BYTES).hexdigest())


def fetching(content: bytes) -> jvm.Fetch:
    def fetch(jar: Jar, staging: Path) -> Path:
        path = staging / jar.filename
        path.write_bytes(content)
        return path

    return fetch


def silent(_: str) -> None:
    return


def test_the_lock_holds_one_kafka_of_one_version_and_its_log_binding() -> None:
    jars = {jar.coordinates for jar in read_lock(LOCK.read_text())}
    assert {jvm.KAFKA, jvm.LOG_BINDING} <= jars
    kafka = {name for name in jars if name.startswith("org.apache.kafka:")}
    assert f"org.apache.kafka:kafka-clients:{jvm.KAFKA_VERSION}" in kafka
    assert all(name.endswith(f":{jvm.KAFKA_VERSION}") for name in kafka)


def test_the_lock_names_no_host() -> None:
    assert "://" not in LOCK.read_text()


def test_a_lock_survives_being_written_and_read() -> None:
    jars = read_lock(LOCK.read_text())
    assert write_lock(jars) == LOCK.read_text()


def test_a_garbled_lock_line_is_named() -> None:
    with pytest.raises(BrokerError, match=r"line 2.*org\.example:thing"):
        read_lock("# head\norg.example:thing abc\n")


def test_a_tampered_jar_is_refused_with_both_hashes_and_the_fix(tmp_path: Path) -> None:
    path = tmp_path / JAR.filename
    path.write_bytes(b"other bytes")
    with pytest.raises(BrokerError) as refused:
        verify(JAR, path)
    for part in (JAR.coordinates, JAR.sha256, hashlib.sha256(b"other bytes").hexdigest(), f"Delete {path}"):
        assert part in refused.value.message


def test_a_fetched_jar_reaches_the_class_path_only_with_the_right_hash(tmp_path: Path) -> None:
    libs = tmp_path / "libs"
    with pytest.raises(BrokerError, match="Refused"):
        fetch_all([JAR], libs, silent, fetching(b"other bytes"))
    assert list(tmp_path.rglob("*.jar")) == []
    fetch_all([JAR], libs, silent, fetching(BYTES))
    assert (libs / JAR.filename).read_bytes() == BYTES


def test_a_tampered_jar_in_the_cache_stops_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATON_CACHE", str(tmp_path))
    libs = jvm.cache_dir() / "libs"
    libs.mkdir(parents=True)
    for jar in read_lock(LOCK.read_text()):
        (libs / jar.filename).write_bytes(b"tampered")
    with pytest.raises(BrokerError, match="Refused"):
        jvm.classpath(silent)


def test_without_a_network_the_error_names_the_jar_and_the_other_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATON_CACHE", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # no settings of the user
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")  # nothing listens there
    said: list[str] = []
    with pytest.raises(BrokerError) as error:
        jvm.classpath(said.append)
    for part in ("Could not fetch at.yawk.lz4:lz4-java:", "KAFKA_BOOTSTRAP_SERVERS", "BATON_KAFKA=docker"):
        assert part in error.value.message
    assert "://" not in error.value.message
    assert said[0].startswith(f"fetching Kafka {jvm.KAFKA_VERSION}: 46 jars, once")
    assert not (tmp_path / "home").exists()
