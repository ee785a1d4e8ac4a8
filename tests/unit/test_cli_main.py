import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from services.cli.__main__ import COMMANDS, main


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_of_a_command_what_it_says_itself(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert command.name == name
    assert (command.help or "").splitlines()[0] == COMMANDS[name][1]
    assert CliRunner().invoke(main, [name, "--help"]).exit_code == 0


def test_help_names_every_command_and_loads_none_of_them() -> None:
    code = "import sys\nfrom services.cli.__main__ import main\ntry: main(['--help'])\nfinally: print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)
    assert not [heavy for heavy in ("aiokafka", "pydantic", "rich", "asyncio") if f"'{heavy}'" in done.stdout]


def test_an_unknown_command_is_refused() -> None:
    assert CliRunner().invoke(main, ["conduct"]).exit_code == 2
