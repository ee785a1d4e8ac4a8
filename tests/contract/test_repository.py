"""House rules about the files themselves: no foreign addresses, short files, a complete help, metrics that say what they mean."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client.metrics import MetricWrapperBase

from shared import metrics

CHECKOUT = Path(__file__).parents[2]
LINES_MAX = 450        # the aim is 400; past this a file holds two subjects
TEST_LINES_MAX = 600   # tables of cases are long

HOSTS_ALLOWED = (
    r"localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1\]|10\.0\.0\.1|169\.254\.169\.254|kafka|simulator|host|elsewhere|[a-z]|"
    r"[a-z0-9.-]*example(\.(com|org|net|test|invalid))?|[a-z0-9.-]+\.(test|invalid)|"
    r"json-schema\.org|www\.w3\.org|www\.apache\.org|kafka\.apache\.org|"
    r"api\.openai\.com|openrouter\.ai|api\.groq\.com|api\.mistral\.ai|api\.anthropic\.com|generativelanguage\.googleapis\.com|"
    r"api\.deepseek\.com|api\.together\.xyz|api\.fireworks\.ai|api\.x\.ai"
)
URL = re.compile(r"\bhttps?://([A-Za-z0-9.\[\]:-]*[A-Za-z0-9\]])")

# Put together from parts, so that this file does not match itself.
REGISTRIES = tuple(
    "".join(parts)
    for parts in (
        ("py", "pi.org"), ("python", "hosted.org"), ("npm", "js.org"), ("npm", "js.com"), ("crates", ".io"),
        ("repo1.", "maven"), ("maven", ".org"), ("proxy.", "golang"), ("rubygems", ".org"), ("ghcr", ".io"),
        ("quay", ".io"), ("docker", ".io"), ("arti", "factory"), ("nex", "us."), ("index", "-url ="), ("extra-", "index"),
    )
)  # fmt: skip
MACHINE_PATHS = re.compile("|".join(rf"(?<![\w.}}$])/{name}/" for name in ("ro" + "ot", "wo" + "rk", "ho" + "me", "Us" + "ers")))


def tracked() -> list[Path]:
    """Files that are, or would be, committed."""
    git = shutil.which("git")
    if git is None or not (CHECKOUT / ".git").exists():
        return []
    command = [git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [CHECKOUT / name for name in sorted(set(names)) if name and (CHECKOUT / name).is_file()]


FILES = tracked()
every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CHECKOUT)))
needs_git = pytest.mark.skipif(not FILES, reason="not a git checkout: which files are committed is not known")


def foreign_addresses(text: str) -> list[str]:
    """Hosts outside the allow-list, package registries and machine paths that a text names."""
    hosts = [re.sub(r":\w+$", "", host) for host in URL.findall(text)]
    foreign = [host for host in hosts if not re.fullmatch(HOSTS_ALLOWED, host, re.IGNORECASE)]
    lower = text.lower()
    return foreign + [name for name in REGISTRIES if name in lower] + MACHINE_PATHS.findall(text)


@needs_git
def test_no_file_names_a_package_registry_another_host_or_a_path_of_somebodys_machine() -> None:
    found = {str(path.relative_to(CHECKOUT)): foreign_addresses(path.read_text("utf-8", "replace")) for path in FILES}
    assert not {name: names for name, names in found.items() if names}


@pytest.mark.parametrize(
    "text",
    ["see https://" + "py" + "pi.org/simple", "https://" + "intranet.corp/x", "open('/" + "home/me/x')", "PY" + "PI.ORG"],
)
def test_a_foreign_address_is_found(text: str) -> None:
    assert foreign_addresses(text)


@pytest.mark.parametrize(
    "text", ["http://127.0.0.1:8080/v1", "https://api.openai.com/v1", "https://llm.example.com", "~/.cache"]
)
def test_an_allowed_address_passes(text: str) -> None:
    assert foreign_addresses(text) == []


@needs_git
def test_source_files_stay_short_enough_to_read() -> None:
    sources = [path.relative_to(CHECKOUT) for path in FILES if path.suffix == ".py"]
    lines = {path: (CHECKOUT / path).read_text("utf-8").count("\n") for path in sources}
    longest = {path: TEST_LINES_MAX if path.parts[0] == "tests" else LINES_MAX for path in sources}
    assert not {str(path): count for path, count in lines.items() if count > longest[path]}


def _declared() -> dict[str, MetricWrapperBase]:
    return {name: value for name, value in vars(metrics).items() if isinstance(value, MetricWrapperBase)}


@pytest.mark.parametrize("name", _declared())
def test_a_metric_says_what_it_means_and_is_bounded(name: str) -> None:
    description = next(iter(_declared()[name].describe()))
    assert description.name.startswith("baton_")
    assert description.documentation.endswith("."), f"{name}: give its meaning as a sentence"
    labels = set(_declared()[name]._labelnames)
    assert not labels & {"request_id", "tenant", "key"}, f"{name}: a label per request or tenant has no bound"


def test_metrics_are_declared_in_one_file() -> None:
    sources = [path for folder in ("services", "shared") for path in (CHECKOUT / folder).rglob("*.py")]
    declaring = re.compile(r"\b(Counter|Gauge|Histogram|Summary)\(\s*\"")
    assert {path.name for path in sources if declaring.search(path.read_text("utf-8"))} == {"metrics.py"}


def test_make_help_names_every_target() -> None:
    makefile = (CHECKOUT / "Makefile").read_text("utf-8")
    declared = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    targets = {target for line in declared for target in line.split()}
    command = ["make", "--no-print-directory", "help"]
    shown = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    assert {line.split()[1] for line in shown.splitlines()} == targets
    assert targets == set(re.findall(r"^([a-z-]+):.*##", makefile, re.MULTILINE))


@pytest.mark.parametrize(
    ("took", "taken"),
    [
        (("0.0016", "0.0010"), 1),
        (("0.0016", "0.0015"), 0),               # noise is no reason to leave the one that the user has in PATH
        (("too old", "0.0016", "0.0010"), 2),
        (("0.0010", "too old"), 0),
    ],
)
def test_setup_takes_the_first_python_that_is_new_enough_unless_another_is_clearly_quicker(
    took: tuple[str, ...], taken: int, tmp_path: Path
) -> None:
    pythons = [tmp_path / f"python-{place}" for place in range(len(took))]
    for python, seconds in zip(pythons, took, strict=True):
        python.write_text(f"#!/bin/sh\n[ '{seconds}' != 'too old' ] && echo {seconds}\n")
        python.chmod(0o755)
    assert environment_made_by(f"PYTHONS={' '.join(map(str, pythons))}") == str(pythons[taken])


def test_setup_takes_the_python_that_is_named() -> None:
    assert environment_made_by("PYTHON=/opt/mine/python") == "/opt/mine/python"


def environment_made_by(setting: str) -> str:
    """Which Python `make setup` would make the environment with."""
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "PYTHON")}
    command = ["make", "--dry-run", "setup", "--what-if=requirements/dev.txt", setting]
    said = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True, env=environment).stdout
    return next(line.split()[0] for line in said.splitlines() if "-m venv .cache/venv" in line)


def test_requirements_are_hashed_and_name_no_address() -> None:
    for path in (CHECKOUT / "requirements").glob("*.txt"):
        pinned = re.findall(r"^([A-Za-z0-9_.-]+)==", path.read_text(), re.MULTILINE)
        blocks = re.split(r"^(?=[A-Za-z0-9])", path.read_text(), flags=re.MULTILINE)[1:]
        assert pinned
        assert not [block.splitlines()[0] for block in blocks if "--hash=sha256:" not in block]
        assert "://" not in path.read_text()
