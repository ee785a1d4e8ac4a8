"""Imports run services → shared → schemas, never sideways; decisions import neither I/O nor a clock."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
KAFKA = CHECKOUT / "shared" / "kafka"


def test_the_import_contracts_of_pyproject_are_kept() -> None:
    contracts = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    program = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    assert program, "lint-imports is missing: run `make setup`"
    done = subprocess.run([program, "--no-cache"], cwd=CHECKOUT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    assert f"Contracts: {len(contracts)} kept, 0 broken." in done.stdout, done.stdout


def test_only_the_kafka_package_imports_the_client() -> None:
    sources = [path for folder in ("services", "shared", "schemas") for path in (CHECKOUT / folder).rglob("*.py")]
    knowing = [
        path for path in sources
        if KAFKA not in path.parents and re.search(r"^\s*(from|import) aiokafka", path.read_text("utf-8"), re.M)
    ]
    assert len(sources) > 100
    assert not knowing
